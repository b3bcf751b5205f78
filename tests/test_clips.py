"""Clips: which rows they hold, which episodes are held out."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from recordings import record, robot, smooth_episode, toy_spec
from xwam.core.embodiment import CameraSpec
from xwam.core.video import VideoReader
from xwam.data import episodes
from xwam.data.clips import ClipDataset, ClipIndex, split, window
from xwam.data.episodes import EpisodeStore
from xwam.data.transforms import ClipTransform

LENGTHS = (24, 9, 31, 12, 20, 16)


def starts_of(length: int, actions_per_frame: int, start_stride: int) -> np.ndarray:
    """The plain list of an episode's clips, of which the index only keeps count."""
    return np.arange(0, max(1, length - actions_per_frame), start_stride)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> EpisodeStore:
    environments = ["toy/reach", "toy/push"]
    recorded = [smooth_episode(n, seed=k, environment=environments[k % 2]) for k, n in enumerate(LENGTHS)]
    return record(tmp_path_factory.mktemp("clips"), [recorded[:4], recorded[4:]])


def test_a_window_within_and_past_the_end():
    inside = window(length=10, start=1, frames=3, actions_per_frame=2)
    assert inside.frames.tolist() == [1, 3, 5] and inside.actions.tolist() == [1, 2, 3, 4]
    assert inside.actions_valid.all()
    past = window(length=10, start=7, frames=3, actions_per_frame=2)
    assert past.frames.tolist() == [7, 9, 9] and past.actions.tolist() == [7, 8, 9, 9]
    assert past.actions_valid.tolist() == [True, True, True, False]


