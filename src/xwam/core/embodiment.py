"""A robot as data: the named parts of its action and proprio vectors, its cameras, and its rates.

Normalisation is by quantiles, 2 * (x - q01) / max(q99 - q01, 1e-6) - 1, as in X-WAM (arXiv 2604.26694);
quaternions stay as they are, ranges of deltas are symmetric so that 0 stays "no motion", and entries beyond
the robot's own are 0 and not valid.
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import model_validator

from xwam.core.cameras import check_poses, pose, quaternion_to_matrix
from xwam.core.config import Frozen
from xwam.core.depth import DepthCoding
from xwam.core.types import Observation

Kind = Literal[
    "position",
    "quaternion",
    "rotation_vector",
    "joint",
    "gripper",
    "delta_position",
    "delta_rotation",
    "delta_joint",
    "velocity",
    "other",
]


class Part(Frozen):
    """Some consecutive entries of a vector that belong together.

    `columns` are the dataset's names of these entries, in this order; if not given, `name`, or `name.0`, `name.1`, ...
    """

    name: str
    kind: Kind
    size: int
    unit: str
    columns: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.size < 1 or len(self.columns) not in (0, self.size):
            raise ValueError(f"part {self.name!r} has size {self.size} and columns {self.columns}: name each entry")
        if self.kind == "quaternion" and self.size != 4:
            raise ValueError(f"part {self.name!r} is a quaternion of {self.size} entries: it has 4, w first")
        return self

    @property
    def symmetric(self) -> bool:
        """Whether 0 means "no motion", and has to stay in the middle."""
        return self.kind.startswith("delta") or self.kind == "velocity"

    @property
    def column_names(self) -> tuple[str, ...]:
        numbered = (f"{self.name}.{k}" for k in range(self.size))
        return self.columns or (tuple(numbered) if self.size > 1 else (self.name,))


class VectorSpec(Frozen):
    """Layout and statistics of an action or proprio vector; `width` is that of the network's, padded at the end."""

    parts: tuple[Part, ...]
    width: int
    q01: tuple[float, ...] = ()
    q99: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.size > self.width:
            raise ValueError(f"parts hold {self.size} entries, more than width {self.width}: raise the width")
        for name in ("q01", "q99"):
            if len(getattr(self, name)) not in (0, self.size):
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, the parts have {self.size}")
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} holds NaN or infinity: run `xwam stats DATASET` and copy its result")
        names = [part.name for part in self.parts]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"part {twice!r} is there twice: give each a name of its own")
        return self

    @property
    def size(self) -> int:
        """Entries that the robot has."""
        return sum(part.size for part in self.parts)

    @property
    def valid(self) -> Bool[np.ndarray, " width"]:
        return np.arange(self.width) < self.size

    @property
    def column_names(self) -> tuple[str, ...]:
        """The dataset's names of all entries, in the vector's order."""
        return tuple(name for part in self.parts for name in part.column_names)

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of every entry."""
        return tuple(part.unit for part in self.parts for _ in range(part.size))

    def columns_in(self, names: Sequence[str]) -> Int[np.ndarray, " D"]:
        """Where this vector's entries stand in a dataset's row whose columns have these names."""
        missing = [name for name in self.column_names if name not in names]
        if missing or len(set(names)) != len(names):
            wrong = f"lacks the columns {missing}" if missing else "repeats a column"
            raise ValueError(f"a row of {list(names)} {wrong}: name a part's `columns` as the dataset does")
        return np.array([names.index(name) for name in self.column_names], dtype=np.int64)

    def part(self, name: str) -> Part:
        for part in self.parts:
            if part.name == name:
                return part
        raise ValueError(f"no part {name!r}; there are {[part.name for part in self.parts]}")

    def slice(self, name: str) -> slice:
        """Where a part lies in the vector."""
        wanted = self.part(name)
        start = sum(part.size for part in self.parts[: self.parts.index(wanted)])
        return slice(start, start + wanted.size)

    def fit(self, q01: Float[np.ndarray, " D"], q99: Float[np.ndarray, " D"]) -> Self:
        """The same layout with measured 1% and 99% quantiles."""
        low, high = np.array(q01, dtype=np.float64), np.array(q99, dtype=np.float64)
        for part in self.parts:
            at = self.slice(part.name)
            if part.symmetric:
                high[at] = np.maximum(np.abs(low[at]), np.abs(high[at]))
                low[at] = -high[at]
            if part.kind == "quaternion":
                low[at], high[at] = -1.0, 1.0
        return self.model_copy(update={"q01": tuple(low.tolist()), "q99": tuple(high.tolist())})

    def normalise(self, x: Float[np.ndarray, "*n D"]) -> Float[np.ndarray, "*n width"]:
        """Physical units to the network's, padded with zeros."""
        low, span = self._range()
        if x.shape[-1] != self.size:
            raise ValueError(f"a vector of {x.shape[-1]} entries; the embodiment's parts have {self.size}")
        scaled = 2 * (x - low) / span - 1
        padding = [(0, 0)] * (x.ndim - 1) + [(0, self.width - self.size)]
        return np.pad(scaled, padding).astype(np.float32)

    def denormalise(self, x: Float[np.ndarray, "*n width"]) -> Float[np.ndarray, "*n D"]:
        """The network's units to physical ones; padding is dropped."""
        low, span = self._range()
        return ((x[..., : self.size].astype(np.float64) + 1) / 2 * span + low).astype(np.float32)

    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.q01:
            raise ValueError("this embodiment has no statistics: run `xwam stats DATASET` and train from its result")
        low, high = np.array(self.q01), np.array(self.q99)
        return low, np.maximum(high - low, 1e-6)


