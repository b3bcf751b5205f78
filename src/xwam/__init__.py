"""Unified 4D world action models: one network that acts, and that imagines RGB-D futures in the robot's frame.

Names load when they are first used: whoever only needs an `Observation` never waits for torch.
"""

from importlib import import_module

_HOMES = {
    "ActionChunk": "xwam.core.types",
    "Clip": "xwam.core.types",
    "Embodiment": "xwam.core.embodiment",
    "EpisodeStore": "xwam.data.episodes",
    "Observation": "xwam.core.types",
    "RGBDClip": "xwam.core.types",
    "WorldActionModel": "xwam.wam",
    "make_environment": "xwam.sim.env",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'xwam' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(import_module(_HOMES[name]), name)
