"""A transform moves pixels, depth and intrinsics together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xwam.core.cameras import pixel_grid, project, unproject
from xwam.core.types import Clip
from xwam.data.transforms import ClipTransform, recolour, resize_nearest, resize_rgb


def ramp_clip(height=40, width=56, frames=3, depth_m=1.0) -> Clip:
    """Red grows with x and green with y, so that a pixel's colour tells where it was."""
    x, y = np.moveaxis(pixel_grid(height, width), -1, 0)
    image = np.stack([x * 4, y * 4, 0 * x], axis=-1).round().astype(np.uint8)
    return Clip(
        cameras=("a", "b"),
        rgb=np.tile(image, (2, frames, 1, 1, 1)),
        depth_m=np.tile((depth_m + x / 100 + y / 50).astype(np.float32), (2, frames, 1, 1)),
        intrinsics=np.tile([[60.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]], (2, frames, 1, 1)),
        T_base_cam=np.tile(np.eye(4), (2, frames, 1, 1)),
        proprio=np.zeros((frames, 2), np.float32),
        actions=np.zeros((0, 2), np.float32),
        actions_valid=np.zeros(0, bool),
        instruction="go",
        period_s=0.1,
    )


@settings(max_examples=40, deadline=None)
@given(
    ratio=st.floats(0.5, 1.0),
    height=st.integers(20, 80),
    width=st.integers(20, 80),
    train=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_point_stays_on_its_content(ratio, height, width, train, seed):
    clip = ramp_clip()
    transform = ClipTransform(crop_ratio=ratio, size=(height, width), colour_jitter=(0, 0, 0, 0), train=train)
    moved = transform(clip, seed)
    assert moved.rgb.shape == (2, 3, height, width, 3) and moved.depth_m.shape == (2, 3, height, width)
    for view in range(2):
        # every new pixel, thrown into space with its depth, must fall where the old image had its colour
        points = unproject(moved.depth_m[view, 0], moved.intrinsics[view, 0], moved.T_base_cam[view, 0])
        pixels, z = project(points, clip.intrinsics[view, 0], clip.T_base_cam[view, 0])
        inner = np.s_[3:-3, 3:-3]  # at the border the resize has only one side to look at
        colours = moved.rgb[view, 0].astype(float)
        assert np.abs(pixels[inner][..., 0] * 4 - colours[inner][..., 0]).max() < 2.5
        assert np.abs(pixels[inner][..., 1] * 4 - colours[inner][..., 1]).max() < 2.5
        there = 1 + pixels[..., 0] / 100 + pixels[..., 1] / 50
        assert np.abs(there - z).max() < 0.5 / 100 + 0.5 / 50 + 1e-5  # nearest: half an old pixel away


def test_depth_is_never_mixed():
    depth = np.where(np.arange(30) < 13, 0.0, 1.7)[None, None].repeat(20, axis=1).astype(np.float32)
    assert set(np.unique(resize_nearest(depth, (33, 47)))) == {np.float32(0), np.float32(1.7)}


def test_frames_of_a_view_move_alike_and_views_apart():
    transform = ClipTransform(crop_ratio=0.6, size=(40, 56), train=True)
    moved = transform(ramp_clip(), seed=1)
    assert (moved.rgb == moved.rgb[:, :1]).all() and (moved.intrinsics == moved.intrinsics[:, :1]).all()
    assert not np.array_equal(moved.intrinsics[0], moved.intrinsics[1])
    assert np.array_equal(transform(ramp_clip(), seed=1).rgb, moved.rgb)
    assert not np.array_equal(transform(ramp_clip(), seed=2).rgb, moved.rgb)


def test_eval_is_central_and_blind_to_the_seed():
    transform = ClipTransform(crop_ratio=0.5, size=(20, 28))
    moved = transform(ramp_clip(), seed=0)
    assert np.array_equal(moved.rgb, transform(ramp_clip(), seed=9).rgb)
    assert np.array_equal(moved.rgb, ramp_clip().rgb[:, :, 10:30, 14:42])
    assert moved.intrinsics[0, 0, 0, 2] == 14 and moved.intrinsics[0, 0, 1, 2] == 10


def test_nothing_to_do_changes_nothing():
    clip = ramp_clip()
    same = ClipTransform(size=(40, 56))(clip, seed=0)
    assert all(np.array_equal(getattr(same, name), getattr(clip, name)) for name in ("rgb", "depth_m", "intrinsics"))


def test_a_clip_without_depth_or_cameras():
    bare = ramp_clip().replace(depth_m=None, intrinsics=None, T_base_cam=None)
    moved = ClipTransform(size=(16, 16), crop_ratio=0.95, train=True)(bare, seed=0)
    assert moved.depth_m is None and moved.intrinsics is None and moved.rgb.shape == (2, 3, 16, 16, 3)


def test_resize_keeps_a_flat_image_and_averages_when_it_shrinks():
    flat = np.full((2, 30, 50, 3), 77, np.uint8)
    assert (resize_rgb(flat, (13, 80)) == 77).all()
    checks = np.indices((20, 32)).sum(0) % 2 * 200
    small = resize_rgb(np.repeat(checks[None, :, :, None], 3, axis=3).astype(np.uint8), (5, 8))
    assert np.abs(small.astype(int) - 100).max() <= 12


def test_colours_change_for_all_views_alike():
    clip = ramp_clip()
    moved = ClipTransform(size=(40, 56), train=True)(clip, seed=3)
    assert np.array_equal(moved.rgb[0], moved.rgb[1]) and not np.array_equal(moved.rgb, clip.rgb)
    assert np.array_equal(moved.depth_m, clip.depth_m)


class Draws:
    """A generator whose draws are given."""

    def __init__(self, *values):
        self.values = list(values)

    def uniform(self, low, high, size=None):
        return self.values.pop(0)


def test_jitter_does_what_its_parts_say():
    rng = np.random.default_rng(0)
    rgb = rng.integers(60, 150, size=(4, 5, 3)).astype(np.uint8)
    grey = rgb @ np.array([0.299, 0.587, 0.114])

    def changed(brightness=0, contrast=0, saturation=0, hue=0):
        draws = Draws(np.array([brightness, contrast, saturation]), hue)
        return recolour(rgb, (1.0, 1.0, 1.0, 0.5), draws).astype(float)

    np.testing.assert_allclose(changed(), rgb, atol=0.6)
    np.testing.assert_allclose(changed(brightness=0.2), rgb * 1.2, atol=0.6)
    np.testing.assert_allclose(changed(contrast=-1), np.full(rgb.shape, grey.mean()), atol=0.6)
    np.testing.assert_allclose(changed(saturation=-1), grey[..., None].repeat(3, -1), atol=0.6)
    turned = changed(hue=0.2)
    assert np.abs(turned - rgb).max() > 5
    np.testing.assert_allclose(turned @ [0.299, 0.587, 0.114], grey, atol=1)


@pytest.mark.parametrize("bad", [{"crop_ratio": 0.0}, {"crop_ratio": 1.1}, {"colour_jitter": (-0.1, 0, 0, 0)}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="need a ratio"):
        ClipTransform(size=(8, 8), **bad)
