"""RoboTwin 2.0's demonstrations: folders of tasks with data/episode*.hdf5, as its collector writes them.

The base frame is the simulator's world: z up, its origin on the floor below the table, shared by both arms. What
the released models want instead, turned frames and deltas, is in the released X-WAM layout (`xwam_layout`).
"""

import re
from pathlib import Path

import numpy as np

from xwam.core.embodiment import CameraSpec, Embodiment, Part, VectorSpec
from xwam.core.files import read_json
from xwam.data.episodes import Episode
from xwam.data.importers.metadata import chosen_cameras, instructions_of
from xwam.data.importers.robotwin_file import ARMS, EpisodeFile, opened_episode
from xwam.data.importers.source import Claim, ImportSettings
from xwam.data.layout import DatasetSpec

NAME = "robotwin"
# The simulator steps 250 times a second; its collector saves every 15th step unless its `save_freq` says otherwise.
DEFAULT_FPS = round(250 / 15)
EPISODE_FILE = re.compile(r"episode_?(\d+)\.hdf5")
FOLDERS = ("", "data/", "*/data/", "*/*/data/", "*/*/*/data/")
# The simulated cameras see from 0.1 m on; the table and both arms lie within 3 m of each.
NEAR_M, FAR_M = 0.1, 3.0


def recognises(root: Path) -> bool:
    files = _episode_files(root)
    try:
        return bool(files) and bool(_camera_names(files[0]))
    except ValueError:
        return False


def open_source(root: Path, settings: ImportSettings) -> "RoboTwinSource":
    return RoboTwinSource(root, settings)


class RoboTwinSource:
    """A folder of tasks, of one task, or of one of its configurations; see `xwam.data.importers.source.Source`."""

    def __init__(self, root: Path, settings: ImportSettings):
        self._settings, self._files = settings, _episode_files(root)
        if not self._files:
            raise ValueError(f"{root} has no data/episode*.hdf5: give the folder of a RoboTwin task, or of some")
        fps = settings.fps or DEFAULT_FPS
        with opened_episode(self._files[0]) as first:
            names = chosen_cameras(first.camera_names(), settings, first.name)
            stored = tuple(first.stored_camera(name, settings.depth) for name in names)
            hand_eyes = {camera.name: first.hand_eye(camera) for camera in stored}
            self.embodiment = _embodiment([first.joints(arm) for arm in ARMS], hand_eyes, fps)
        self.spec = DatasetSpec(
            robot=self.embodiment.name,
            fps=fps,
            cameras=stored,
            proprio=self.embodiment.proprio.column_names,
            action=self.embodiment.action.column_names,
        )
        self.claims = tuple(
            Claim(action=f"{arm}_{action}", proprio=f"{arm}_{proprio}", meaning="target")
            for arm in ARMS
            for action, proprio in (("joint_targets", "joints"), ("gripper_target", "gripper_opening"))
        )
        self.assumptions = _assumptions(self.embodiment, fps, self._files[0])

    def __len__(self) -> int:
        return len(self._files)

    def label(self, index: int) -> str:
        return str(self._files[index])

    def episode(self, index: int) -> Episode:
        path, cameras = self._files[index], self.spec.cameras
        with opened_episode(path) as file:
            proprio, actions = file.vectors()
            self._check_width(path, proprio, self.spec.proprio)
            self._check_width(path, actions, self.spec.action)
            rows, calibrated = len(proprio), [camera.name for camera in cameras if camera.calibrated]
            return Episode(
                rgb={camera.name: file.images(camera, rows) for camera in cameras},
                depth_m={camera.name: file.depth_m(camera, rows) for camera in cameras if camera.depth},
                intrinsics={name: file.intrinsics(name, rows) for name in calibrated},
                T_base_cam={name: file.camera_poses(name, rows) for name in calibrated},
                proprio=proprio,
                actions=actions,
                instructions=_instructions(path, file, self._settings),
                environment=f"robotwin/{path.resolve().parents[2].name}",
                seed=_seed(path),
                success=None,
            )

    def _check_width(self, path: Path, vectors: np.ndarray, wanted: tuple[str, ...]) -> None:
        if vectors.shape[1] != len(wanted):
            told = f"it has rows of {vectors.shape[1]} numbers, {self._files[0]} of {len(wanted)}"
            raise ValueError(f"{path} is of another robot: {told}: import each robot by itself")


