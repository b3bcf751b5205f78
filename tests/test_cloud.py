"""Pixels to points: what two cameras see of one thing must meet in the base frame."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial import cKDTree

import raycast
from xwam.scene.cloud import downsample, fuse, on_surface


def test_two_cameras_agree_in_the_base_frame_within_the_pixel_spacing():
    clip = raycast.clip(size=96, frames=1)
    cloud = fuse(clip, 0)
    left, right = cloud.points_m[cloud.views == 0], cloud.points_m[cloud.views == 1]
    # The bare table before ball and box: both cameras see all of it.
    shared = left[(left[:, 0] > 0) & (left[:, 0] < 0.2) & (np.abs(left[:, 1]) < 0.1)]
    distance, _ = cKDTree(right).query(shared)
    spacing_m = clip.depth_m.max() / clip.intrinsics[0, 0, 0, 0]
    slant = 2.0  # the table is seen from about 30 degrees above: one pixel covers twice its width along the view
    assert len(shared) > 100
    assert distance.max() < slant * spacing_m


def test_every_point_lies_on_the_surface_that_was_rendered():
    clip = raycast.clip(size=64, frames=4)
    for frame in (0, 3):
        cloud = fuse(clip, frame)
        assert set(cloud.views) == {0, 1, 2}
        assert raycast.surface_distance(cloud.points_m, raycast.ball_centre(frame)).max() < 1e-5


def test_points_keep_their_pixels_colours():
    clip = raycast.clip(size=32, frames=1)
    cloud = fuse(clip, 0, max_incidence_deg=None)
    known = clip.depth_m[:, 0] > 0
    assert np.array_equal(cloud.colors, clip.rgb[:, 0][known])
    assert len(cloud) == known.sum()


def test_unknown_depth_makes_no_point():
    clip = raycast.clip(size=32, frames=1)
    blind = dataclasses.replace(clip, depth_m=np.zeros_like(clip.depth_m))
    assert len(fuse(blind, 0)) == 0
    assert len(fuse(blind, 0, voxel_m=0.01)) == 0


def test_flying_pixels_go_and_the_slanted_table_stays():
    clip = raycast.clip(size=96, frames=1, wrist=False)
    blurred = clip.depth_m.copy()
    # A soft edge as a decoder makes it: every pixel the mean of its neighbours, hanging between ball and table.
    blurred[..., 1:-1] = (clip.depth_m[..., :-2] + clip.depth_m[..., 1:-1] + clip.depth_m[..., 2:]) / 3
    soft = dataclasses.replace(clip, depth_m=blurred.astype(np.float32))

    def share_in_the_air(max_incidence_deg):
        cloud = fuse(soft, 0, max_incidence_deg=max_incidence_deg)
        return (raycast.surface_distance(cloud.points_m, raycast.ball_centre(0)) > 0.02).mean()

    assert share_in_the_air(80.0) < 0.2 * share_in_the_air(None)
    table = (np.abs(fuse(clip, 0, max_incidence_deg=None).points_m[:, 2]) < 1e-4).sum()
    assert (np.abs(fuse(clip, 0).points_m[:, 2]) < 1e-4).sum() > 0.9 * table


def test_the_limit_is_the_angle_between_ray_and_normal():
    # A plane z = 1 + slope * x seen along its centre ray at 60 degrees from its normal.
    focal, slope = 200.0, np.tan(np.deg2rad(60))
    x = (np.arange(21) + 0.5 - 10.5) / focal
    depth = np.tile(1 / (1 - slope * x), (21, 1))[None].astype(np.float32)
    K = np.array([[[focal, 0, 10.5], [0, focal, 10.5], [0, 0, 1]]])
    assert on_surface(depth, K, 66.0)[0, :, 2:-2].all()
    assert not on_surface(depth, K, 54.0).any()


def test_bounds_pixels_and_voxels_restrict_the_cloud():
    clip = raycast.clip(size=48, frames=1)
    bounds = np.array([[-0.2, -0.2, -0.01], [0.2, 0.2, 0.3]])
    boxed = fuse(clip, 0, bounds_m=bounds)
    assert 0 < len(boxed) < len(fuse(clip, 0))
    assert (boxed.points_m >= bounds[0]).all() and (boxed.points_m <= bounds[1]).all()
    only_left = np.zeros(clip.depth_m[:, 0].shape, dtype=bool)
    only_left[0] = True
    assert set(fuse(clip, 0, pixels=only_left).views) == {0}


def test_a_voxel_holds_one_mean_point():
    clip = raycast.clip(size=64, frames=1)
    full, small = fuse(clip, 0), fuse(clip, 0, voxel_m=0.03)
    assert len(small) < len(full) / 2
    assert len(np.unique(np.floor(full.points_m / 0.03), axis=0)) == len(small)
    distance, _ = cKDTree(small.points_m).query(full.points_m)
    assert distance.max() < 0.03 * np.sqrt(3)
    twice = full.select(np.array([0, 0]))
    assert np.allclose(downsample(twice, 0.02).points_m, full.points_m[:1])


def test_wrong_numbers_are_named():
    clip = raycast.clip(size=16, frames=2)
    with pytest.raises(ValueError, match="frame 2 of a clip that has 2"):
        fuse(clip, 2)
    with pytest.raises(ValueError, match="voxel_m is 0"):
        fuse(clip, 0, voxel_m=0.0)
