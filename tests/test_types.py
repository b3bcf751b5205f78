"""Clips and scenes: shapes that belong together, and a clip as a scene."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import raycast
from xwam.core.types import Clip, RGBDClip

V, T, H, W = 2, 3, 4, 5


def scene(**changes):
    content = {
        "cameras": ("front", "wrist"),
        "rgb": np.zeros((V, T, H, W, 3), np.uint8),
        "depth_m": np.ones((V, T, H, W), np.float32),
        "intrinsics": np.tile(np.eye(3), (V, T, 1, 1)),
        "T_base_cam": np.tile(np.eye(4), (V, T, 1, 1)),
        "period_s": 0.1,
    }
    return RGBDClip(**(content | changes))


def clip(**changes):
    parts = scene()
    shared = ("cameras", "rgb", "depth_m", "intrinsics", "T_base_cam", "period_s")
    content = {name: getattr(parts, name) for name in shared}
    content |= {
        "proprio": np.zeros((T, 4), np.float32),
        "actions": np.zeros((4, 4), np.float32),
        "actions_valid": np.ones(4, bool),
        "instruction": "reach",
    }
    return Clip(**(content | changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depth_m": np.ones((V, T, W, H))}, r"depth_m has shape \(2, 3, 5, 4\)"),
        ({"intrinsics": np.tile(np.eye(3), (V, 1, 1))}, "intrinsics has shape"),
        ({"T_base_cam": np.tile(np.eye(4), (V, T + 1, 1, 1))}, "T_base_cam has shape"),
        ({"cameras": ("front",)}, r"1 camera names \('front',\) for 2 views"),
    ],
)
def test_a_scene_of_shapes_that_do_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        scene(**changes)


def test_a_clip_is_a_metric_scene():
    made = clip().scene()
    assert made.depth_scale == "metric"
    assert made.cameras == ("front", "wrist") and made.period_s == 0.1
    assert made.rgb.shape == (V, T, H, W, 3) and made.depth_m.shape == (V, T, H, W)


@pytest.mark.parametrize("missing", ["depth_m", "intrinsics", "T_base_cam"])
def test_a_clip_without_depth_or_calibration_is_no_scene(missing):
    with pytest.raises(ValueError, match="without depth or calibration"):
        clip(**{missing: None}).scene()


def test_replacing_makes_another_clip():
    one = clip()
    other = one.replace(instruction="push")
    assert (one.instruction, other.instruction) == ("reach", "push") and other.rgb is one.rgb
    with pytest.raises(FrozenInstanceError):
        one.instruction = "pull"


def test_cameras_that_stand_still_are_found():
    assert raycast.clip(size=8, frames=3).standing().tolist() == [True, True, False]


def test_frames_of_a_clip_keep_all_that_is_known_of_them():
    clip = raycast.clip(size=8, frames=4)
    clip = replace(clip, layers=np.arange(clip.depth_m.size, dtype=np.uint8).reshape(clip.depth_m.shape))
    part = clip.at(np.array([3, 1]))
    assert part.over_time().keys() == clip.over_time().keys()
    for name, values in part.over_time().items():
        np.testing.assert_array_equal(values, getattr(clip, name)[:, [3, 1]])
    assert clip.at(slice(2)).rgb.shape[1] == 2