class CameraSpec(Frozen):
    """One camera: how depth is coded, and, if it rides on an end-effector, which and where.

    `unknown_depth` tells what a depth of 0 is: `far` beyond the range, as in simulators, or `missing`, as where a
    sensor failed; what is missing is not learned from. `depth_scale` is `relative` where the data's coding is unknown:
    then near and far are nominal, not metres.

    `mount` names an end-effector whose proprio parts are `<mount>_position` and, unless its orientation is fixed,
    `<mount>_orientation`; `T_ee_cam` is the hand-eye calibration, row by row.
    """

    name: str
    near_m: float
    far_m: float
    depth_scale: Literal["metric", "relative"] = "metric"
    unknown_depth: Literal["far", "missing"] = "far"
    mount: str | None = None
    T_ee_cam: tuple[tuple[float, float, float, float], ...] | None = None

    @model_validator(mode="after")
    def _calibrated(self) -> Self:
        if self.mount is not None and self.T_ee_cam is None:
            raise ValueError(f"camera {self.name!r} rides on {self.mount!r}: give its hand-eye calibration T_ee_cam")
        if self.T_ee_cam is not None:
            if len(self.T_ee_cam) != 4:
                raise ValueError(f"T_ee_cam of camera {self.name!r} has {len(self.T_ee_cam)} rows: give 4")
            check_poses(f"T_ee_cam of camera {self.name!r}", np.array(self.T_ee_cam))
        DepthCoding(self.near_m, self.far_m)  # raises if that is no range
        return self

    @property
    def depth(self) -> DepthCoding:
        return DepthCoding(self.near_m, self.far_m)


