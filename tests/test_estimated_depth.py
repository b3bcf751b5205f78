"""Estimated depth: relative, kept beside the images, resumable, and never mistaken for measured depth."""

import numpy as np
import pytest

from recordings import record, robot, smooth_episode, toy_spec
from xwam.core.embodiment_file import embodiment_text, read_embodiment
from xwam.core.files import read_json
from xwam.data import estimated_depth
from xwam.data.clips import ClipDataset, ClipIndex
from xwam.data.episodes import EpisodeStore
from xwam.data.estimated_depth import NOMINAL, add_depth, relative_depth
from xwam.data.layout import EMBODIMENT_PATH, INFO_PATH


class Brightness:
    """Takes bright for near, and counts the films that it saw."""

    name = "brightness 1"

    def __init__(self, fail_after: int = 1000):
        self.films, self._fail_after = 0, fail_after

    def __call__(self, rgb):
        if self.films == self._fail_after:
            raise KeyboardInterrupt
        self.films += 1
        return rgb.mean(axis=-1)


@pytest.fixture
def bare(tmp_path, monkeypatch) -> EpisodeStore:
    """A dataset without depth, three episodes, two a file of estimated depth."""
    monkeypatch.setattr(estimated_depth, "EPISODES_PER_FILE", 2)
    episodes = [smooth_episode(length, seed=k) for k, length in enumerate((12, 9, 15))]
    store = record(tmp_path / "data", [episodes[:1], episodes[1:]], toy_spec(depth=False))
    (store.root / EMBODIMENT_PATH).write_text(embodiment_text(robot()))
    return store


def contents(root) -> dict:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_relative_depth_is_affine_in_inverse_depth():
    inverse = np.linspace(3.0, 7.0, 10_000).reshape(4, 50, 50)
    depth = relative_depth(inverse)
    within = (depth > 1.001 * NOMINAL.near_m) & (depth < 0.999 * NOMINAL.far_m)
    assert 0.97 < within.mean() < 0.99
    slope, shift = np.polyfit(inverse[within], 1 / depth[within], 1)
    np.testing.assert_allclose(1 / depth[within], slope * inverse[within] + shift, rtol=1e-4)
    assert depth.flat[0] == pytest.approx(NOMINAL.far_m) and depth.flat[-1] == pytest.approx(NOMINAL.near_m)


def test_what_the_estimator_does_not_know_stays_unknown():
    inverse = np.linspace(3.0, 7.0, 400).reshape(1, 20, 20)
    inverse[0, :5] = np.nan
    assert not relative_depth(inverse)[0, :5].any() and relative_depth(inverse)[0, 5:].all()
    assert not relative_depth(np.full((1, 4, 4), 2.0)).any()
    assert not relative_depth(np.full((1, 4, 4), np.nan)).any()


def test_depth_is_added_where_there_was_none(bare):
    before = {episode: bare.read_all(episode) for episode in range(3)}
    add_depth(bare.root, Brightness())
    store = EpisodeStore(bare.root)
    for episode, old in before.items():
        new = store.read_all(episode)
        for camera in ("front", "wrist"):
            np.testing.assert_array_equal(new.rgb[camera], old.rgb[camera])
            wanted = relative_depth(new.rgb[camera].mean(axis=-1))
            np.testing.assert_allclose(new.depth_m[camera], wanted, rtol=2e-3)
    assert all(camera.depth.scale == "relative" for camera in store.spec.cameras)
    described = store.embodiment()
    assert {camera.depth_scale for camera in described.cameras} == {"relative"}
    clip = ClipDataset(store, ClipIndex(store, described, 3), described)[0]
    assert clip.depth_m is not None and (clip.depth_m > 0).all()
    assert clip.scene().depth_scale == clip.depth_scale == "relative"
    assert "observation.images.front_depth" in read_json(store.root / "meta/stats.json")


def test_a_run_that_was_stopped_goes_on(bare):
    with pytest.raises(KeyboardInterrupt):
        add_depth(bare.root, Brightness(fail_after=3))
    assert EpisodeStore(bare.root).spec.cameras[0].depth is None
    other = Brightness()
    other.name = "brightness 2"
    with pytest.raises(ValueError, match="brightness 1.*brightness 2"):
        add_depth(bare.root, other)
    rest = Brightness()
    add_depth(bare.root, rest)
    assert rest.films == 6 - 3
    assert EpisodeStore(bare.root).spec.cameras[0].depth is not None


def test_depth_that_was_measured_is_left_alone(tmp_path, bare):
    whole = record(tmp_path / "whole", [[smooth_episode()]])
    before = contents(whole.root)
    with pytest.raises(ValueError, match="every camera .* has depth"):
        add_depth(whole.root, Brightness())
    with pytest.raises(ValueError, match="camera 'front' .* has depth"):
        add_depth(whole.root, Brightness(), ["front"])
    assert contents(whole.root) == before
    add_depth(bare.root, Brightness(), ["wrist"])
    cameras = {camera.name: camera.depth for camera in EpisodeStore(bare.root).spec.cameras}
    assert cameras["front"] is None and cameras["wrist"].scale == "relative"
    scales = {camera.name: camera.depth_scale for camera in read_embodiment(bare.root / EMBODIMENT_PATH).cameras}
    assert scales == {"front": "metric", "wrist": "relative"}


def test_an_estimator_of_the_wrong_shape_leaves_no_video(bare):
    def halves(rgb):
        return rgb[:, ::2, ::2].mean(axis=-1)

    halves.name = "halves"
    with pytest.raises(ValueError, match=r"'halves' gave shape \(12, 24, 32\)"):
        add_depth(bare.root, halves)
    assert not list(bare.root.glob("videos/*_depth/**/*.mp4"))
    assert not any("_depth" in key for key in read_json(bare.root / INFO_PATH)["features"])


def test_an_estimator_is_found_by_its_place(monkeypatch):
    assert isinstance(estimated_depth.estimator_named("test_estimated_depth:Brightness"), Brightness)
    for wrong in ("test_estimated_depth:Nothing", "no_such_module:x", "builtins:list", "nothing"):
        with pytest.raises(ValueError, match=wrong.partition(":")[0]):
            estimated_depth.estimator_named(wrong)
