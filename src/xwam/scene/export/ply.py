"""A PLY file a frame, which every program for point clouds reads, and `sequence.json` with time and cameras."""

import json
from pathlib import Path

import numpy as np

from xwam.core.files import write_folder_atomically
from xwam.core.types import WorldClip
from xwam.scene.cloud import PointCloud
from xwam.scene.export.clouds import clouds, facts

SEQUENCE = "sequence.json"


def write_ply_sequence(clip: WorldClip, out: Path) -> Path:
    """Writes out/frame_0000.ply and so on, and `sequence.json` beside them; replaces an earlier sequence.

    Raises ValueError if `out` holds other things.
    """
    write_folder_atomically(out, SEQUENCE, lambda folder: fill_ply_sequence(clip, folder))
    return out


def fill_ply_sequence(clip: WorldClip, folder: Path) -> None:
    """The files of a sequence, into a folder that is there."""
    files = []
    for frame, cloud in enumerate(clouds(clip)):
        files.append(f"frame_{frame:04d}.ply")
        time = {"frame": str(frame), "time": f"{frame * clip.scene.period_s:.4f} s"}
        write_ply(folder / files[-1], cloud, facts(clip) | time)
    scene = clip.scene
    cameras = [
        {"name": name, "intrinsics": scene.intrinsics[view].tolist(), "T_base_cam": scene.T_base_cam[view].tolist()}
        for view, name in enumerate(scene.cameras)
    ]
    about = {"facts": facts(clip), "period_s": scene.period_s, "image_size": list(scene.rgb.shape[2:4]), "files": files}
    (folder / SEQUENCE).write_text(json.dumps(about | {"cameras": cameras}, indent=1), encoding="utf-8")


def write_ply(path: Path, cloud: PointCloud, told: dict[str, str]) -> None:
    """A cloud as binary PLY: places, normals if there are, sRGB colours, the number of the view; `told` as comments."""
    columns = [(name, "<f4", cloud.points_m[:, k]) for k, name in enumerate("xyz")]
    if cloud.normals is not None:
        columns += [(f"n{name}", "<f4", cloud.normals[:, k]) for k, name in enumerate("xyz")]
    columns += [(name, "u1", cloud.colors[:, k]) for k, name in enumerate(("red", "green", "blue"))]
    columns += [("view", "u1", cloud.views)]
    rows = np.empty(len(cloud), dtype=[(name, kind) for name, kind, _ in columns])
    for name, _, values in columns:
        rows[name] = values
    properties = [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind, _ in columns]
    comments = [f"comment {name}: {text}" for name, text in told.items()]
    header = ["ply", "format binary_little_endian 1.0", *comments, f"element vertex {len(cloud)}", *properties]
    # The format is one of ASCII; what is not is written as escapes.
    text = "\n".join([*header, "end_header", ""]).encode("ascii", errors="backslashreplace")
    path.write_bytes(text + rows.tobytes())
