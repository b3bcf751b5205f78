"""What a clip is about, and from where to look at it, is told by its still cameras."""

import dataclasses

import numpy as np
import pytest

import raycast
from xwam.scene.stage import anchors, first_direction, workspace


def test_the_first_view_looks_as_the_still_cameras_do():
    # Both look along -x, and to either side.
    assert first_direction(raycast.clip(size=24, frames=1))[0] < -0.99


def test_cameras_that_look_straight_down_still_give_a_view():
    clip = raycast.clip(size=16, frames=1, wrist=False)
    down = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (2, 1, 1, 1))
    down[..., 2, 3] = 2.0
    assert np.allclose(first_direction(dataclasses.replace(clip, T_base_cam=down)), (1, 0, 0))


def test_the_workspace_holds_what_is_looked_at_and_no_far_wall():
    clip = raycast.clip(size=48, frames=3)
    walled = dataclasses.replace(clip, depth_m=np.where(clip.depth_m > 0, clip.depth_m, 4.5).astype(np.float32))
    for scene in (clip, walled):
        low, high = workspace(scene)
        assert (low < raycast.BOX_LOW_M).all() and (high > raycast.BOX_HIGH_M).all()
        assert np.ptp([low, high], axis=0).max() < 1.6
    with pytest.raises(ValueError, match="give bounds_m"):
        workspace(dataclasses.replace(clip, depth_m=np.zeros_like(clip.depth_m)))


def test_anchors_are_the_outermost_points_in_the_box():
    clip = raycast.clip(size=32, frames=2)
    bounds_m = np.array([[-0.4, -0.3, -0.1], [0.2, 0.3, 0.3]])
    outermost = anchors(clip, bounds_m)
    assert 8 <= len(outermost) <= 98
    assert (outermost >= bounds_m[0]).all() and (outermost <= bounds_m[1]).all()
    # the table reaches beyond the box, and so do the anchors to its sides
    assert np.allclose(outermost.min(axis=0)[:2], bounds_m[0, :2], atol=0.05)
    assert np.allclose(outermost.max(axis=0)[:2], bounds_m[1, :2], atol=0.05)
    with pytest.raises(ValueError, match="give other bounds_m"):
        anchors(clip, bounds_m + 9)
