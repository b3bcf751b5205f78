"""The outside world in numpy: what a robot sees, what it does, and recordings of both.

Axes: V views (cameras), T video frames, H W image rows and columns, A actions, D entries of a vector.
Frames and units are those of docs/conventions.md: metres, radians, seconds, OpenCV camera axes,
`T_base_cam` maps camera coordinates to the robot's base frame.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from xwam.core.cameras import pose_errors
from xwam.core.depth import DepthScale, InverseDepthAlignment

Origin = Literal["imagined", "recorded", "simulated"]

# What a pixel shows, where that is known: `RGBDClip.layers`.
BACKGROUND, ROBOT, OBJECT = 0, 1, 2
# A camera moves if its pose leaves the first one by more than recording and rounding explain.
MOVED_M, MOVED_RAD = 1e-4, 1e-4


@dataclass(frozen=True)
class Observation:
    """One moment: the images of all cameras, the robot's state, and what it is asked to do."""

    images: dict[str, UInt8[np.ndarray, "H W 3"]]
    proprio: Float[np.ndarray, " D"]
    instruction: str
    depths_m: dict[str, Float[np.ndarray, "H W"]] = field(default_factory=dict)
    intrinsics: dict[str, Float[np.ndarray, "3 3"]] = field(default_factory=dict)
    T_base_cam: dict[str, Float[np.ndarray, "4 4"]] = field(default_factory=dict)


@dataclass(frozen=True)
class ActionChunk:
    """Actions to execute one after the other, in physical units."""

    actions: Float[np.ndarray, "A D"]
    period_s: float


@dataclass(frozen=True)
class RGBDClip:
    """What all cameras see over time: recorded, simulated, or imagined; a viewer need not know which.

    Depth is 0 where unknown. `layers`, if known, says of each pixel whether it shows `BACKGROUND`, `ROBOT` or `OBJECT`.
    """

    cameras: tuple[str, ...]
    rgb: UInt8[np.ndarray, "V T H W 3"]
    depth_m: Float[np.ndarray, "V T H W"]
    intrinsics: Float[np.ndarray, "V T 3 3"]
    T_base_cam: Float[np.ndarray, "V T 4 4"]
    period_s: float
    depth_scale: DepthScale = "metric"
    layers: UInt8[np.ndarray, "V T H W"] | None = None

    def __post_init__(self):
        V, T, H, W, _ = self.rgb.shape
        wanted = {"depth_m": (V, T, H, W), "intrinsics": (V, T, 3, 3), "T_base_cam": (V, T, 4, 4)}
        if self.layers is not None:
            wanted["layers"] = (V, T, H, W)
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, rgb {self.rgb.shape} needs {shape}")
        if len(self.cameras) != V:
            raise ValueError(f"{len(self.cameras)} camera names {self.cameras} for {V} views")

    def at(self, frames: slice | Int[np.ndarray, " n"]) -> Self:
        """Only these frames, in this order."""
        return replace(self, **{name: values[:, frames] for name, values in self.over_time().items()})

    def over_time(self) -> dict[str, np.ndarray]:
        """What it holds of every frame, of axes V T ..., by name; without what is unknown."""
        held = {name: getattr(self, name) for name in ("rgb", "depth_m", "intrinsics", "T_base_cam", "layers")}
        return {name: values for name, values in held.items() if values is not None}

    def standing(self) -> Bool[np.ndarray, " V"]:
        """Which cameras stand still: within 0.1 mm and 0.1 mrad of where they are at frame 0."""
        distance_m, angle_rad = pose_errors(self.T_base_cam, self.T_base_cam[:, :1])
        return (distance_m.max(axis=1) <= MOVED_M) & (angle_rad.max(axis=1) <= MOVED_RAD)


@dataclass(frozen=True)
class Dream:
    """An imagined future: what the cameras would see, and the actions and states that lead through it."""

    scene: RGBDClip
    chunk: ActionChunk
    proprio: Float[np.ndarray, "T D"]


@dataclass(frozen=True)
class WorldClip:
    """A 4D scene with what drove it: as a folder of its own it can be kept, scored, compared and looked at.

    `proprio` and `actions` are None where nobody knows them; actions lead from the first frame to the last. At the
    frames `seams` a new chunk was imagined from the last frame of the one before. `alignments` holds the fit of each
    camera whose depth was relative, to measured depth if it is `aligned`, else to what the other cameras see. `about`
    tells in words where it comes from, as seed, checkpoint, task.
    """

    scene: RGBDClip
    origin: Origin
    instruction: str = ""
    actions: Float[np.ndarray, "A Da"] | None = None
    action_period_s: float | None = None
    action_names: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    proprio: Float[np.ndarray, "T Dp"] | None = None
    proprio_names: tuple[str, ...] = ()
    proprio_units: tuple[str, ...] = ()
    seams: tuple[int, ...] = ()
    alignments: dict[str, InverseDepthAlignment] = field(default_factory=dict)
    about: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def episode(self) -> str:
        """The episode that it is from, as far as `about` tells; else empty."""
        told = (self.about.get(key) for key in ("task", "episode_seed", "dataset", "episode"))
        return " ".join(str(part) for part in told if part is not None)

    def until(self, frames: int) -> Self:
        """The first `frames` frames, and what led through them; the whole clip if it has no more."""
        total = self.scene.rgb.shape[1]
        if frames >= total:
            return self
        scene = self.scene.at(slice(frames))
        actions = None if self.actions is None else self.actions[: len(self.actions) * (frames - 1) // (total - 1)]
        proprio = None if self.proprio is None else self.proprio[:frames]
        seams = tuple(seam for seam in self.seams if seam < frames - 1)
        return replace(self, scene=scene, actions=actions, proprio=proprio, seams=seams)


@dataclass(frozen=True)
class Clip:
    """A training sample: T frames of every camera, T proprios, and the actions between the first and last frame.

    Depth is 0 where unknown; a clip without any depth or calibration has None there.
    """

    cameras: tuple[str, ...]
    rgb: UInt8[np.ndarray, "V T H W 3"]
    depth_m: Float[np.ndarray, "V T H W"] | None
    intrinsics: Float[np.ndarray, "V T 3 3"] | None
    T_base_cam: Float[np.ndarray, "V T 4 4"] | None
    proprio: Float[np.ndarray, "T Dp"]
    actions: Float[np.ndarray, "A Da"]
    actions_valid: Bool[np.ndarray, " A"]
    instruction: str
    period_s: float
    depth_scale: DepthScale = "metric"

    def replace(self, **changes) -> Self:
        return replace(self, **changes)

    def scene(self) -> RGBDClip:
        """The clip as a 4D scene."""
        if self.depth_m is None or self.intrinsics is None or self.T_base_cam is None:
            raise ValueError(
                "a clip without depth or calibration is no 4D scene: record both, or use one that has them"
            )
        parts = (self.rgb, self.depth_m, self.intrinsics, self.T_base_cam)
        return RGBDClip(self.cameras, *parts, self.period_s, self.depth_scale)
