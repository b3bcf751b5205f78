"""Which formats there are."""

from collections.abc import Callable
from pathlib import Path

from xwam.core.types import WorldClip
from xwam.scene.export.blender import write_blender
from xwam.scene.export.glb import write_glb
from xwam.scene.export.ply import write_ply_sequence
from xwam.scene.export.rerun import write_rerun
from xwam.scene.export.usd import write_usd

WRITERS: dict[str, Callable[[WorldClip, Path], Path]] = {
    "ply": write_ply_sequence,
    "glb": write_glb,
    "usd": write_usd,
    "blender": write_blender,
    "rrd": write_rerun,
}


def export_clip(clip: WorldClip, format: str, out: Path) -> Path:
    """Writes a clip for another program; ply and blender make a folder, the others a file. Returns what to open.

    Raises ValueError if there is no such format.
    """
    if format not in WRITERS:
        raise ValueError(f"no format {format!r} to export to; there are {', '.join(WRITERS)}")
    return WRITERS[format](clip, out)
