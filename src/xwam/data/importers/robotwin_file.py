"""One episode of RoboTwin 2.0: an HDF5 file in the layout until August 2026, or in the one since (v1.0)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import h5py
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8

from xwam.core.cameras import invert, pose, quaternion_to_matrix
from xwam.core.depth import StoredDepth
from xwam.core.video import CONVERSION_THREADS
from xwam.data.importers.hdf5 import check_bits, dataset, holds, member, numbers, opened
from xwam.data.layout import StoredCamera

ARMS = ("left", "right")
DEPTH = StoredDepth(min_m=0.01, max_m=10.0, shift_m=3.5)
# How far a rotation may be from rigid, and a wrist camera from its place on the hand: metres, or entries of a matrix.
RIGID_TOLERANCE = 1e-3
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Keys:
    """Where a layout has what; {} stands for an arm, and what a camera has lies below `cameras`/<camera>."""

    cameras: str
    rgb: str
    depth: str
    intrinsics: str
    poses: tuple[str, ...]
    joints: str
    gripper: str
    ee: str


FIRST = Keys(
    cameras="observation",
    rgb="rgb",
    depth="depth",
    intrinsics="intrinsic_cv",
    poses=("extrinsic_cv",),
    joints="joint_action/{}_arm",
    gripper="joint_action/{}_gripper",
    ee="endpose/{}_endpose",
)
V1 = Keys(
    cameras="vision",
    rgb="colors",
    depth="depths",
    intrinsics="intrinsic_matrix",
    # the collector writes the first, RoboTwin's own converter the second
    poses=("extrinsics_matrix", "extrinsic_matrix"),
    joints="state/{}_arm_joint_states",
    gripper="state/{}_ee_joint_states",
    ee="state/{}_ee_poses",
)


@contextmanager
def opened_episode(path: Path) -> Iterator["EpisodeFile"]:
    with opened(path) as file:
        for keys in (FIRST, V1):
            if all(holds(file, key) for key in (keys.cameras, keys.joints.split("/")[0])):
                yield EpisodeFile(file, keys)
                return
        raise ValueError(
            f"{path} has neither 'observation' with 'joint_action' nor 'vision' with 'state': "
            "it is no episode of RoboTwin 2.0"
        )


@dataclass(frozen=True)
class EpisodeFile:
    """What an open file holds, in our units; whatever is wrong with it is a ValueError that names the file."""

    file: h5py.File
    keys: Keys

    @property
    def name(self) -> str:
        return self.file.filename

    def camera_names(self) -> list[str]:
        """Cameras with images, by name."""
        cameras = member(self.file, self.keys.cameras)
        return sorted(name for name in cameras if holds(self.file, self._of(name, self.keys.rgb)))

    def joints(self, arm: str) -> int:
        return dataset(self.file, self.keys.joints.format(arm), (None, None)).shape[1]

    def stored_camera(self, name: str, depth: bool) -> StoredCamera:
        """What is recorded of a camera."""
        frames = dataset(self.file, self._of(name, self.keys.rgb), (None,))
        if not len(frames):
            raise ValueError(f"{self.name}: camera {name!r} has no frames: leave the file out")
        height, width = decode_jpeg(frames[0], f"{self.name}: frame 0 of {name!r}").shape[:2]
        known = all(holds(self.file, self._of(name, key)) for key in (self.keys.intrinsics, self._pose_key(name)))
        stored = DEPTH if depth and holds(self.file, self._of(name, self.keys.depth)) else None
        return StoredCamera(name=name, height=height, width=width, depth=stored, calibrated=known)

    def vectors(self) -> tuple[Float[np.ndarray, "T Dp"], Float[np.ndarray, "T Da"]]:
        """Proprio and actions: what was in force a row later; the first layout's last row keeps its own."""
        proprio, actions, rows = [], [], None
        for arm in ARMS:
            joints_key, gripper_key = self.keys.joints.format(arm), self.keys.gripper.format(arm)
            joints = numbers(self.file, joints_key, (rows, None))
            rows = len(joints)
            gripper, ee = self._column(gripper_key, rows), self.ee_poses(arm, rows)
            proprio += [ee, gripper, joints]
            if self.keys is FIRST:
                actions += [np.concatenate([x[1:], x[-1:]]) for x in (joints, gripper)]
            else:
                commands, command = (key.replace("state/", "action/") for key in (joints_key, gripper_key))
                actions += [numbers(self.file, commands, joints.shape), self._column(command, rows)]
        return np.concatenate(proprio, axis=1).astype(np.float32), np.concatenate(actions, axis=1).astype(np.float32)

    def ee_poses(self, arm: str, rows: int | None = None) -> Float[np.ndarray, "T 7"]:
        """Position in metres and quaternion wxyz, w >= 0, of an end-effector."""
        key = self.keys.ee.format(arm)
        ee = numbers(self.file, key, (rows, 7))
        wrong = np.abs(np.linalg.norm(ee[:, 3:], axis=1) - 1) > RIGID_TOLERANCE
        if wrong.any():
            row = int(np.argmax(wrong))
            told = f"quaternion {ee[row, 3:].round(3).tolist()} in row {row} of {key!r} has not length 1"
            raise ValueError(f"{self.name}: {told}: mend it, or leave the file out")
        return np.concatenate([ee[:, :3], np.where(ee[:, 3:4] < 0, -1.0, 1.0) * ee[:, 3:]], axis=1)

    def images(self, camera: StoredCamera, rows: int) -> UInt8[np.ndarray, "T H W 3"]:
        frames = dataset(self.file, self._of(camera.name, self.keys.rgb), (rows,))[()]
        images = [decode_jpeg(frame, f"{self.name}: frame {k} of {camera.name!r}") for k, frame in enumerate(frames)]
        sizes, wanted = {image.shape[:2] for image in images}, (camera.height, camera.width)
        if sizes != {wanted}:
            told = f"images of {camera.name!r} are of sizes {sorted(sizes)}, the first episode's of {wanted}"
            raise ValueError(f"{self.name}: {told}: import each size by itself")
        return np.stack(images)

    def depth_m(self, camera: StoredCamera, rows: int) -> Float[np.ndarray, "T H W"]:
        """Metres; the file has millimetres, 0 where nothing is."""
        shape, key = (rows, camera.height, camera.width), self._of(camera.name, self.keys.depth)
        check_bits(dataset(self.file, key, shape))
        return (numbers(self.file, key, shape) / 1000).astype(np.float32)

    def intrinsics(self, camera: str, rows: int) -> Float[np.ndarray, "T 3 3"]:
        return numbers(self.file, self._of(camera, self.keys.intrinsics), (rows, 3, 3))

    def camera_poses(self, camera: str, rows: int | None) -> Float[np.ndarray, "T 4 4"]:
        """T_base_cam. The first layout has world to camera in OpenCV's axes, v1.0 camera to world in OpenGL's."""
        key, first = self._of(camera, self._pose_key(camera)), self.keys is FIRST
        stored = numbers(self.file, key, (rows, 3 if first else 4, 4))
        rotation = stored[:, :3, :3]
        wrong = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max((1, 2)) > RIGID_TOLERANCE
        wrong |= np.linalg.det(rotation) < 0
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"{self.name}: {key!r} holds no rotation in row {row}: mend the calibration")
        T = pose(rotation, stored[:, :3, 3])
        T_base_cam = invert(T) if first else T @ OPENGL_FROM_OPENCV
        other = self._of(camera, "cam2world_gl")
        if holds(self.file, other):
            apart = np.abs(numbers(self.file, other, T.shape) @ OPENGL_FROM_OPENCV - T_base_cam).max()
            if apart > RIGID_TOLERANCE:
                raise ValueError(f"{self.name}: {key!r} and {other!r} differ by {apart:.3g}: mend the calibration")
        return T_base_cam

    def hand_eye(self, camera: StoredCamera) -> tuple[str, Float[np.ndarray, "4 4"]] | None:
        """The arm that a wrist camera rides on, and T_ee_cam: if its name tells the arm, and it keeps its place."""
        arm = next((arm for arm in ARMS if arm in camera.name), None)
        if arm is None or not camera.calibrated:
            return None
        ee = self.ee_poses(arm)
        T_base_ee = pose(quaternion_to_matrix(ee[:, 3:]), ee[:, :3])
        T_ee_cam = invert(T_base_ee) @ self.camera_poses(camera.name, len(ee))
        keeps = np.abs(T_ee_cam - T_ee_cam[0]).max() < RIGID_TOLERANCE
        return (f"{arm}_ee", T_ee_cam[0]) if keeps else None

    def instructions(self) -> list[str] | None:
        """The file's own; only v1.0 has any."""
        if not holds(self.file, "instructions"):
            return None
        try:
            found = np.atleast_1d(member(self.file, "instructions")[()])
            texts = [text.decode() if isinstance(text, bytes) else str(text) for text in found]
            return json.loads(texts[0]) if len(texts) == 1 and texts[0].startswith("[") else texts
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.name}: 'instructions' cannot be read ({error}): mend them") from error

    def _of(self, camera: str, key: str) -> str:
        return f"{self.keys.cameras}/{camera}/{key}"

    def _pose_key(self, camera: str) -> str:
        return next((key for key in self.keys.poses if holds(self.file, self._of(camera, key))), self.keys.poses[0])

    def _column(self, key: str, rows: int) -> Float[np.ndarray, "T 1"]:
        """A number a row, whether or not it is a vector of one."""
        vector = len(getattr(member(self.file, key), "shape", ())) == 2
        return numbers(self.file, key, (rows, 1) if vector else (rows,)).reshape(rows, 1)


def decode_jpeg(data: bytes, where: str) -> UInt8[np.ndarray, "H W 3"]:
    """RGB of a frame. RoboTwin hands RGB to an encoder that takes it for BGR: red and blue lie swapped in the JPEG."""
    data = bytes(data).rstrip(b"\0")
    if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
        raise ValueError(f"{where} is no whole JPEG: copy the file again, or leave it out")
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count, decoder.options = 1, {"err_detect": "explode"}
    try:
        [frame] = decoder.decode(av.Packet(data))
    except (FFmpegError, ValueError) as error:
        raise ValueError(f"{where} is a damaged JPEG ({error}): copy the file again, or leave it out") from error
    swapped = VideoReformatter().reformat(frame, format="rgb24", threads=CONVERSION_THREADS).to_ndarray()
    return np.ascontiguousarray(swapped[..., ::-1])
