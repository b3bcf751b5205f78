"""The model that ships with the package: small enough, honest about its training, and with eyes for small things."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from xwam.cli.app import SHIPPED
from xwam.core.cameras import project
from xwam.sim.env import make_environment, tasks_of
from xwam.sim.record import FIRST_EVALUATION_SEED
from xwam.wam import WorldActionModel

MEGABYTE = 1e6
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def nano() -> WorldActionModel:
    return WorldActionModel.load(SHIPPED)


def test_it_is_small_and_says_what_it_was_trained_on(nano):
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 25 * MEGABYTE
    provenance = json.loads((SHIPPED / "config.json").read_text())["provenance"]
    environments = {name for name, _ in provenance["trained_on"]}
    assert environments == set(tasks_of(["metaworld/mt10"]))
    assert max(seed for _, seed in provenance["trained_on"]) < FIRST_EVALUATION_SEED


def test_the_readmes_example_acts_with_it(monkeypatch):
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(ROOT)
    names = {}
    exec(example, names)
    names["world"].close()
    assert names["chunk"].actions.shape == (16, 4)


@pytest.mark.parametrize(("task", "colour"), [("reach-v3", 0), ("push-v3", 1)])
def test_its_autoencoder_keeps_the_goal_markers(nano, task, colour):
    """A fifth of a marker's saturation at least; a trial without it failed two tasks while every metric looked fine."""
    world = make_environment(f"metaworld/{task}")
    kept = []
    try:
        for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 4):
            world.reset(seed)
            seen = world.observe()
            for camera in ("left", "right"):
                pixel, _ = project(world._env._target_pos, seen.intrinsics[camera], seen.T_base_cam[camera])
                kept.append(_marker_kept(nano, seen.images[camera], pixel, colour))
    finally:
        world.close()
    assert np.mean([share for share in kept if share is not None]) > 0.2


def _marker_kept(nano: WorldActionModel, image: np.ndarray, pixel: np.ndarray, colour: int) -> float | None:
    """How much of the marker's saturation survives; None if something hides the marker."""
    x, y = np.floor(pixel).astype(int)
    area = (slice(y - 1, y + 2), slice(x - 1, x + 2))
    video = torch.from_numpy(image).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with torch.inference_mode():
        again = nano.autoencoder.decode(nano.autoencoder.encode(video))[0, :, 0]
    before, after = (_saturation(v, colour)[area].max() for v in (video[0, :, 0].numpy(), again.numpy()))
    return float(after / before) if before > 0.8 else None


def _saturation(image: np.ndarray, colour: int) -> np.ndarray:
    """How far a colour exceeds the stronger of the others."""
    return image[colour] - np.delete(image, colour, axis=0).max(axis=0)
