"""Pinhole geometry: projection and its inverse, crops and resizes, upright poses, quaternions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from xwam.core.cameras import (
    crop_intrinsics,
    intrinsics_of_fovy,
    invert,
    look_at,
    pixel_grid,
    pose,
    project,
    quaternion_to_matrix,
    resize_intrinsics,
    transform,
    unproject,
)

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def random_pose(rng):
    return pose(Rotation.random(rng=rng).as_matrix(), rng.uniform(-3, 3, 3))


def random_intrinsics(rng, height, width):
    fx, fy = rng.uniform(0.3, 3, 2) * max(height, width)
    return np.array([[fx, 0, rng.uniform(0, width)], [0, fy, rng.uniform(0, height)], [0, 0, 1]])


@settings(deadline=None)
@given(seeds, sizes)
def test_projecting_what_was_unprojected_gives_the_same_pixels_and_depths(seed, size):
    rng = np.random.default_rng(seed)
    intrinsics, T_world_cam = random_intrinsics(rng, *size), random_pose(rng)
    depth_m = rng.uniform(0.1, 5, size)
    pixels, z = project(unproject(depth_m, intrinsics, T_world_cam), intrinsics, T_world_cam)
    np.testing.assert_allclose(pixels, pixel_grid(*size), atol=1e-8)
    np.testing.assert_allclose(z, depth_m, atol=1e-10)


def test_views_are_unprojected_together_as_alone():
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(0.1, 5, (2, 3, 4, 5))
    intrinsics = np.stack([[random_intrinsics(rng, 4, 5) for _ in range(3)] for _ in range(2)])
    poses = np.stack([[random_pose(rng) for _ in range(3)] for _ in range(2)])
    together = unproject(depth_m, intrinsics, poses)
    for view, frame in np.ndindex(2, 3):
        alone = unproject(depth_m[view, frame], intrinsics[view, frame], poses[view, frame])
        np.testing.assert_allclose(together[view, frame], alone, atol=1e-12)


def test_pixel_centres_are_at_halves_and_x_is_the_column():
    grid = pixel_grid(2, 3)
    assert grid.shape == (2, 3, 2)
    assert grid[0, 0].tolist() == [0.5, 0.5]
    assert grid[1, 2].tolist() == [2.5, 1.5]


def test_field_of_view_spans_the_image_from_top_to_bottom():
    intrinsics = intrinsics_of_fovy(np.deg2rad(90), 40, 60)
    points = np.array([[0, -1, 1], [0, 1, 1], [0, 0, 1], [1.5, 0, 1]])  # 45 degrees up, down, ahead, right border
    pixels, _ = project(points, intrinsics, np.eye(4))
    np.testing.assert_allclose(pixels, [[30, 0], [30, 40], [30, 20], [60, 20]], atol=1e-9)


@settings(deadline=None)
@given(seeds)
def test_a_crop_keeps_each_point_on_its_content(seed):
    rng = np.random.default_rng(seed)
    intrinsics, T_world_cam = random_intrinsics(rng, 24, 32), random_pose(rng)
    image = rng.uniform(0.5, 3, (24, 32))
    top, left = rng.integers(0, 12), rng.integers(0, 16)
    whole = unproject(image, intrinsics, T_world_cam)
    cropped = unproject(image[top:, left:], crop_intrinsics(intrinsics, top, left), T_world_cam)
    np.testing.assert_allclose(cropped, whole[top:, left:], atol=1e-9)


@settings(deadline=None)
@given(seeds, st.floats(0.2, 4), st.floats(0.2, 4))
def test_a_resize_keeps_each_point_at_its_share_of_the_image(seed, scale_y, scale_x):
    rng = np.random.default_rng(seed)
    intrinsics, T_world_cam = random_intrinsics(rng, 24, 32), random_pose(rng)
    points = unproject(rng.uniform(0.5, 3, (24, 32)), intrinsics, T_world_cam)
    resized, _ = project(points, resize_intrinsics(intrinsics, scale_y, scale_x), T_world_cam)
    np.testing.assert_allclose(resized, pixel_grid(24, 32) * (scale_x, scale_y), atol=1e-8)


def test_crops_and_resizes_leave_their_argument_alone():
    intrinsics = intrinsics_of_fovy(1.0, 24, 32)
    before = intrinsics.copy()
    crop_intrinsics(intrinsics, 3, 4)
    resize_intrinsics(intrinsics, 2, 3)
    np.testing.assert_array_equal(intrinsics, before)


@settings(deadline=None)
@given(seeds)
def test_look_at_is_a_right_handed_upright_camera_that_sees_its_target_in_the_centre(seed):
    rng = np.random.default_rng(seed)
    eye, target = rng.uniform(-1, 1, 3), rng.uniform(-1, 1, 3) + [3, 0, 0]
    T_world_cam = look_at(eye, target)
    right, down, forward = T_world_cam[:3, :3].T
    np.testing.assert_allclose(T_world_cam[:3, :3].T @ T_world_cam[:3, :3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.cross(right, down), forward, atol=1e-12)
    assert down[2] < 0, "y points down the image, so down in the world"
    assert abs(right[2]) < 1e-12, "an upright camera's horizon is level"
    in_camera = transform(invert(T_world_cam), target)
    np.testing.assert_allclose(in_camera, [0, 0, np.linalg.norm(target - eye)], atol=1e-9)


@settings(deadline=None)
@given(seeds)
def test_a_pose_times_its_inverse_is_identity(seed):
    poses = np.stack([random_pose(np.random.default_rng([seed, k])) for k in range(3)])
    np.testing.assert_allclose(poses @ invert(poses), np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-12)


@settings(deadline=None)
@given(seeds, st.floats(0.01, 100))
def test_quaternions_rotate_as_scipy_says_whatever_their_length(seed, length):
    rotations = Rotation.random(4, rng=np.random.default_rng(seed))
    wxyz = rotations.as_quat(scalar_first=True) * length
    np.testing.assert_allclose(quaternion_to_matrix(wxyz), rotations.as_matrix(), atol=1e-9)
    np.testing.assert_allclose(quaternion_to_matrix(wxyz[0]), rotations[0].as_matrix(), atol=1e-9)


def test_one_zero_quaternion_among_many_is_an_error():
    with pytest.raises(ValueError, match="length 0.*wxyz"):
        quaternion_to_matrix(np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
