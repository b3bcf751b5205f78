"""Scene flow against exact motion: a rolling ball, a table that stands still, and a camera that moves."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import raycast
from xwam.core.cameras import unproject
from xwam.scene.cloud import fuse
from xwam.scene.flow import MOVES_M, can_flow, scene_flow, streaks

SIZE = 128
ROLLED = np.array([0.05, 0.0, 0.0])


@pytest.fixture(scope="module")
def clip():
    return raycast.clip(size=SIZE, frames=2)


@pytest.fixture(scope="module")
def flow_m(clip):
    return scene_flow(clip, 0)


def parts(clip) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels show the ball, and which the table."""
    points_m = unproject(clip.depth_m[:, 0], clip.intrinsics[:, 0], clip.T_base_cam[:, 0])
    ball = np.abs(np.linalg.norm(points_m - raycast.ball_centre(0), axis=-1) - raycast.BALL_RADIUS_M) < 1e-4
    return ball, (clip.depth_m[:, 0] > 0) & (np.abs(points_m[..., 2]) < 1e-4) & ~ball


def test_a_ball_is_tracked_as_it_rolls(clip, flow_m):
    ball, _ = parts(clip)
    for view in range(3):
        error = np.linalg.norm(flow_m[view][ball[view]] - ROLLED, axis=-1)
        assert np.isfinite(error).mean() > 0.6
        assert np.nanmedian(error) < 0.008 and np.nanquantile(error, 0.9) < 0.012


def test_what_stands_still_does_so_in_still_and_moving_views(clip, flow_m):
    _, table = parts(clip)
    for view, (tracked, limit_m) in enumerate([(0.9, 1e-4), (0.9, 1e-4), (0.3, 3e-3)]):
        length = np.linalg.norm(flow_m[view][table[view]], axis=-1)
        assert np.isfinite(length).mean() > tracked and np.nanmedian(length) < limit_m


def test_what_is_not_known_is_not_told(clip):
    depth_m = clip.depth_m.copy()
    depth_m[0, 0, 40:60, 40:60] = 0
    depth_m[1, 1, 70:80, 70:80] = 0
    holed = replace(clip, depth_m=depth_m)
    flow_m = scene_flow(holed, 0)
    assert np.isnan(flow_m[0, 40:60, 40:60]).all()
    assert np.isnan(flow_m[1, 72:78, 72:78]).all()
    assert np.isfinite(scene_flow(clip, 0)[1, 72:78, 72:78]).any()


def test_an_occluded_table_is_not_tracked(clip, flow_m):
    """What the ball rolls over is hidden a frame later: of it at most a rim is taken for tracked."""
    _, table = parts(clip)
    covered = table[:2] & np.stack([_ball_later(clip, view) for view in range(2)])
    assert covered.sum() > 50
    assert np.isfinite(flow_m[:2][covered]).all(axis=-1).mean() < 0.4


def _ball_later(clip, view: int) -> np.ndarray:
    points_m = unproject(clip.depth_m[view, 1], clip.intrinsics[view, 1], clip.T_base_cam[view, 1])
    return np.abs(np.linalg.norm(points_m - raycast.ball_centre(1), axis=-1) - raycast.BALL_RADIUS_M) < 1e-4


def test_the_last_frame_has_no_next(clip):
    for frame in (1, -1):
        with pytest.raises(ValueError, match=f"frame {frame} of a clip that has 2"):
            scene_flow(clip, frame)
    assert streaks(clip, 0, 1).shape == (0, 2, 3)


def test_streaks_are_of_what_moves(clip):
    drawn = streaks(clip, 2, 0)
    length = np.linalg.norm(drawn[:, 1] - drawn[:, 0], axis=-1)
    assert (length > MOVES_M).all()
    near = np.abs(np.linalg.norm(drawn[:, 0] - raycast.ball_centre(0), axis=-1) - raycast.BALL_RADIUS_M) < 1e-3
    assert near.sum() > 50 and np.median(drawn[near, 1] - drawn[near, 0], axis=0) == pytest.approx(ROLLED, abs=2e-3)
    at_rest = raycast.clip(size=SIZE, frames=2, speed=0)
    assert all(len(streaks(at_rest, view, 0)) == 0 for view in range(3))


def test_a_cloud_has_flow_if_asked_for(clip, flow_m):
    plain, cloud = fuse(clip, 0), fuse(clip, 0, with_flow=True)
    assert plain.flow_m is None and len(cloud.flow_m) == len(plain)
    known = np.isfinite(cloud.flow_m).all(axis=-1)
    assert known.sum() == np.isfinite(flow_m).all(axis=-1).sum() > 1000
    small = fuse(clip, 0, voxel_m=0.02, with_flow=True)
    of_ball = np.linalg.norm(small.points_m - raycast.ball_centre(0), axis=-1) < raycast.BALL_RADIUS_M + 0.005
    assert np.nanmedian(small.flow_m[of_ball & (small.points_m[:, 2] > 0.02)], axis=0) == pytest.approx(
        ROLLED, abs=0.01
    )


def test_relative_depth_has_no_flow_and_opencv_is_asked_for(clip, monkeypatch):
    assert can_flow(clip) and not can_flow(replace(clip, depth_scale="relative"))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"pip install 'xwam\[flow\]'"):
        scene_flow(clip, 0)
