"""A folder that Blender opens by one line: PLY files, and a script that makes them a film of points with cameras."""

from importlib import resources
from pathlib import Path

from xwam.core.files import write_folder_atomically
from xwam.core.types import WorldClip
from xwam.scene.export.ply import SEQUENCE, fill_ply_sequence

SCRIPT = "open_in_blender.py"


def write_blender(clip: WorldClip, out: Path) -> Path:
    """Writes the sequence and the script; then `blender --python` opens the script, which is returned.

    Raises ValueError if `out` holds other things.
    """
    write_folder_atomically(out, SEQUENCE, lambda folder: _fill(clip, folder))
    return out / SCRIPT


def _fill(clip: WorldClip, folder: Path) -> None:
    fill_ply_sequence(clip, folder)
    # As a text of the package, and no module of it: only Blender's own Python can import it.
    script = resources.files("xwam.scene.export").joinpath("open_in_blender.txt").read_text(encoding="utf-8")
    (folder / SCRIPT).write_text(script, encoding="utf-8")
