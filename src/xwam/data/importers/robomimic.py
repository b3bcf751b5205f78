"""Demonstrations in robomimic's HDF5 layout: robomimic's own, LIBERO's, RoboCasa's, and what else robosuite records.

The base frame is that of the robot's base, of the right one of two robots, or of the arm's mount on a mobile base.
Where episodes carry their model, world coordinates are brought there and cameras are calibrated; where they do not,
states stay as recorded and say so.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from xwam.core.cameras import intrinsics_of_fovy
from xwam.core.depth import StoredDepth
from xwam.core.embodiment import CameraSpec, Embodiment
from xwam.data.episodes import Episode
from xwam.data.importers.files import files_below
from xwam.data.importers.hdf5 import dataset, opened
from xwam.data.importers.metadata import chosen_cameras, instructions_of
from xwam.data.importers.robomimic_cameras import CameraCalibration, Geometry, Survey, depth_in_metres, survey
from xwam.data.importers.robomimic_file import Demo, Outline, demo_names, outline
from xwam.data.importers.robomimic_robots import SAME, Robot, proprio_values, robot_of
from xwam.data.importers.source import ImportSettings
from xwam.data.layout import DatasetSpec, StoredCamera

NAME = "robomimic"
ENDINGS = (".hdf5", ".h5")
# Files that are looked at to recognise the format.
LOOKED_AT = 8
LIBERO_FPS = 20
FRAMES_PER_SECOND = 5
# Errs by at most 1.1 mm up to 3 m.
DEPTH = StoredDepth(min_m=0.01, max_m=10.0, shift_m=3.5)
# What the network's depth reaches over: of cameras beside the robot, and of those on a hand.
RANGE_M, HAND_RANGE_M = (0.3, 4.0), (0.05, 2.0)


def recognises(root: Path) -> bool:
    for path in _files(root)[:LOOKED_AT]:
        try:
            with opened(path) as file:
                dataset(file, f"data/{demo_names(file)[0]}/actions", (None, None))
            return True
        except ValueError:
            continue
    return False


def open_source(root: Path, settings: ImportSettings) -> "RobomimicSource":
    return RobomimicSource(root, settings)


class RobomimicSource:
    """A file of demonstrations or a folder tree of them; see `xwam.data.importers.source.Source`."""

    def __init__(self, root: Path, settings: ImportSettings):
        self._settings = settings
        outlines, without_images = _outlines(root)
        first = outlines[0]
        self._episodes = [(found, demo) for found in outlines for demo in found.demos]
        self._robot = _robot(first)
        for other in outlines[1:]:
            _check_alike(first, other)
        names = chosen_cameras(sorted(first.images()), settings, first.path)
        with opened(first.path) as file:
            self._survey = survey(Demo(file, first.demos[0], first), self._robot, names, settings.depth)
        fps = _fps(first, settings)
        self.embodiment = _embodiment(self._robot, self._survey, names, fps, first)
        self.spec = DatasetSpec(
            robot=self.embodiment.name,
            fps=fps,
            cameras=tuple(_stored(first, name, self._survey) for name in names),
            proprio=self.embodiment.proprio.column_names,
            action=self.embodiment.action.column_names,
        )
        self.claims = self._robot.claims(self._survey.controls)
        claimed = [claim.action for claim in self.claims]
        self.assumptions = _assumptions(first, self._robot, self._survey, claimed, without_images)

    def __len__(self) -> int:
        return len(self._episodes)

    def label(self, index: int) -> str:
        found, demo = self._episodes[index]
        return f"{found.path}: {demo}"

    def episode(self, index: int) -> Episode:
        found, name = self._episodes[index]
        with opened(found.path) as file:
            demo = Demo(file, name, found)
            seen, taken = demo.pairing()
            geometry = Geometry.of(demo, self._robot) if self._survey.located else None
            proprio = self._proprio(demo, geometry)[seen]
            depth = depth_in_metres(demo, geometry, self._survey)
            calibrations = self._calibrations(demo, geometry)
            return Episode(
                rgb={camera.name: demo.images(camera.name)[seen] for camera in self.spec.cameras},
                depth_m={camera: values[seen].astype(np.float32) for camera, values in depth.items()},
                intrinsics={camera: self._intrinsics(camera, c, len(proprio)) for camera, c in calibrations.items()},
                T_base_cam={camera: self._poses(c, proprio) for camera, c in calibrations.items()},
                proprio=proprio.astype(np.float32),
                actions=demo.actions()[taken].astype(np.float32),
                instructions=_instructions(demo, self._settings),
                environment=_environment(demo),
                seed=None,
                success=demo.succeeded(),
            )

    def _proprio(self, demo: Demo, geometry: Geometry | None) -> Float[np.ndarray, "T Dp"]:
        T_base_world = np.eye(4) if geometry is None or geometry.T_base_world is None else geometry.T_base_world
        try:
            return proprio_values(self._robot.arms, self._robot.obs, demo.obs, T_base_world)
        except ValueError as error:
            raise ValueError(f"{demo.where}: {error}") from error

    def _calibrations(self, demo: Demo, geometry: Geometry | None) -> dict[str, CameraCalibration]:
        """Of the cameras that the dataset describes as calibrated."""
        found = {}
        for camera in self.embodiment.cameras:
            if camera.name not in self._survey.calibrations:
                continue
            try:
                found[camera.name] = geometry.camera(camera.name, self._robot.arms)
            except ValueError as error:
                raise ValueError(f"{demo.where}: 'model_file': {error}: leave the demo out") from error
            elsewhere = camera.mount and np.abs(found[camera.name].T - np.array(camera.T_ee_cam)).max() > SAME
            if elsewhere or found[camera.name].mount != self._survey.calibrations[camera.name].mount:
                told = f"camera {camera.name!r} is fixed elsewhere than in {self.label(0)}"
                raise ValueError(f"{demo.where}: {told}: import the files apart, or without this camera")
        return found

    def _intrinsics(self, name: str, calibration: CameraCalibration, rows: int) -> Float[np.ndarray, "T 3 3"]:
        camera = self.spec.camera(name)
        return np.tile(intrinsics_of_fovy(calibration.fovy_rad, camera.height, camera.width), (rows, 1, 1))

    def _poses(self, calibration: CameraCalibration, proprio: Float[np.ndarray, "T Dp"]) -> Float[np.ndarray, "T 4 4"]:
        if calibration.mount is None:
            return np.tile(calibration.T, (len(proprio), 1, 1))
        return self.embodiment.T_base_ee(proprio, calibration.mount) @ calibration.T


# ---- what a recording holds --------------------------------------------------------------------------------------


def _files(root: Path) -> list[Path]:
    folder = root.parent if root.is_file() else root
    return [folder / found.name for found in files_below(root) if found.name.lower().endswith(ENDINGS)]


def _outlines(root: Path) -> tuple[list[Outline], list[Path]]:
    """The files with images, and those without, such as the simulator states that images were made from."""
    outlines = []
    for path in _files(root):
        with opened(path) as file:
            outlines.append(outline(file))
    with_images = [found for found in outlines if found.images()]
    if not with_images:
        told = f"{outlines[0].path} holds no images, but {sorted(outlines[0].obs)}" if outlines else f"{root} has none"
        raise ValueError(
            f"{told}: give *.hdf5 files with obs/*_image or obs/*_rgb; robomimic/scripts/dataset_states_to_obs.py "
            "makes them of simulator states (--camera_names, --depth)"
        )
    return with_images, [found.path for found in outlines if not found.images()]


def _robot(found: Outline) -> Robot:
    try:
        return robot_of(found.obs, found.env_kwargs, found.action_width, found.is_robocasa)
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from error


def _check_alike(first: Outline, other: Outline) -> None:
    ours, theirs = _robot(first), _robot(other)
    told = {
        "images": [{name: found.obs[key] for name, key in found.images().items()} for found in (first, other)],
        "depth": [sorted(filter(found.has_depth, found.images())) for found in (first, other)],
        "states": [[(part.name, part.size) for part in robot.proprio(True).parts] for robot in (ours, theirs)],
        "actions": [[(part.name, part.unit) for part in robot.action().parts] for robot in (ours, theirs)],
        "rate": [found.env_kwargs.get("control_freq") for found in (first, other)],
        "robots": [robot.name for robot in (ours, theirs)],
        "models": [found.model is not None for found in (first, other)],
    }
    for subject, (here, there) in told.items():
        if here != there:
            found = f"{other.path} has other {subject} ({there}) than {first.path} ({here})"
            raise ValueError(f"{found}: import them apart")


def _fps(found: Outline, settings: ImportSettings) -> int:
    told = settings.fps or found.env_kwargs.get("control_freq") or (LIBERO_FPS if found.is_libero else None)
    if told is None:
        raise ValueError(f"{found.path} has no control_freq in its env_args: give the rate with --fps")
    if not isinstance(told, int | float) or not (told >= 1 and told % 1 == 0):
        raise ValueError(f"{found.path} has a control_freq of {told!r}: give a whole rate with --fps")
    return int(told)


def _stored(found: Outline, name: str, known: Survey) -> StoredCamera:
    height, width, channels = found.obs[found.images()[name]]
    if channels != 3 or height % 2 or width % 2:
        told = f"{found.path}: images of {name!r} are {height} x {width} x {channels}"
        raise ValueError(f"{told}: needs rows, columns and 3 colours, with even sides; leave it out with --cameras")
    return StoredCamera(
        name=name,
        height=height,
        width=width,
        depth=DEPTH if name in known.depth_cameras else None,
        calibrated=name in known.calibrations,
    )


def _embodiment(robot: Robot, known: Survey, names: tuple[str, ...], fps: int, found: Outline) -> Embodiment:
    cameras = []
    for name in names:
        calibration = known.calibrations.get(name)
        hand = calibration is not None and calibration.mount is not None
        near, far = HAND_RANGE_M if hand or "hand" in name else RANGE_M
        fixed = hand and not _randomised(found)
        mounted = {"mount": calibration.mount, "T_ee_cam": calibration.T.tolist()} if fixed else {}
        cameras.append(CameraSpec(name=name, near_m=near, far_m=far, **mounted))
    scaled = all(controller is not None and controller.within_one for controller in robot.controllers)
    return Embodiment(
        name=f"robosuite_{robot.name}",
        cameras=tuple(cameras),
        proprio=robot.proprio(known.located),
        action=robot.action(),
        action_period_s=1 / fps,
        actions_per_frame=max(1, round(fps / FRAMES_PER_SECOND)),
        action_low=-1.0 if scaled else None,
        action_high=1.0 if scaled else None,
    )


def _randomised(found: Outline) -> bool:
    """Whether each demo has its cameras elsewhere."""
    return bool(found.env_kwargs.get("randomize_cameras"))


def _instructions(demo: Demo, settings: ImportSettings) -> tuple[str, ...]:
    """What the file says, else the user, else what the name of LIBERO's file or of the task says."""
    told = [demo.of.problem.get("language_instruction"), demo.ep_meta().get("lang"), demo.of.env.get("lang")]
    told = [text for text in told if isinstance(text, str) and text.strip()]
    if not told and not settings.instruction:
        told = [_words(demo.of)]
    return instructions_of(told[:1], settings, demo.where)


