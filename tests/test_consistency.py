"""Views that see one surface agree on it; a view that is wrong is found out without any truth."""

import dataclasses

import numpy as np
import pytest

import raycast
from xwam.scene import consistency


def test_true_depth_agrees_and_what_is_hidden_does_not_count():
    clip = raycast.clip(size=64, frames=2, slide=1.0)
    for frame in (0, 1):
        assert consistency.cross_view_m(clip, frame) < 0.001
    found = consistency.gaps(clip.depth_m[:, 0], clip.intrinsics[:, 0], clip.T_base_cam[:, 0])
    assert (found > consistency.CAP_M).sum() > 50  # behind ball and box
    assert np.isnan(found[[0, 1, 2], [0, 1, 2]]).all()


def test_a_plane_is_seen_alike_to_the_rounding_of_numbers():
    clip = raycast.clip(size=64, frames=1)
    found = consistency.gaps(clip.depth_m[:, 0], clip.intrinsics[:, 0], clip.T_base_cam[:, 0])[0, 1]
    points = consistency.unproject(clip.depth_m[:, 0], clip.intrinsics[:, 0], clip.T_base_cam[:, 0])[0]
    bare = (points[..., 0] > 0.15) & (np.abs(points[..., 1]) < 0.1) & ~np.isnan(found)
    assert bare.sum() > 50
    assert np.abs(found[bare]).max() < 1e-5


def test_it_measures_how_far_one_view_is_off():
    clip = raycast.clip(size=64, frames=1, wrist=False)
    values = []
    for off_m in (0.0, 0.01, 0.02, 0.3):
        depth_m = clip.depth_m.copy()
        depth_m[0] -= off_m * (depth_m[0] > 0)
        values.append(consistency.cross_view_m(dataclasses.replace(clip, depth_m=depth_m), 0))
    assert values[0] < 0.001
    assert values[1] == pytest.approx(0.01, rel=0.5) and values[2] == pytest.approx(0.02, rel=0.5)
    assert values[3] <= consistency.CAP_M and values[3] > values[2]


def test_one_view_or_no_overlap_is_no_number():
    clip = raycast.clip(size=32, frames=1, wrist=False)
    away = clip.T_base_cam.copy()
    away[1, :, :3, 3] += 100
    assert np.isnan(consistency.cross_view_m(dataclasses.replace(clip, T_base_cam=away), 0))
    blind = dataclasses.replace(clip, depth_m=np.zeros_like(clip.depth_m))
    assert np.isnan(consistency.cross_view_m(blind, 0))


def test_confidence_counts_the_views_that_agree():
    clip = raycast.clip(size=64, frames=1)
    sure = consistency.confidence(clip.depth_m[:, 0], clip.intrinsics[:, 0], clip.T_base_cam[:, 0])
    assert set(np.round(np.unique(sure), 6)) <= {0.25, 0.333333, 0.5, 0.666667, 0.75}
    assert ((sure >= 0.5) & (clip.depth_m[:, 0] > 0)).sum() > 0.97 * (clip.depth_m[:, 0] > 0).sum()
    assert (sure == 0.75).mean() > 0.1