class Embodiment(Frozen):
    """A robot, its cameras in the order of the network's views, and its rates."""

    name: str
    cameras: tuple[CameraSpec, ...]
    proprio: VectorSpec
    action: VectorSpec
    action_period_s: float
    actions_per_frame: int
    action_low: float | None = None
    action_high: float | None = None

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not 0 < self.action_period_s < np.inf:
            raise ValueError(f"action_period_s is {self.action_period_s}: give the seconds from one action to the next")
        if self.actions_per_frame < 1:
            raise ValueError(f"actions_per_frame is {self.actions_per_frame}: give 1 or more")
        if twice := next((name for name in self.camera_names if self.camera_names.count(name) > 1), None):
            raise ValueError(f"camera {twice!r} is there twice: list each once")
        return self

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @property
    def still_cameras(self) -> Bool[np.ndarray, " V"]:
        """Which cameras stand still: those that are mounted on nothing that moves."""
        return np.array([camera.mount is None for camera in self.cameras])

    def widened(self, proprio_width: int, action_width: int) -> Self:
        """The same robot for a network of these widths, which pads its vectors; raises if they are too narrow."""
        widths = {"proprio": proprio_width, "action": action_width}
        wide = {}
        for name, width in widths.items():
            vector = getattr(self, name)
            if vector.size > width:
                raise ValueError(f"{name} of {self.name!r} has {vector.size} entries, the network {width}: widen it")
            wide[name] = vector.model_copy(update={"width": width})
        return self.model_copy(update=wide)

    @property
    def frame_period_s(self) -> float:
        return self.action_period_s * self.actions_per_frame

    def camera_poses(
        self, proprio: Float[np.ndarray, "T D"], present: dict[str, Float[np.ndarray, "4 4"]]
    ) -> Float[np.ndarray, "V T 4 4"]:
        """T_base_cam of every view over time: static ones stay, mounted ones follow the proprio by hand-eye."""
        poses = []
        for camera in self.cameras:
            if camera.mount is None:
                poses.append(np.repeat(present[camera.name][None], len(proprio), axis=0))
            else:
                poses.append(self.T_base_ee(proprio, camera.mount) @ np.array(camera.T_ee_cam))
        return np.stack(poses)

    def T_base_ee(self, proprio: Float[np.ndarray, "*n D"], ee: str = "ee") -> Float[np.ndarray, "*n 4 4"]:
        """Pose of an end-effector; its axes are the base's if the proprio holds no orientation."""
        position = proprio[..., self.proprio.slice(f"{ee}_position")]
        if f"{ee}_orientation" not in [part.name for part in self.proprio.parts]:
            return pose(np.eye(3), position)
        return pose(quaternion_to_matrix(proprio[..., self.proprio.slice(f"{ee}_orientation")]), position)

    def check_observation(self, observation: Observation) -> None:
        """Raises unless all of the robot's cameras see, and its state has the entries that it must."""
        if missing := [name for name in self.camera_names if name not in observation.images]:
            told = f"the model looks at {self.camera_names}, got {list(observation.images)}"
            raise ValueError(f"no image of camera {missing[0]!r}: {told}")
        if observation.proprio.shape != (self.proprio.size,) or not np.isfinite(observation.proprio).all():
            told = f"{self.proprio.size} finite numbers: {[part.name for part in self.proprio.parts]}"
            raise ValueError(f"proprio {observation.proprio} must be {told}")

    def check_same_robot(self, other: Self) -> None:
        """Raises if a checkpoint made for `other` cannot drive this robot."""
        for name in ("camera_names", "actions_per_frame"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"checkpoint of another embodiment: {name} is {getattr(other, name)} in the checkpoint of "
                    f"{other.name!r}, {getattr(self, name)} for {self.name!r}: use a checkpoint trained for this robot"
                )
        for name in ("proprio", "action"):
            theirs, ours = _unbound(getattr(other, name).parts), _unbound(getattr(self, name).parts)
            if theirs != ours:
                raise ValueError(
                    f"checkpoint of another embodiment: {name} parts are {_told(theirs)} in the checkpoint "
                    f"of {other.name!r}, {_told(ours)} for {self.name!r}"
                )


def _unbound(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Parts without the names that some dataset has for their entries."""
    return tuple(part.model_copy(update={"columns": ()}) for part in parts)


def _told(parts: tuple[Part, ...]) -> str:
    return ", ".join(f"{part.name} ({part.size} of {part.kind} in {part.unit})" for part in parts)