def test_starts_leave_room_for_a_second_frame():
    assert starts_of(10, 4, 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert starts_of(10, 4, 3).tolist() == [0, 3]
    assert starts_of(3, 4, 1).tolist() == [0]


def test_clips_hold_what_was_recorded(store):
    index = ClipIndex(store, robot(), frames=5, episodes=[1, 4], start_stride=3)
    clips = ClipDataset(store, index, robot())
    assert len(clips) == len(index) == len(starts_of(9, 2, 3)) + len(starts_of(20, 2, 3))
    for i, clip in enumerate(clips):
        [episode], [start] = index.place(np.array([i]))
        whole = store.read_all(int(episode))
        rows = np.minimum(start + 2 * np.arange(5), whole.length - 1)
        assert clip.cameras == robot().camera_names and clip.period_s == 0.1
        assert np.array_equal(clip.rgb, np.stack([whole.rgb[name][rows] for name in clip.cameras]))
        assert np.array_equal(clip.depth_m, np.stack([whole.depth_m[name][rows] for name in clip.cameras]))
        assert np.array_equal(clip.T_base_cam[1], whole.T_base_cam["wrist"][rows])
        assert np.array_equal(clip.proprio, whole.proprio[rows])
        real = min(8, whole.length - start)
        assert clip.actions_valid.tolist() == [True] * real + [False] * (8 - real)
        assert np.array_equal(clip.actions[:real], whole.actions[start : start + real])
        assert not clip.actions[real:].any()
        assert clip.scene().rgb.shape[0] == 2


def test_cameras_come_in_the_robots_order(store):
    swapped = robot().model_copy(update={"cameras": robot().cameras[::-1]})
    forward, backward = (ClipDataset(store, ClipIndex(store, r, 3), r)[0] for r in (robot(), swapped))
    assert backward.cameras == ("wrist", "front") and np.array_equal(backward.rgb, forward.rgb[::-1])


@pytest.fixture
def two_sizes(tmp_path) -> EpisodeStore:
    """The wrist camera is twice as high and wide as the other one."""
    spec = toy_spec()
    twice = {"height": 2 * spec.cameras[1].height, "width": 2 * spec.cameras[1].width}
    spec = spec.model_copy(update={"cameras": (spec.cameras[0], spec.cameras[1].model_copy(update=twice))})
    episode = smooth_episode(20)
    large = {name: getattr(episode, name)["wrist"].repeat(2, axis=1).repeat(2, axis=2) for name in ("rgb", "depth_m")}
    images = {name: getattr(episode, name) | {"wrist": images} for name, images in large.items()}
    return record(tmp_path, [[replace(episode, **images)]], spec)


def test_cameras_of_different_sizes_are_brought_to_one(two_sizes):
    index = ClipIndex(two_sizes, robot(), 3)
    with pytest.raises(ValueError, match=r"have the sizes \[\(48, 64\), \(96, 128\)\]: give a transform"):
        ClipDataset(two_sizes, index, robot())
    transform = ClipTransform(size=(32, 40), crop_ratio=0.9)
    clip = ClipDataset(two_sizes, index, robot(), transform)[4]
    assert clip.rgb.shape == (2, 3, 32, 40, 3) and clip.depth_m.shape == (2, 3, 32, 40)
    views = two_sizes.read(0, [4, 6, 8])
    for k, camera in enumerate(clip.cameras):
        alone = transform.of_views(*([getattr(views, n)[camera]] for n in ("rgb", "depth_m", "intrinsics")), seed=0)
        for name, view in zip(("rgb", "depth_m", "intrinsics"), alone, strict=True):
            assert np.array_equal(getattr(clip, name)[k], view[0])
    scales = clip.intrinsics[:, 0, 0, 0] / views.intrinsics["front"][0, 0, 0]
    np.testing.assert_allclose(scales, [40 / 58, 40 / 115])  # 0.9 of 64 and of 128 pixels


def test_only_what_is_asked_for_is_decoded(store, monkeypatch):
    opened = []
    monkeypatch.setattr(episodes, "VideoReader", lambda path, depth: opened.append(path) or VideoReader(path, depth))
    alone = robot().model_copy(update={"cameras": robot().cameras[1:]})
    fresh = EpisodeStore(store.root)
    clip = ClipDataset(fresh, ClipIndex(fresh, alone, 3), alone, depth=False)[0]
    assert clip.depth_m is None and clip.rgb.shape[0] == 1
    assert [path.parts[-3] for path in opened] == ["observation.images.wrist"]


def test_every_wording_is_shown_and_each_showing_repeats(store):
    clips = ClipDataset(store, ClipIndex(store, robot(), 3), robot(), ClipTransform(size=(32, 32), train=True))
    shown = [clips.at(4, draw) for draw in range(12)]
    assert {clip.instruction for clip in shown} == {"reach the ball", "touch ball number 0"}
    again = pickle.loads(pickle.dumps(clips)).at(4, 7)
    assert again.instruction == shown[7].instruction and np.array_equal(again.rgb, shown[7].rgb)
    assert not np.array_equal(shown[7].rgb, shown[8].rgb)


def test_split_is_stratified_and_deterministic(store):
    training, validation = split(store, held_out=1, seed=3)
    assert sorted(training + validation) == list(range(6)) and len(validation) == 2
    assert {store.info(i).environment for i in validation} == {"toy/reach", "toy/push"}
    assert split(store, held_out=1, seed=3) == (training, validation)
    assert len({tuple(split(store, held_out=1, seed=s)[1]) for s in range(20)}) > 1
    assert len(split(store, held_out=0.34)[1]) == 2 and split(store, held_out=0)[1] == []
    with pytest.raises(ValueError, match="held_out 3 of the 3 episodes"):
        split(store, held_out=3)


def test_places_of_clips_need_no_list_of_them(store):
    index = ClipIndex(store, robot(), 5, episodes=[4, 0, 3], start_stride=3)
    wanted = [(episode, start) for episode in (4, 0, 3) for start in starts_of(LENGTHS[episode], 2, 3).tolist()]
    assert len(index) == len(wanted)
    episodes, starts = index.place(np.arange(len(index)))
    assert list(zip(episodes.tolist(), starts.tolist(), strict=True)) == wanted
    shuffled = np.random.default_rng(0).permutation(len(index))
    assert np.array_equal(index.place(shuffled)[1], starts[shuffled])
    for clip, (episode, start) in enumerate(wanted):
        found, rows = index.window(clip)
        assert found == episode and np.array_equal(rows.frames, window(LENGTHS[episode], start, 5, 2).frames)
    assert len(ClipIndex(store, robot(), 5, episodes=[])) == 0
    with pytest.raises(ValueError, match="clips -1 .. 3: there are 18"):
        index.place(np.array([3, -1]))


def test_a_dataset_of_another_robot_is_refused(store):
    index = ClipIndex(store, robot(), 3)
    top = CameraSpec(name="top", near_m=0.1, far_m=1)
    other = robot().model_copy(update={"cameras": (top,)})
    with pytest.raises(ValueError, match="unknown camera 'top'"):
        ClipDataset(store, index, other)
    renamed = robot().action.parts[0].model_copy(update={"name": "velocity"})
    action = robot().action.model_copy(update={"parts": (renamed,)})
    with pytest.raises(ValueError, match=r"action of .* is not that of .* lacks the columns \['velocity.0'"):
        ClipDataset(store, index, robot().model_copy(update={"action": action}))
    with pytest.raises(ValueError, match="0 frames"):
        ClipIndex(store, robot(), 0)
