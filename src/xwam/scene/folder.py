"""A 4D scene with what drove it as one folder that people and other programs can read.

clip.json            version, origin, instruction, rates, names and units, scale and coding of depth, seams, alignments
cameras.json         each camera's intrinsics in pixels and pose T_base_cam in metres, a matrix a frame
clip.npz             actions and proprio, where they are known
rgb/<camera>.mp4     colour, H.264, which any player shows; visually lossless
depth/<camera>.mp4   depth, FFV1 of 16-bit grey, lossless codes; none if no depth is known
layers.npz           background, robot and object by pixel, where they are known

Depth code 0 is unknown; else depth = min_m * (max_m / min_m) ** (code / 65535), so that it errs by half a step of
log(max_m / min_m) / 65535: by 0.05 mm at 3 m in a scene from 0.3 to 3 m. clip.json tells the most that it errs.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Self, TypeVar
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float
from pydantic import Field

from xwam.core.config import Frozen
from xwam.core.depth import DepthScale, InverseDepthAlignment, StoredDepth
from xwam.core.files import read_json, write_folder_atomically, write_json
from xwam.core.types import Origin, RGBDClip, WorldClip
from xwam.core.video import REENCODED_CRF, VideoReader, VideoWriter
from xwam.scene.checks import check_clip

VERSION = 1
ABOUT, CAMERAS, ARRAYS, LAYERS = "clip.json", "cameras.json", "clip.npz", "layers.npz"
BITS = 16
NAME = re.compile(r"\w[\w .-]*")
NUMBERS = re.compile(r"\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]")
CONVENTION = "pixels and metres; camera axes x right, y down, z forward; T_base_cam maps camera to base coordinates"

Settings = TypeVar("Settings", bound=Frozen)
Matrices = tuple[tuple[tuple[float, ...], ...], ...]


class _Vectors(Frozen):
    """Names and units of the entries of actions or proprio."""

    period_s: float | None = None
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()


class _Depth(Frozen):
    """How depth is coded, and by how much it errs at most."""

    min_m: float
    max_m: float
    most_error_mm: float

    @classmethod
    def of(cls, depth_m: Float[np.ndarray, "*n"]) -> Self | None:
        """The coding with the finest steps, or None if no depth is known."""
        known = depth_m[depth_m > 0].astype(np.float64)
        if not known.size:
            return None
        # a little below the nearest depth, so that its code is not 0
        low, high = 0.999 * known.min(), known.max()
        return cls(min_m=low, max_m=high, most_error_mm=500 * high * np.log(high / low) / (2**BITS - 1))

    @property
    def stored(self) -> StoredDepth:
        return StoredDepth(min_m=self.min_m, max_m=self.max_m, bits=BITS)


class _About(Frozen):
    """What clip.json holds."""

    version: int
    origin: Origin
    instruction: str
    frames: int
    period_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    depth_scale: DepthScale
    depth: _Depth | None
    actions: _Vectors | None
    proprio: _Vectors | None
    seams: tuple[int, ...]
    alignments: dict[str, InverseDepthAlignment]
    about: dict[str, str | int | float]


class _Camera(Frozen):
    """One camera in cameras.json, a matrix a frame."""

    name: str
    height: int
    width: int
    intrinsics: Matrices
    T_base_cam: Matrices


class _Cameras(Frozen):
    convention: str
    cameras: tuple[_Camera, ...]


# ---- writing -----------------------------------------------------------------------------------------------------


def write_clip(folder: Path, clip: WorldClip) -> Path:
    """Writes the folder, whole or not at all; replaces an earlier clip. Returns `folder`.

    Raises ValueError if something in the clip cannot be, or if `folder` holds other things.
    """
    check_clip(clip)
    height, width = clip.scene.rgb.shape[2:4]
    if height % 2 or width % 2:
        raise ValueError(f"images of {height} x {width}: video needs even sides")
    for name in clip.scene.cameras:
        if not NAME.fullmatch(name):
            raise ValueError(f"camera name {name!r}: use letters, digits, '_', '-' and '.', for files are called so")
    write_folder_atomically(folder, ABOUT, lambda temporary: _write(temporary, clip))
    return folder


def _write(folder: Path, clip: WorldClip) -> None:
    scene, depth = clip.scene, _Depth.of(clip.scene.depth_m)
    rate = _rate(scene.period_s)
    for v, name in enumerate(scene.cameras):
        size = scene.rgb.shape[2:4]
        _film(VideoWriter(folder / "rgb" / f"{name}.mp4", *size, rate, crf=REENCODED_CRF), scene.rgb[v])
        if depth:
            _film(VideoWriter(folder / "depth" / f"{name}.mp4", *size, rate, depth.stored), scene.depth_m[v])
    vectors = {"actions": clip.actions, "proprio": clip.proprio}
    np.savez_compressed(folder / ARRAYS, **{name: rows for name, rows in vectors.items() if rows is not None})
    if scene.layers is not None:
        np.savez_compressed(folder / LAYERS, layers=scene.layers)
    cameras = {"convention": CONVENTION, "cameras": [_camera(scene, v) for v in range(len(scene.cameras))]}
    (folder / CAMERAS).write_text(NUMBERS.sub(_on_one_line, json.dumps(cameras, indent=1)))
    write_json(folder / ABOUT, _about(clip, depth).model_dump(mode="json"))


def _film(writer: VideoWriter, frames: np.ndarray) -> None:
    writer.add(frames)
    writer.close()


def _rate(period_s: float) -> Fraction:
    return Fraction(1 / period_s).limit_denominator(1001)


def _on_one_line(numbers: re.Match) -> str:
    return f"[{', '.join(numbers[1].replace(',', ' ').split())}]"


def _camera(scene: RGBDClip, v: int) -> dict:
    height, width = scene.rgb.shape[2:4]
    matrices = {"intrinsics": scene.intrinsics[v].tolist(), "T_base_cam": scene.T_base_cam[v].tolist()}
    return {"name": scene.cameras[v], "height": height, "width": width, **matrices}


def _about(clip: WorldClip, depth: _Depth | None) -> _About:
    scene = clip.scene
    actions = _Vectors(period_s=clip.action_period_s, names=clip.action_names, units=clip.action_units)
    proprio = _Vectors(names=clip.proprio_names, units=clip.proprio_units)
    return _About(
        version=VERSION,
        origin=clip.origin,
        instruction=clip.instruction,
        frames=scene.rgb.shape[1],
        period_s=scene.period_s,
        depth_scale=scene.depth_scale,
        depth=depth,
        actions=None if clip.actions is None else actions,
        proprio=None if clip.proprio is None else proprio,
        seams=clip.seams,
        alignments={name: asdict(fit) for name, fit in clip.alignments.items()},
        about=clip.about,
    )


# ---- reading -----------------------------------------------------------------------------------------------------


def is_clip(folder: Path) -> bool:
    """Whether there is a clip at all; only `read_clip` tells whether it is whole."""
    return (folder / ABOUT).is_file()


def read_clip(folder: Path) -> WorldClip:
    """The clip that `write_clip` wrote. Raises a ValueError that names the file, the value and the mend."""
    if not is_clip(folder):
        raise ValueError(f"{folder} holds no {ABOUT}: give a folder that `xwam imagine` wrote")
    content = read_json(folder / ABOUT)
    if content.get("version") != VERSION:
        raise ValueError(
            f"{folder / ABOUT} is of version {content.get('version')!r}, this xwam reads {VERSION}: update it"
        )
    about = _parsed(folder / ABOUT, _About.parse, content)
    cameras = _parsed(folder / CAMERAS, _Cameras.parse, read_json(folder / CAMERAS)).cameras
    if not cameras:
        raise ValueError(f"{folder / CAMERAS} lists no camera: copy the folder again")
    arrays = _arrays(folder / ARRAYS, {name for name in ("actions", "proprio") if getattr(about, name)})
    actions, proprio = about.actions or _Vectors(), about.proprio or _Vectors()
    clip = WorldClip(
        scene=_scene(folder, about, cameras),
        origin=about.origin,
        instruction=about.instruction,
        actions=arrays.get("actions"),
        action_period_s=actions.period_s,
        action_names=actions.names,
        action_units=actions.units,
        proprio=arrays.get("proprio"),
        proprio_names=proprio.names,
        proprio_units=proprio.units,
        seams=about.seams,
        alignments=about.alignments,
        about=about.about,
    )
    check_clip(clip, str(folder))
    return clip


def _parsed(path: Path, parse: Callable[[dict], Settings], content: dict) -> Settings:
    try:
        return parse(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}: mend it, or copy it again") from error


def _arrays(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    """Exactly these arrays of numbers."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if set(file.files) != names:
                raise ValueError(f"it holds {sorted(file.files)}, {ABOUT} tells of {sorted(names)}")
            arrays = {name: file[name] for name in names}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} cannot be read ({error}): copy it again") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{path}: {name} holds {array.dtype}: give numbers")
    return arrays


