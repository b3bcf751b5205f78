"""One animated GLB (binary glTF 2.0): a node of points a frame, of which the animation shows one at a time.

A node is hidden by scale 0, in steps: glTF 2.0 can animate no visibility. A program without animation shows frame 0.
"""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xwam.core.files import write_atomically
from xwam.core.types import WorldClip
from xwam.scene.cloud import PointCloud
from xwam.scene.export.clouds import clouds, facts, frames, linear

FLOAT, POINTS, ARRAY_BUFFER = 5126, 0, 34962
Z_UP_TO_Y_UP = [-(0.5**0.5), 0.0, 0.0, 0.5**0.5]
"""Quaternion xyzw: glTF's y is up, the base frame's z."""


@dataclass
class _Buffer:
    """The one binary buffer, and the accessors that say what lies where in it."""

    data: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def add(self, values: np.ndarray, kind: str, vertices: bool = False, **more: object) -> int:
        """Appends float32 numbers; returns the number of their accessor."""
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        self.views.append(view | ({"target": ARRAY_BUFFER} if vertices else {}))
        accessor = {"bufferView": len(self.views) - 1, "componentType": FLOAT, "count": len(values), "type": kind}
        self.accessors.append(accessor | more)
        self.data += values.tobytes()
        return len(self.accessors) - 1


def write_glb(clip: WorldClip, out: Path) -> Path:
    """Writes one file; frames without a point have no node."""
    buffer, nodes, meshes, shown = _Buffer(), [], [], []
    for frame, cloud in enumerate(clouds(clip)):
        if not len(cloud):
            continue
        meshes.append({"name": f"frame {frame}", "primitives": [_points(buffer, cloud)]})
        scale = [1.0] * 3 if frame == 0 else [0.0] * 3
        nodes.append({"name": f"frame {frame}", "mesh": len(meshes) - 1, "scale": scale})
        shown.append(frame)
    if not nodes:
        raise ValueError("no frame of this clip has a point: there is nothing to export as GLB")
    root = {"name": clip.origin, "children": list(range(len(nodes))), "rotation": Z_UP_TO_Y_UP}
    document = {
        "asset": {"version": "2.0", "generator": "xwam", "extras": facts(clip)},
        "scene": 0,
        "scenes": [{"nodes": [len(nodes)]}],
        "nodes": [*nodes, root],
        "meshes": meshes,
        # colours as the cameras saw them, without further light
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0}, "extensions": {"KHR_materials_unlit": {}}}],
        "extensionsUsed": ["KHR_materials_unlit"],
        "animations": [_animation(buffer, clip, shown)],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    write_atomically(out, lambda file: file.write_bytes(_container(document, bytes(buffer.data))))
    return out


def _points(buffer: _Buffer, cloud: PointCloud) -> dict[str, Any]:
    low, high = cloud.points_m.min(axis=0).tolist(), cloud.points_m.max(axis=0).tolist()
    places = buffer.add(cloud.points_m.astype("<f4"), "VEC3", vertices=True, min=low, max=high)
    colours = buffer.add(linear(cloud.colors).astype("<f4"), "VEC3", vertices=True)
    attributes = {"POSITION": places, "COLOR_0": colours}
    return {"attributes": attributes, "mode": POINTS, "material": 0}


def _animation(buffer: _Buffer, clip: WorldClip, shown: list[int]) -> dict[str, Any]:
    """Scale 1 from a frame's time to the next one's, 0 before and after."""
    period_s, end_s = clip.scene.period_s, frames(clip) * clip.scene.period_s
    samplers, channels = [], []
    for node, frame in enumerate(shown):
        keys = {0.0: 0.0, frame * period_s: 1.0, (frame + 1) * period_s: 0.0, end_s: 0.0}
        if (frame + 1) * period_s >= end_s:
            keys[end_s] = 1.0
        times, scales = np.array(list(keys), "<f4"), np.array(list(keys.values()), "<f4")
        samplers.append(
            {
                "input": buffer.add(times, "SCALAR", min=[float(times.min())], max=[float(times.max())]),
                "output": buffer.add(np.repeat(scales[:, None], 3, axis=1), "VEC3"),
                "interpolation": "STEP",
            }
        )
        channels.append({"sampler": node, "target": {"node": node, "path": "scale"}})
    return {"name": "time", "samplers": samplers, "channels": channels}


def _container(document: dict[str, Any], data: bytes) -> bytes:
    """The chunks of a GLB, each a multiple of four bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    chunks = b""
    for content, kind, filler in ((text, b"JSON", b" "), (data, b"BIN\0", b"\0")):
        content += filler * (-len(content) % 4)
        chunks += struct.pack("<I", len(content)) + kind + content
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
