"""What every format is made of: a clip's cloud at each frame, and what is known of it in words."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from xwam.core.types import WorldClip
from xwam.scene.cloud import PointCloud, fuse


def clouds(clip: WorldClip) -> Iterator[PointCloud]:
    """The fused points of every frame, with normals and without flying pixels."""
    return (fuse(clip.scene, frame, with_normals=True) for frame in range(frames(clip)))


def frames(clip: WorldClip) -> int:
    return clip.scene.rgb.shape[1]


def unit(clip: WorldClip) -> str:
    """Of lengths: depth that is relative has none."""
    return "units of its own, not metres" if clip.scene.depth_scale == "relative" else "metres"


def facts(clip: WorldClip) -> dict[str, str]:
    """What a file should say of itself, a line each: nobody shall take what was imagined for what is true."""
    told = {
        "made by": "xwam",
        "origin": clip.origin,
        "depth": f"{clip.scene.depth_scale}, in {unit(clip)}",
        "frame of reference": "the robot's base, z up",
        "instruction": clip.instruction,
        **{name: str(value) for name, value in clip.about.items()},
    }
    return {name: " ".join(value.split()) for name, value in told.items() if value}


def linear(colors: UInt8[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Linear RGB in [0, 1] of sRGB (IEC 61966-2-1): what glTF and USD mean by the colour of a point."""
    table = np.arange(256) / 255
    table = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    return table[colors]
