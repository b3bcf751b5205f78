"""A 4D clip of a made-up scene, for whoever writes, reads, scores or shows one."""

from dataclasses import replace

import numpy as np

from xwam.core.cameras import intrinsics_of_fovy, look_at
from xwam.core.types import BACKGROUND, OBJECT, RGBDClip, WorldClip


def world_clip(frames: int = 5, height: int = 32, width: int = 48, **changes) -> WorldClip:
    """Two cameras, the second of which moves; smooth pictures, depth from 0.4 to 2.5 m with a hole in each."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    time = np.arange(frames)[:, None, None]
    wave = 0.5 + 0.5 * np.sin(6 * x + 0.3 * time) * np.cos(4 * y)
    rgb = np.rint(255 * np.stack([wave, wave**2, 1 - wave], axis=-1)).astype(np.uint8)
    depth_m = (0.4 + 2.1 * wave).astype(np.float32)
    depth_m[:, 3:6, 4:9] = 0.0
    eyes = [[0.1 * t, -1.0, 0.5] for t in range(frames)]
    moving = np.stack([look_at(eye, [0, 0, 0]) for eye in eyes])
    fixed = np.repeat(look_at([1.0, 0.0, 1.0], [0, 0, 0])[None], frames, axis=0)
    layers = np.where(depth_m > 1.0, BACKGROUND, OBJECT).astype(np.uint8)
    scene = RGBDClip(
        cameras=("left", "wrist cam"),
        rgb=np.stack([rgb, rgb[:, ::-1]]),
        depth_m=np.stack([depth_m, depth_m[:, ::-1]]),
        intrinsics=np.broadcast_to(intrinsics_of_fovy(1.0, height, width), (2, frames, 3, 3)).copy(),
        T_base_cam=np.stack([fixed, moving]),
        period_s=0.05,
        layers=np.stack([layers, layers[:, ::-1]]),
    )
    random = np.random.default_rng(0)
    clip = WorldClip(
        scene=scene,
        origin="imagined",
        instruction="öffne die Schublade",
        actions=random.normal(size=(4 * (frames - 1), 3)).astype(np.float32),
        action_period_s=0.0125,
        action_names=("x", "y", "gripper"),
        action_units=("m", "m", "1"),
        proprio=random.normal(size=(frames, 2)).astype(np.float32),
        proprio_names=("a", "b"),
        proprio_units=("rad", "rad"),
        seams=(2,),
        about={"seed": 3, "checkpoint": "nano", "share": 0.3},
    )
    inner = {name: changes.pop(name) for name in list(changes) if hasattr(scene, name)}
    return replace(clip, scene=replace(scene, **inner), **changes)