def _episode_files(root: Path) -> list[Path]:
    """Episodes in the order of their folders and numbers."""
    if root.is_file():
        return [root] if EPISODE_FILE.fullmatch(root.name) else []
    found = {path for folder in FOLDERS for path in root.glob(f"{folder}episode*.hdf5")}
    return sorted((path for path in found if EPISODE_FILE.fullmatch(path.name)), key=lambda p: (p.parent, _number(p)))


def _number(path: Path) -> int:
    return int(EPISODE_FILE.fullmatch(path.name)[1])


def _camera_names(path: Path) -> list[str]:
    with opened_episode(path) as file:
        return file.camera_names()


def _instructions(path: Path, file: EpisodeFile, settings: ImportSettings) -> tuple[str, ...]:
    """The wordings for training; those that are kept unseen, for evaluation, stay where they are."""
    beside = path.parent.parent / "instructions" / f"{path.stem}.json"
    listed = read_json(beside).get("seen") if beside.exists() else file.instructions()
    return instructions_of(listed, settings, beside if beside.exists() else path)


def _seed(path: Path) -> int | None:
    """The simulator's seed, if the folder lists seeds."""
    listing = path.parent.parent / "seed.txt"
    if not listing.exists():
        return None
    seeds, number = listing.read_text(errors="replace").split(), _number(path)
    if number >= len(seeds) or not seeds[number].isdecimal():
        raise ValueError(f"{listing} has no seed for {path.name}: complete it, or remove it")
    return int(seeds[number])


def _embodiment(joints: list[int], hand_eyes: dict[str, tuple[str, np.ndarray] | None], fps: int) -> Embodiment:
    proprio, action = [], []
    for arm, count in zip(ARMS, joints, strict=True):
        proprio += [
            Part(name=f"{arm}_ee_position", kind="position", size=3, unit="m"),
            Part(name=f"{arm}_ee_orientation", kind="quaternion", size=4, unit="wxyz, w >= 0"),
            Part(name=f"{arm}_gripper_opening", kind="gripper", size=1, unit="share of fully open, as commanded"),
            Part(name=f"{arm}_joints", kind="joint", size=count, unit="rad, as commanded"),
        ]
        action += [
            Part(name=f"{arm}_joint_targets", kind="joint", size=count, unit="rad"),
            Part(name=f"{arm}_gripper_target", kind="gripper", size=1, unit="share of fully open"),
        ]
    cameras = []
    for name, found in hand_eyes.items():
        mounted = {"mount": found[0], "T_ee_cam": found[1].tolist()} if found else {}
        cameras.append(CameraSpec(name=name, near_m=NEAR_M, far_m=FAR_M, **mounted))
    return Embodiment(
        name="robotwin",
        cameras=tuple(cameras),
        proprio=VectorSpec(parts=tuple(proprio), width=sum(part.size for part in proprio)),
        action=VectorSpec(parts=tuple(action), width=sum(part.size for part in action)),
        action_period_s=1 / fps,
        actions_per_frame=4,
    )


def _assumptions(robot: Embodiment, fps: int, first: Path) -> dict[str, str]:
    mounted = ", ".join(camera.name for camera in robot.cameras if camera.mount) or "none"
    return {
        "frames": "base is the simulator's world: z up, shared by both arms; an end-effector's x points along the "
        f"gripper, as RoboTwin has it; cameras that keep their place on a hand in {first.name}: {mounted}",
        "units": "metres, quaternions wxyz, radians; joints as commanded, not as measured",
        "rate": f"{fps} rows a second: files hold no rate, and the collector saves every 15th of 250 steps unless told "
        "otherwise; where a motion begins or ends, rows lie closer together",
        "gripper": "0 is closed, 1 fully open, as commanded, not as measured",
        "actions": "joint and gripper targets in force one row later; a last row without a next keeps its own",
        "depth": "z in millimetres, 0 where nothing is",
        "images": "JPEG with red and blue swapped, as RoboTwin's collector writes them; row 0 is the top",
    }
