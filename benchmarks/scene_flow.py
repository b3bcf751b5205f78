"""How far scene flow is from the truth in Meta-World: the hand moves as the gripper does, the background not at all.

    python benchmarks/scene_flow.py            # five tasks, 20 frames each: a minute of one core

Of the hand count points of the robot within 8 cm of the gripper, in frames in which that moves by 5 mm or more; of the
background all that the fixed cameras see of it.
"""

import json
from pathlib import Path

import numpy as np

from xwam.core.cameras import unproject
from xwam.core.types import BACKGROUND, ROBOT, RGBDClip
from xwam.data.episodes import Episode
from xwam.scene.flow import scene_flow
from xwam.sim.env import Environment, make_environment
from xwam.sim.layers import layers_of
from xwam.sim.record import FIRST_EVALUATION_SEED, demonstrate

RESULTS = Path(__file__).parent / "results" / "scene_flow.json"
TASKS = ("push-v3", "drawer-open-v3", "door-open-v3", "button-press-topdown-v3", "window-open-v3")
FRAMES, SIZE, HAND_M, MOVING_M = 20, 128, 0.08, 0.005


def filmed(environment: Environment, episode: Episode, rows: np.ndarray) -> RGBDClip:
    """These rows of an episode, depth beyond a camera's range left out."""
    robot = environment.embodiment
    fields = (episode.rgb, episode.depth_m, episode.intrinsics, episode.T_base_cam)
    rgb, depth_m, K, poses = (np.stack([field[name][rows] for name in robot.camera_names]) for field in fields)
    far_m = np.array([camera.far_m for camera in robot.cameras])[:, None, None, None]
    layers = layers_of(environment, episode, rows.tolist())
    depth_m = np.where(depth_m <= far_m, depth_m, np.float32(0))
    return RGBDClip(robot.camera_names, rgb, depth_m, K, poses, robot.frame_period_s, layers=layers)


def measured(task: str) -> dict[str, np.ndarray]:
    """Errors in metres, NaN where nothing is told: of the hand in each view, and of the background in fixed views."""
    environment = make_environment(f"metaworld/{task}", SIZE, SIZE)
    try:
        episode = demonstrate(environment, FIRST_EVALUATION_SEED, noise=0.0)
        step = environment.embodiment.actions_per_frame
        rows = np.arange(0, min(episode.length, step * FRAMES), step)
        clip, gripper_m = filmed(environment, episode, rows), episode.proprio[rows, :3]
        still = environment.embodiment.still_cameras
    finally:
        environment.close()
    found: dict[str, list[np.ndarray]] = {}
    for t in range(len(rows) - 1):
        flow_m, moved_m = scene_flow(clip, t), gripper_m[t + 1] - gripper_m[t]
        background = (clip.layers[still, t] == BACKGROUND) & (clip.depth_m[still, t] > 0)
        found.setdefault("background", []).append(np.linalg.norm(flow_m[still][background], axis=-1))
        if np.linalg.norm(moved_m) < MOVING_M:
            continue
        points_m = unproject(clip.depth_m[:, t], clip.intrinsics[:, t], clip.T_base_cam[:, t])
        hand = (clip.layers[:, t] == ROBOT) & (np.linalg.norm(points_m - gripper_m[t], axis=-1) < HAND_M)
        for view, name in enumerate(clip.cameras):
            error_m = np.linalg.norm(flow_m[view][hand[view]] - moved_m, axis=-1)
            found.setdefault(f"hand, {name}", []).append(error_m)
        found.setdefault("moved", []).append(np.linalg.norm(moved_m, keepdims=True))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def told(error_m: np.ndarray) -> dict[str, float]:
    return {
        "points": len(error_m),
        "told": float(np.isfinite(error_m).mean()),
        "median_mm": 1000 * float(np.nanmedian(error_m)),
        "q90_mm": 1000 * float(np.nanquantile(error_m, 0.9)),
    }


def main() -> None:
    tasks, whole = {}, {}
    for task in TASKS:
        found = measured(task)
        tasks[task] = {name: told(values) for name, values in found.items()}
        for name, values in found.items():
            whole.setdefault(name, []).append(values)
        print(task, {name: {k: round(v, 2) for k, v in row.items()} for name, row in tasks[task].items()}, flush=True)
    together = {name: told(np.concatenate(parts)) for name, parts in whole.items()}
    print(json.dumps(together, indent=1))
    asked = {"size": SIZE, "frames": FRAMES, "seed": FIRST_EVALUATION_SEED}
    RESULTS.write_text(json.dumps({"asked": asked, "together": together, "tasks": tasks}, indent=1))


if __name__ == "__main__":
    main()
