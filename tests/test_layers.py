"""Layers are those of the simulator, at the moments of an episode, and agree with its depth."""

import dataclasses

import numpy as np
import pytest

from xwam.core.cameras import unproject
from xwam.core.types import BACKGROUND, OBJECT, ROBOT
from xwam.sim.env import make_environment
from xwam.sim.layers import layers_of
from xwam.sim.record import demonstrate

ROWS = [0, 12, 40]


@pytest.fixture(scope="module")
def drawer():
    environment = make_environment("metaworld/drawer-open-v3", 64, 64)
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def episode(drawer):
    return demonstrate(drawer, 3, noise=0.0)


def lifted(episode, camera, row, layers, layer):
    points_m = unproject(episode.depth_m[camera][row], episode.intrinsics[camera][row], episode.T_base_cam[camera][row])
    return points_m[layers == layer]


def test_every_layer_is_where_its_things_are(drawer, episode):
    layers = layers_of(drawer, episode, ROWS)
    assert layers.shape == (3, 3, 64, 64) and layers.dtype == np.uint8
    assert set(np.unique(layers)) == {BACKGROUND, ROBOT, OBJECT}
    for t, row in enumerate(ROWS):
        hand = episode.proprio[row][:3]
        robot = lifted(episode, "right", row, layers[1, t], ROBOT)
        assert np.linalg.norm(robot - hand, axis=-1).min() < 0.08
        drawer_m = lifted(episode, "right", row, layers[1, t], OBJECT)
        assert len(drawer_m) > 50 and np.ptp(drawer_m, axis=0).max() < 0.5  # one cabinet
        background = lifted(episode, "right", row, layers[1, t], BACKGROUND)
        assert np.median(background[:, 2]) < 0.1  # table, wall and floor
    # the drawer opens: what is OBJECT reaches nearer to the robot, along -y
    nearest = [lifted(episode, "right", row, layers[1, t], OBJECT)[:, 1].min() for t, row in enumerate(ROWS)]
    assert nearest[2] < nearest[0] + 1e-3


def test_an_episode_that_goes_otherwise_is_refused(drawer, episode):
    disturbed = dataclasses.replace(episode, actions=-episode.actions)
    with pytest.raises(ValueError, match="only undisturbed episodes can be played again"):
        layers_of(drawer, disturbed, [10])
