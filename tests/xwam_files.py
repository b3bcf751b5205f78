"""A dataset in X-WAM's released layout, of any episodes with the cameras left, right and wrist."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from xwam.core.video import VideoWriter
from xwam.data.episodes import Episode

FPS = 20
# The views of the two released datasets, in the order of the recorded cameras.
ROBOCASA = {"robot0_agentview_left": "left", "robot0_agentview_right": "right", "robot0_eye_in_hand": "wrist"}
ROBOTWIN = {"head_camera": "left", "left_camera": "right", "right_camera": "wrist"}


def orientations(rows: int, phase: float) -> np.ndarray:
    """Smooth made-up rotation matrices: Meta-World's hand never turns."""
    t = np.arange(rows) / 20 + phase
    return Rotation.from_rotvec(np.stack([0.8 * np.sin(t), 2.9 * np.cos(0.3 * t), 0.5 * t], axis=1)).as_matrix()


def arm_state(episode, phase: float) -> dict[str, np.ndarray]:
    rows = episode.length
    return {
        "ee_pos": episode.proprio[:, :3] + phase,
        "ee_rotm": orientations(rows, phase).reshape(rows, 9),
        "gripper_pos": episode.proprio[:, 3:],
    }


def described(episode, number: int, views: dict[str, str], arms: tuple[str, ...], commanded: bool) -> dict:
    """An episode's JSON; actions are the next row's pose, or commands."""
    states = {arm: arm_state(episode, phase) for arm, phase in zip(arms, (0.0, 0.7), strict=False)}
    proprios = {f"{arm}_{name}": rows.tolist() for arm in arms for name, rows in states[arm].items()}
    actions = {name: [*rows[1:], rows[-1]] for name, rows in proprios.items()}
    if commanded:
        turn = np.sin(np.arange(3 * episode.length).reshape(-1, 3))
        actions["raw_actions"] = np.concatenate([episode.actions[:, :3], turn, episode.actions[:, 3:]], axis=1).tolist()
    paths = {view: f"{view}/chunk-0000/episode_{number:07d}.mp4" for view in views}
    observations = {
        view: {
            "type": "dynamic" if camera == "wrist" else "static",
            "rgb_path": f"video/{paths[view]}",
            "depth_path": f"depth/{paths[view]}",
            "start": 0,
            "end": episode.length,
            "fps": float(FPS),
        }
        for view, camera in views.items()
    }
    return {
        "num_frames": episode.length,
        "instructions": list(episode.instructions),
        "observations": observations,
        "proprios": proprios,
        "actions": actions,
    }


def depth_codes(depth_m: np.ndarray) -> np.ndarray:
    """Some inverse depth in 8 bits, as the released data may hold it."""
    return np.rint(255 * np.clip(0.3 / np.maximum(depth_m, 0.3), 0, 1)).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray) -> None:
    writer = VideoWriter(path, *frames.shape[1:3], FPS)
    writer.add(frames)
    writer.close()


def write_layout(
    root: Path, episodes: Sequence[Episode], views: dict[str, str], arms: tuple[str, ...], commanded: bool
) -> list[dict]:
    """The folder of a dataset; the contents of its JSON files."""
    contents = []
    for number, episode in enumerate(episodes):
        content = described(episode, number, views, arms, commanded)
        for view, camera in views.items():
            entry = content["observations"][view]
            write_video(root / entry["rgb_path"], episode.rgb[camera])
            write_video(root / entry["depth_path"], depth_codes(episode.depth_m[camera])[..., None].repeat(3, axis=-1))
        path = root / f"data/chunk-0000/episode_{number:07d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        contents.append(content)
    lengths = {f"chunk-0000/episode_{k:07d}": content["num_frames"] for k, content in enumerate(contents)}
    (root / "metadata.json").write_text(json.dumps(lengths))
    return contents