def _words(found: Outline) -> str:
    """An instruction out of a name, such as PickPlaceCan or KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5."""
    if found.is_libero:
        return re.sub(r"^[A-Z0-9_]*SCENE\d+_", "", found.path.stem.removesuffix("_demo")).replace("_", " ")
    name = found.env.get("env_name")
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name if isinstance(name, str) else "")
    return spaced.replace("_", " ").lower()


def _environment(demo: Demo) -> str:
    found = demo.of
    if found.is_libero:
        bddl = PurePosixPath(found.bddl)
        return f"{bddl.parent.name or 'libero'}/{bddl.stem or found.path.stem.removesuffix('_demo')}"
    suite = "robocasa" if found.is_robocasa else "robosuite"
    return f"{suite}/{found.env.get('env_name', found.path.stem)}"


def _assumptions(
    found: Outline, robot: Robot, known: Survey, claimed: Sequence[str], without_images: Sequence[Path]
) -> dict[str, str]:
    where = "base is that of robot0, by the model in each demo" if known.located else "world, as recorded"
    where = "base is the arm's mount on the mobile base" if robot.mobile else where
    unproven = [part.name for part in robot.action().parts if part.name not in claimed]
    told = {
        "frames": f"{where}; an end-effector has the grip site's position and the hand body's axes",
        "units": "metres, radians; quaternions wxyz of robosuite's xyzw, or of LIBERO's rotation vectors",
        "gripper": "opening is the difference of the two fingers' joints; in actions -1 opens and 1 closes",
        "actions": "the controller's numbers as recorded, never rescaled; of unknown meaning, or in a frame that is "
        f"turned against the base: {', '.join(unproven) or 'none'}",
        "rows": "what was seen, and the action taken then",
        "images": "row 0 is the top, as robomimic and RoboCasa store them",
        "depth": known.depth,
        "calibration": known.calibration,
        "instruction": "the file's own, else --instruction, else the words of the task's name",
        "success": "a reward of 1 in any row; unknown where rewards are shaped",
        "demos": "all, whatever `mask` says",
    }
    if found.is_libero:
        told["rows"] = "LIBERO stores what was seen after an action: paired anew, so a row less; copies that store it "
        told["rows"] += "before are told by the joints in `states`"
        told["images"] = "stored with row 0 as the bottom (OpenGL's) and turned over"
        told["images"] = told["images"] if found.upside_down else "row 0 is the top, by `macros_image_convention`"
    if robot.mobile:
        told["base"] = "its pose is the world's; actions are in the order "
        told["base"] += ", ".join(part.name for part in robot.action().parts)
    if _randomised(found):
        told["calibration"] += "; cameras differ by demo, so that the robot's file tells no place on the hand"
    if without_images:
        told["files"] = f"left out, for they hold no images: {', '.join(path.name for path in without_images)}"
    return told
