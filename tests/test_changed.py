"""What changed is taken from the truth, and judges what moved and nothing else."""

import dataclasses

import numpy as np

import raycast
from xwam.scene.changed import CHANGED_POINT_M, ChangedSurface, changed_mask
from xwam.scene.distances import distances


def test_changed_pixels_are_where_the_ball_was_and_is():
    clip = raycast.clip(size=48, frames=3, wrist=False)
    changed = changed_mask(clip)
    assert not changed[:, 0].any()
    assert 0.005 < changed[:, 2].mean() < 0.2
    # Every pixel that shows the ball in frame 2 and did not in frame 0 has changed.
    red = (clip.rgb[..., 0].astype(int) - clip.rgb[..., 2]) > 80
    assert changed[:, 2][red[:, 2] & ~red[:, 0]].all()


def test_a_depth_step_alone_is_a_change():
    clip = raycast.clip(size=16, frames=2, speed=0, wrist=False)
    depth_m = clip.depth_m.copy()
    depth_m[0, 1, 8, 8] += 0.02
    depth_m[0, 1, 8, 9] += 0.005
    changed = changed_mask(dataclasses.replace(clip, depth_m=depth_m))
    assert changed.sum() == 1 and changed[0, 1, 8, 8]


def chamfer_of_changed(predicted, true, before) -> float:
    return ChangedSurface.between(before, true).chamfer_m(predicted, distances(predicted, true))


def block(left_m: float) -> np.ndarray:
    """A cube of 6 cm, in points a centimetre apart, on a table of 40 cm."""
    table = np.stack(np.meshgrid(np.arange(0, 0.4, 0.01), np.arange(0, 0.4, 0.01), [0.0]), -1).reshape(-1, 3)
    cube = np.stack(np.meshgrid(*[np.arange(0.0, 0.06, 0.01)] * 3), -1).reshape(-1, 3)
    return np.concatenate([table, cube + [left_m, 0.1, 0.01]])


def test_changed_points_judge_what_moved_and_nothing_else():
    before, true = block(0.05), block(0.2)
    still = chamfer_of_changed(before, true, before)
    assert still > CHANGED_POINT_M
    assert chamfer_of_changed(true, true, before) == 0
    off = chamfer_of_changed(block(0.21), true, before)
    assert 0 < off < still
    far_noise = np.random.default_rng(0).uniform(1, 2, (100, 3))
    assert chamfer_of_changed(np.concatenate([true, far_noise]), true, before) == 0
    table_only = true[:1600]
    assert chamfer_of_changed(table_only, true, before) > 0.01


def test_where_nothing_changed_there_is_nothing_to_judge():
    assert ChangedSurface.between(block(0.1), block(0.1)) is None
    assert ChangedSurface.between(block(0.1), block(0.2)[:0]) is None
