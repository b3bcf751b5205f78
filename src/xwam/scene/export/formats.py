"""Which formats there are."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from xwam.core.types import WorldClip
from xwam.scene.export.blender import write_blender
from xwam.scene.export.glb import write_glb
from xwam.scene.export.ply import write_ply_sequence
from xwam.scene.export.rerun import write_rerun
from xwam.scene.export.usd import write_usd

Format = Literal["ply", "glb", "usd", "blender", "rrd"]
WRITERS: dict[Format, Callable[[WorldClip, Path], Path]] = {
    "ply": write_ply_sequence,
    "glb": write_glb,
    "usd": write_usd,
    "blender": write_blender,
    "rrd": write_rerun,
}
assert set(WRITERS) == set(get_args(Format))


def export_clip(clip: WorldClip, format: Format, out: Path) -> Path:
    """Writes a clip for another program; ply and blender make a folder, the others a file."""
    return WRITERS[format](clip, out)
