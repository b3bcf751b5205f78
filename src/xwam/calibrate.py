"""`xwam calibrate-hand-eye`: where a camera sits on the hand, from recorded poses of both, or whether that is right."""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from xwam.core.cameras import pose_errors
from xwam.core.embodiment import CameraSpec, Embodiment
from xwam.core.embodiment_file import rewrite_embodiment
from xwam.core.hand_eye import HandEye, hand_eye_in_base, hand_eye_in_fixed
from xwam.data.episodes import EpisodeStore
from xwam.data.layout import EMBODIMENT_PATH, extrinsics_key

# Poses beyond tell no more and take longer.
MOST_POSES = 1000
# What a check lets pass: at arm's length a degree is a centimetre.
AGREES_M, AGREES_RAD = 0.005, np.radians(1.0)

PosesIn = Literal["base", "other"]


def calibrate_hand_eye(
    dataset: Path, name: str, mount: str | None, poses_in: PosesIn, episodes: int, check: bool, write: bool
) -> HandEye:
    """Solves, prints, and if asked compares with or writes to meta/embodiment.yaml; see the verb's help.

    Raises ValueError if there are no such poses, if they leave the place open, or if a check fails.
    """
    store = EpisodeStore(dataset)
    robot = store.embodiment()
    if robot is None:
        raise ValueError(f"{dataset} has no {EMBODIMENT_PATH}: describe the robot there, its ee_position first of all")
    spec = _camera(robot, name)
    mount = mount or spec.mount or "ee"
    T_base_ee, T_cam = recorded_poses(store, robot, name, mount, episodes)
    solve = hand_eye_in_base if poses_in == "base" else hand_eye_in_fixed
    try:
        solved = solve(T_base_ee, T_cam)
    except ValueError as error:
        raise ValueError(f"camera {name!r} of {dataset}: {error}") from error
    Console().print(_table(name, mount, spec, solved))
    if check:
        _check(dataset, spec, mount, solved)
    if write:
        rewrite_embodiment(store.root / EMBODIMENT_PATH, _mounted(robot, name, mount, solved))
        print(f"Written: {store.root / EMBODIMENT_PATH}")
    return solved


def _camera(robot: Embodiment, name: str) -> CameraSpec:
    for camera in robot.cameras:
        if camera.name == name:
            return camera
    raise ValueError(f"--camera {name}: this robot's cameras are {list(robot.camera_names)}")


def recorded_poses(
    store: EpisodeStore, robot: Embodiment, camera: str, mount: str, episodes: int
) -> tuple[Float[np.ndarray, "N 4 4"], Float[np.ndarray, "N 4 4"]]:
    """Poses of the hand, by the state, and of the camera, as recorded, in rows spread evenly over some episodes."""
    if not store.spec.camera(camera).calibrated:
        raise ValueError(
            f"camera {camera!r} of {store.root} has no recorded poses: calibration needs {extrinsics_key(camera)}"
        )
    chosen = np.unique(np.linspace(0, len(store) - 1, min(episodes, len(store))).astype(int)).tolist()
    each = max(2, MOST_POSES // len(chosen))
    hands, cameras = [], []
    for episode in chosen:
        proprio, _ = store.vectors(episode, robot)
        rows = np.unique(np.linspace(0, len(proprio) - 1, each).astype(int))
        hands.append(robot.T_base_ee(proprio[rows], mount))
        cameras.append(store.column(episode, extrinsics_key(camera))[rows].reshape(-1, 4, 4).astype(np.float64))
    return np.concatenate(hands), np.concatenate(cameras)


def _table(name: str, mount: str, spec: CameraSpec, solved: HandEye) -> Table:
    table = Table("", "", title=f"Camera {name!r} on {mount!r}")
    distances_mm, angles_deg = 1000 * solved.residual_m, np.degrees(solved.residual_rad)
    rows = ["[" + ", ".join(f"{x: .5f}" for x in row) + "]" for row in solved.T_ee_cam]
    table.add_row("T_ee_cam", "\n".join(rows), end_section=True)
    table.add_row("poses", f"{len(solved.kept)}, of which {solved.kept.mean():.0%} agree and were fitted")
    for told, share in (("half of the poses within", 0.5), ("95% of the poses within", 0.95)):
        spread = f"{np.quantile(distances_mm, share):.3f} mm, {np.quantile(angles_deg, share):.4f} degrees"
        table.add_row(told, spread)
    if spec.T_ee_cam is not None:
        distance_m, angle_rad = pose_errors(solved.T_ee_cam, np.array(spec.T_ee_cam))
        table.add_row("from the embodiment's", f"{1000 * distance_m:.3f} mm, {np.degrees(angle_rad):.4f} degrees")
    return table


def _check(dataset: Path, spec: CameraSpec, mount: str, solved: HandEye) -> None:
    if spec.T_ee_cam is None or spec.mount != mount:
        raise ValueError(
            f"{dataset / EMBODIMENT_PATH} has no T_ee_cam of {spec.name!r} on {mount!r}: solve with --write"
        )
    distance_m, angle_rad = pose_errors(solved.T_ee_cam, np.array(spec.T_ee_cam))
    if distance_m > AGREES_M or angle_rad > AGREES_RAD:
        raise ValueError(
            f"{dataset / EMBODIMENT_PATH}: T_ee_cam of {spec.name!r} is {1000 * distance_m:.1f} mm and "
            f"{np.degrees(angle_rad):.2f} degrees from what the poses tell: correct it with --write, or the poses"
        )
    print(f"T_ee_cam of {spec.name!r} agrees with the recorded poses.")


def _mounted(robot: Embodiment, name: str, mount: str, solved: HandEye) -> Embodiment:
    """The robot with this camera where it was found."""
    found = {"mount": mount, "T_ee_cam": tuple(map(tuple, solved.T_ee_cam.tolist()))}
    cameras = [c.model_copy(update=found) if c.name == name else c for c in robot.cameras]
    return robot.model_copy(update={"cameras": tuple(cameras)})
