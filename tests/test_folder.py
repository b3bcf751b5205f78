"""A clip survives its folder; what is wrong in one is refused by its place, its value and the mend."""

import json
from dataclasses import replace

import numpy as np
import pytest

from world_clips import world_clip
from xwam.core.depth import InverseDepthAlignment
from xwam.core.video import VideoWriter
from xwam.scene.folder import read_clip, write_clip


def changed(x: np.ndarray, place: tuple, value: float) -> np.ndarray:
    x = x.copy()
    x[place] = value
    return x


def test_a_clip_survives_its_folder(tmp_path):
    clip = world_clip(alignments={"left": InverseDepthAlignment(1.5, -0.1)}, depth_scale="aligned")
    back = read_clip(write_clip(tmp_path / "clip", clip))
    for name in ("origin", "instruction", "seams", "about", "alignments", "action_period_s", "action_names"):
        assert getattr(back, name) == getattr(clip, name), name
    for name in ("action_units", "proprio_names", "proprio_units"):
        assert getattr(back, name) == getattr(clip, name), name
    np.testing.assert_array_equal(back.actions, clip.actions)
    np.testing.assert_array_equal(back.proprio, clip.proprio)
    for name in ("intrinsics", "T_base_cam", "layers"):
        np.testing.assert_array_equal(getattr(back.scene, name), getattr(clip.scene, name))
    assert back.scene.cameras == clip.scene.cameras
    assert (back.scene.period_s, back.scene.depth_scale) == (0.05, "aligned")


def test_depth_errs_by_less_than_it_says_and_the_unknown_stays_unknown(tmp_path):
    clip = world_clip()
    back = read_clip(write_clip(tmp_path / "clip", clip)).scene.depth_m
    said = json.loads((tmp_path / "clip/clip.json").read_text())["depth"]["most_error_mm"]
    assert said < 0.05
    np.testing.assert_array_equal(back == 0, clip.scene.depth_m == 0)
    assert 1000 * np.abs(back.astype(float) - clip.scene.depth_m).max() < said + 2e-4  # float32 errs, too


def test_colour_looks_as_it_was(tmp_path):
    clip = world_clip(height=96, width=128)
    back = read_clip(write_clip(tmp_path / "clip", clip)).scene.rgb
    error = back.astype(float) - clip.scene.rgb
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 38


def test_a_far_outlier_does_not_coarsen_near_depth(tmp_path):
    depth_m = changed(world_clip().scene.depth_m, (0, 0, 20, 20), 1e6)
    back = read_clip(write_clip(tmp_path / "clip", world_clip(depth_m=depth_m))).scene.depth_m
    near = depth_m < 10
    np.testing.assert_allclose(back[near], depth_m[near], rtol=2e-4)


@pytest.mark.parametrize("frames, period_s", [(1, 0.05), (3, 1 / 29.97), (40, 0.033), (4, 7.0)])
def test_any_length_and_rate(tmp_path, frames, period_s):
    clip = world_clip(frames=frames, period_s=period_s, actions=None, seams=())
    back = read_clip(write_clip(tmp_path / "clip", clip))
    assert back.scene.rgb.shape == clip.scene.rgb.shape
    assert back.scene.period_s == period_s
    # each frame at its place: pictures and depth change over time
    np.testing.assert_allclose(back.scene.depth_m, clip.scene.depth_m, atol=1e-3)
    assert np.abs(back.scene.rgb.astype(float) - clip.scene.rgb).mean() < 6


def test_what_nobody_knows_is_left_out(tmp_path):
    clip = world_clip(actions=None, proprio=None, layers=None)
    clip = replace(clip, scene=replace(clip.scene, depth_m=np.zeros_like(clip.scene.depth_m)))
    back = read_clip(write_clip(tmp_path / "clip", clip))
    assert back.actions is None and back.proprio is None and back.scene.layers is None
    assert not back.scene.depth_m.any()
    assert not (tmp_path / "clip/depth").exists()