def _scene(folder: Path, about: _About, cameras: tuple[_Camera, ...]) -> RGBDClip:
    path = folder / CAMERAS
    for camera in cameras:
        if (camera.height, camera.width) != (cameras[0].height, cameras[0].width):
            raise ValueError(
                f"{path}: camera {camera.name!r} is {camera.height} x {camera.width}, others differ: give one size"
            )
        if not NAME.fullmatch(camera.name):
            raise ValueError(f"{path}: camera name {camera.name!r}: files are called so, use letters and digits")
    depth = about.depth.stored if about.depth else None
    rgb = [_frames(folder / "rgb" / f"{camera.name}.mp4", about, camera, None) for camera in cameras]
    if depth:
        depth_m = [_frames(folder / "depth" / f"{camera.name}.mp4", about, camera, depth) for camera in cameras]
    else:
        depth_m = [np.zeros(images.shape[:-1], np.float32) for images in rgb]
    layers = _arrays(folder / LAYERS, {"layers"})["layers"] if (folder / LAYERS).exists() else None
    return RGBDClip(
        cameras=tuple(camera.name for camera in cameras),
        rgb=np.stack(rgb),
        depth_m=np.stack(depth_m),
        intrinsics=np.stack([_matrices(path, camera, "intrinsics", (about.frames, 3, 3)) for camera in cameras]),
        T_base_cam=np.stack([_matrices(path, camera, "T_base_cam", (about.frames, 4, 4)) for camera in cameras]),
        period_s=about.period_s,
        depth_scale=about.depth_scale,
        layers=layers,
    )


