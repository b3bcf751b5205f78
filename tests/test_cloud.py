"""Pixels to points: what two cameras see of one thing must meet in the base frame."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial import cKDTree

import raycast
from xwam.core.types import BACKGROUND, OBJECT, ROBOT
from xwam.scene.cloud import downsample, fuse
from xwam.scene.surface import on_surface


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


@pytest.mark.parametrize("frame", [0, 2])
def test_in_small_cubes_fusion_is_within_a_millimetre_everywhere(frame):
    clip = raycast.clip(size=192, frames=3, slide=1.0)
    fused = fuse(clip, frame, voxel_m=0.002)
    error = raycast.surface_distance(fused.points_m, raycast.ball_centre(frame), raycast.box_shift(frame))
    assert len(fused) < len(fuse(clip, frame)) and error.max() < 1e-3


@pytest.mark.parametrize("frame", [0, 2])
def test_lifting_and_fusion_are_within_a_millimetre_of_what_moves(frame):
    """A table, a rolling ball, a sliding box, and a camera that moves with the ball."""
    clip = raycast.clip(size=96, frames=3, slide=1.0)
    place = raycast.ball_centre(frame), raycast.box_shift(frame)
    lifted = fuse(clip, frame, max_incidence_deg=None)
    assert raycast.surface_distance(lifted.points_m, *place).max() < 1e-5
    fused = fuse(clip, frame, voxel_m=0.005, with_confidence=True)
    error = raycast.surface_distance(fused.points_m, *place)
    assert len(fused) < len(fuse(clip, frame))
    # Where a cube holds an edge, its mean lies inside of the edge.
    assert np.quantile(error, 0.99) < 1e-3 and error.max() < 0.0025


def test_normals_are_those_of_the_surface_and_face_the_camera():
    clip = raycast.clip(size=96, frames=1)
    cloud = fuse(clip, 0, with_normals=True)
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=-1), 1, atol=1e-5)
    table = (np.abs(cloud.points_m[:, 2]) < 1e-5) & (cloud.points_m[:, 0] > 0.1)
    np.testing.assert_allclose(cloud.normals[table], np.tile([0, 0, 1.0], (table.sum(), 1)), atol=1e-3)
    radial = (cloud.points_m - raycast.ball_centre(0)) / raycast.BALL_RADIUS_M
    ball = np.abs(np.linalg.norm(radial, axis=-1) - 1) < 1e-4
    assert ball.sum() > 100
    cosine = (cloud.normals[ball] * radial[ball]).sum(axis=-1)
    assert np.quantile(cosine, 0.05) > 0.97 and cosine.min() > 0
    small = downsample(cloud, 0.02)
    np.testing.assert_allclose(np.linalg.norm(small.normals, axis=-1), 1, atol=1e-5)


def test_what_other_views_contradict_is_less_sure_and_can_be_left_out():
    clip = raycast.clip(size=96, frames=1)
    depth_m = clip.depth_m.copy()
    depth_m[0, 0, 60:70, 40:50] -= 0.1  # a block that hangs in the air for the left camera alone
    broken = dataclasses.replace(clip, depth_m=depth_m)

    def in_the_air(**options):
        cloud = fuse(broken, 0, with_confidence=True, **options)
        return cloud.confidence, raycast.surface_distance(cloud.points_m, raycast.ball_centre(0)) > 0.02

    sure, wrong = in_the_air()
    assert wrong.sum() > 30
    assert sure[wrong].max() < 0.4 and np.median(sure[~wrong]) > 0.6
    assert not in_the_air(min_confidence=0.4)[1].any()


def test_a_cube_believes_its_surest_points_most():
    clip = raycast.clip(size=16, frames=1)
    pair = fuse(clip, 0).select(np.array([0, 1]))
    pair = dataclasses.replace(
        pair,
        points_m=np.array([[0.001, 0, 0], [0.005, 0, 0]], np.float32),
        confidence=np.array([0.75, 0.25], np.float32),
    )
    fused = downsample(pair, 0.01)
    np.testing.assert_allclose(fused.points_m, [[0.002, 0, 0]], atol=1e-7)
    assert fused.confidence.tolist() == [0.75]


def test_a_cloud_splits_into_its_layers():
    clip = raycast.clip(size=32, frames=1)
    red = clip.rgb[..., 0].astype(int) - clip.rgb[..., 2] > 80
    layers = np.where(red, ROBOT, BACKGROUND).astype(np.uint8)
    cloud = fuse(dataclasses.replace(clip, layers=layers), 0)
    ball = cloud.of_layer(ROBOT)
    assert np.abs(np.linalg.norm(ball.points_m - raycast.ball_centre(0), axis=-1) - raycast.BALL_RADIUS_M).max() < 1e-5
    assert len(ball) + len(cloud.of_layer(BACKGROUND)) == len(cloud) and len(cloud.of_layer(OBJECT)) == 0
    assert len(fuse(dataclasses.replace(clip, layers=layers), 0, voxel_m=0.02).of_layer(ROBOT)) > 0
    with pytest.raises(ValueError, match="no layers"):
        fuse(clip, 0).of_layer(ROBOT)