def test_a_clip_is_replaced_and_other_things_are_not(tmp_path):
    write_clip(tmp_path / "clip", world_clip(instruction="first"))
    write_clip(tmp_path / "clip", world_clip(instruction="second"))
    assert read_clip(tmp_path / "clip").instruction == "second"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="mine holds other things"):
        write_clip(tmp_path / "mine", world_clip())
    assert (tmp_path / "mine/thesis.txt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"clip", "mine"}


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoWriter, "add", full)
    with pytest.raises(OSError, match="disk full"):
        write_clip(tmp_path / "clip", world_clip())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_when_it_is_whole(tmp_path, monkeypatch):
    """As long as something is being written, nobody can take it for a clip: so a kill leaves none that is half."""
    there, add = [], VideoWriter.add

    def watched(self, frames):
        there.append((tmp_path / "clip").exists())
        add(self, frames)

    monkeypatch.setattr(VideoWriter, "add", watched)
    write_clip(tmp_path / "clip", world_clip())
    assert there == [False] * 4
    read_clip(tmp_path / "clip")


NAN = float("nan")
SCENE = world_clip().scene


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"depth_m": changed(SCENE.depth_m, (1, 2, 3, 4), NAN)}, r"'wrist cam', depth: 1 of .* nan at frame 2, row 3"),
        ({"depth_m": changed(SCENE.depth_m, (0, 0, 3, 4), -1.0)}, "'left', depth.*-1.0.*write 0 where"),
        ({"depth_m": 1000 * SCENE.depth_m}, "millimetres taken for metres: divide by 1000"),
        ({"intrinsics": changed(SCENE.intrinsics, (1, 3, 0, 0), 0.0)}, "'wrist cam': focal lengths are .0.0,"),
        ({"intrinsics": SCENE.intrinsics / [[48], [32], [1]]}, "not normalised"),
        ({"intrinsics": changed(SCENE.intrinsics, (0, 0, 0, 1), 3.0)}, "undistorted"),
        ({"intrinsics": changed(SCENE.intrinsics, (0, 0, 0, 2), NAN)}, "intrinsics 0 of 5 holds nan"),
        ({"intrinsics": changed(SCENE.intrinsics, (0, 0, 0, 2), 960.0)}, "optical centre.*this image's size"),
        ({"T_base_cam": 1.01 * SCENE.T_base_cam}, "without scale"),
        ({"T_base_cam": SCENE.T_base_cam * [-1, 1, 1, 1]}, "pose 0 of 5 is a mirror image"),
        ({"T_base_cam": changed(SCENE.T_base_cam, (1, 4, 0, 3), np.inf)}, "'wrist cam', T_base_cam: the pose 4 of 5"),
        ({"period_s": 0.0}, "period_s is 0.0"),
        ({"layers": np.full(SCENE.rgb.shape[:-1], 7, np.uint8)}, "layers hold 7"),
        ({"cameras": ("left", "../x")}, "camera name '../x'"),
        ({"seams": (5,)}, "seams"),
        ({"actions": np.zeros((3, 3))}, "3 actions of 0.0125 s last 0.0375 s, the frames 0.2 s"),
        ({"actions": np.full((16, 3), NAN)}, "actions are not finite in row 0"),
        ({"action_names": ("x",)}, "3 entries and 1 names"),
        ({"proprio": np.zeros((4, 2))}, "4 rows of proprio for 5 frames"),
        ({"alignments": {"top": InverseDepthAlignment(1.0, 0.0)}}, "camera 'top'"),
    ],
)
def test_what_cannot_be_is_not_written(tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        write_clip(tmp_path / "clip", world_clip(**change))
    assert list(tmp_path.iterdir()) == []


def test_relative_depth_may_have_any_size(tmp_path):
    clip = world_clip(depth_m=1000 * SCENE.depth_m, depth_scale="relative")
    assert np.median(read_clip(write_clip(tmp_path / "clip", clip)).scene.depth_m) > 100


def test_odd_sides_are_refused(tmp_path):
    with pytest.raises(ValueError, match="31 x 48: video needs even sides"):
        write_clip(tmp_path / "clip", world_clip(height=31))


def edited(name: str, **changes):
    """An edit of a JSON file: keys set, or removed where the value is None."""

    def edit(folder):
        content = json.loads((folder / name).read_text())
        for key, value in changes.items():
            content.pop(key) if value is None else content.__setitem__(key, value)
        (folder / name).write_text(json.dumps(content))

    return edit


def camera_edit(key: str, value: object):
    def edit(folder):
        content = json.loads((folder / "cameras.json").read_text())
        content["cameras"][1][key] = value
        (folder / "cameras.json").write_text(json.dumps(content))

    return edit


def film_of(height: int, width: int, frames: int):
    def edit(folder):
        writer = VideoWriter(folder / "rgb/left.mp4", height, width, fps=20)
        writer.add(np.zeros((frames, height, width, 3), np.uint8))
        writer.close()

    return edit


def pickled(folder):
    np.savez(folder / "clip.npz", actions=np.array([{}], dtype=object), proprio=np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "clip.json").unlink(), "holds no clip.json: give a folder"),
        (lambda folder: (folder / "clip.json").write_text("{"), "clip.json cannot be read as JSON"),
        (edited("clip.json", version=2), "clip.json is of version 2"),
        (edited("clip.json", origin="dreamt"), "clip.json: setting 'origin'"),
        (edited("clip.json", persiod_s=1), "clip.json: no setting 'persiod_s'; did you mean 'period_s'"),
        (edited("clip.json", depth_scale=None), "clip.json: setting 'depth_scale'"),
        (edited("clip.json", frames=6), "left.mp4 has 5 frames, clip.json says 6"),
        (edited("clip.json", period_s=NAN), "'period_s': Input should be a finite number"),
        (edited("clip.json", actions=None), "setting 'actions'"),
        (edited("cameras.json", cameras=[]), "cameras.json lists no camera"),
        (camera_edit("intrinsics", [[[1, 0, 0], [0, 1, 0], [0, 0]]] * 5), "intrinsics of camera 'wrist cam'"),
        (camera_edit("T_base_cam", [np.eye(4).tolist()] * 4), "are 4 matrices.*give 5, one a frame"),
        (camera_edit("T_base_cam", [(2 * np.eye(4)).tolist()] * 5), "'wrist cam', T_base_cam: pose 0 of 5"),
        (camera_edit("height", 64), "is 64 x 48, others differ"),
        (camera_edit("name", "../../etc"), "camera name '../../etc'"),
        (lambda folder: (folder / "rgb/left.mp4").unlink(), "rgb/left.mp4 is missing"),
        (lambda folder: (folder / "depth/left.mp4").write_bytes(b"no video"), "left.mp4 is damaged"),
        (film_of(64, 48, 5), "left.mp4 is 64 x 48, cameras.json says 32 x 48"),
        (film_of(32, 48, 4), "left.mp4 has 4 frames"),
        (lambda folder: (folder / "clip.npz").unlink(), "clip.npz cannot be read"),
        (pickled, "clip.npz cannot be read"),
        (lambda folder: np.savez(folder / "clip.npz", proprio=np.zeros((5, 2))), "tells of .'actions', 'proprio'"),
        (lambda folder: np.savez(folder / "layers.npz", layers=np.zeros(3)), "layers has shape"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, damage, told):
    folder = write_clip(tmp_path / "clip", world_clip())
    damage(folder)
    with pytest.raises(ValueError, match=told):
        read_clip(folder)


def test_the_cameras_file_is_readable(tmp_path):
    text = (write_clip(tmp_path / "clip", world_clip()) / "cameras.json").read_text()
    assert len(max(text.splitlines(), key=len)) < 160
    assert "[0.0, 0.0, 1.0]" in text  # a row of a matrix on one line
