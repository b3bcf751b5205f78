"""A folder that Blender opens by one line: PLY files, and a script that makes them a film of points with cameras."""

from importlib import resources
from pathlib import Path

from xwam.core.types import WorldClip
from xwam.scene.export.ply import write_ply_sequence

SCRIPT = "open_in_blender.py"


def write_blender(clip: WorldClip, out: Path) -> Path:
    """Writes the PLY sequence and the script; then `blender --python out/open_in_blender.py`."""
    write_ply_sequence(clip, out)
    # As a text of the package, and no module of it: only Blender's own Python can import it.
    script = resources.files("xwam.scene.export").joinpath("open_in_blender.txt").read_text(encoding="utf-8")
    (out / SCRIPT).write_text(script, encoding="utf-8")
    return out
