"""One USD file, as text (.usda): points and cameras with a sample a frame. Any program that opens USD plays it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Float

from xwam.core.files import write_atomically
from xwam.core.types import WorldClip
from xwam.scene.export.clouds import clouds, facts, frames, linear, unit

OPENCV_TO_USD = np.diag([1.0, -1.0, -1.0, 1.0])
"""USD's cameras look along -z, y up."""
APERTURE = 20.955
"""Width of the film in millimetres, USD's default; the focal length follows from it."""


def write_usd(clip: WorldClip, out: Path) -> Path:
    """Writes one .usda file; a time code is a frame."""
    if out.suffix != ".usda":
        raise ValueError(f"{out} is written as text: give it a name that ends in .usda")
    write_atomically(out, lambda path: _write(path, clip))
    return out


def _write(path: Path, clip: WorldClip) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(_header(clip))
        file.write('def Xform "World"\n{\n    def Points "cloud"\n    {\n')
        file.write(f'        float[] widths = [{_width(clip):.5f}] (interpolation = "constant")\n')
        _samples(file, "point3f[] points", ((cloud.points_m, 5) for cloud in clouds(clip)))
        colours = ((linear(cloud.colors), 4) for cloud in clouds(clip))
        _samples(file, "color3f[] primvars:displayColor", colours, ' (interpolation = "vertex")')
        file.write("    }\n")
        for view in range(len(clip.scene.cameras)):
            file.write(_camera(clip, view))
        file.write("}\n")


def _header(clip: WorldClip) -> str:
    told = "; ".join(f"{name}: {text}" for name, text in facts(clip).items()).replace("\\", "/").replace('"', "'")
    metres = "metersPerUnit = 1" if unit(clip) == "metres" else ""
    return f"""#usda 1.0
(
    doc = "{told}"
    defaultPrim = "World"
    {metres}
    upAxis = "Z"
    startTimeCode = 0
    endTimeCode = {frames(clip) - 1}
    timeCodesPerSecond = {1 / clip.scene.period_s:.6g}
)

"""


def _width(clip: WorldClip) -> float:
    """Of a point: what the middle one of all pixels covers."""
    depth_m = clip.scene.depth_m
    return float(np.median((depth_m / clip.scene.intrinsics[..., 0, 0][..., None, None])[depth_m > 0]))


def _samples(file: TextIO, name: str, samples: Iterator[tuple[Float[np.ndarray, "N 3"], int]], more: str = "") -> None:
    """An attribute over time; `more` stands with its declaration."""
    if more:
        file.write(f"        {name}{more}\n")
    file.write(f"        {name}.timeSamples = {{\n")
    for frame, (rows, digits) in enumerate(samples):
        row = f"(%.{digits}f, %.{digits}f, %.{digits}f)"
        file.write(f"            {frame}: [{', '.join([row] * len(rows)) % tuple(rows.ravel().tolist())}],\n")
    file.write("        }\n")


def _camera(clip: WorldClip, view: int) -> str:
    """A camera with its pose over time; USD multiplies row vectors, so matrices are transposed."""
    scene = clip.scene
    height, width = scene.rgb.shape[2:4]
    intrinsics = scene.intrinsics[view, 0]
    name = re.sub(r"\W", "_", scene.cameras[view], flags=re.ASCII)
    poses = "".join(
        f"            {frame}: ({', '.join(str(tuple(row)) for row in np.round(T.T, 6).tolist())}),\n"
        for frame, T in enumerate(scene.T_base_cam[view] @ OPENCV_TO_USD)
    )
    return f"""    def Camera "camera_{view}_{name}"
    {{
        float horizontalAperture = {APERTURE}
        float verticalAperture = {APERTURE * height / width * intrinsics[0, 0] / intrinsics[1, 1]:.4f}
        float focalLength = {APERTURE * intrinsics[0, 0] / width:.4f}
        float2 clippingRange = (0.01, 100)
        matrix4d xformOp:transform.timeSamples = {{
{poses}        }}
        uniform token[] xformOpOrder = ["xformOp:transform"]
    }}
"""