def _frames(path: Path, about: _About, camera: _Camera, depth: StoredDepth | None) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path} is missing: copy the folder again")
    reader = VideoReader(path, depth)
    try:
        if reader.size != (camera.height, camera.width):
            told = f"{reader.size[0]} x {reader.size[1]}, {CAMERAS} says {camera.height} x {camera.width}"
            raise ValueError(f"{path} is {told}: copy the folder again, or scale image and intrinsics together")
        if reader.frames != about.frames:
            raise ValueError(f"{path} has {reader.frames} frames, {ABOUT} says {about.frames}: copy the folder again")
        return reader.read(np.arange(about.frames) / float(_rate(about.period_s)))
    finally:
        reader.close()


def _matrices(path: Path, camera: _Camera, name: str, shape: tuple[int, int, int]) -> Float[np.ndarray, "T n n"]:
    rows = getattr(camera, name)
    try:
        matrices = np.array(rows, np.float64)
    except ValueError:
        matrices = np.zeros(0)
    if matrices.shape != shape:
        raise ValueError(
            f"{path}: {name} of camera {camera.name!r} are {len(rows)} matrices of shape {matrices.shape[1:]}: "
            f"give {shape[0]}, one a frame, of {shape[1]} x {shape[2]}"
        )
    return matrices
