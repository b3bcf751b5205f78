"""Snippets for an autoencoder: cut out of films in memory, with or without depth, at any recorded size."""

import numpy as np
import pytest

from recordings import HEIGHT, WIDTH, record, robot, smooth_episode, toy_spec
from xwam.data.layout import DatasetSpec
from xwam.data.snippets import Films, SnippetBatches, films_of


def batches(films: Films, **changes) -> SnippetBatches:
    settings = {"frames": 3, "stride": 2, "batch_size": 24, "seed": 0}
    return SnippetBatches(films, films, **(settings | changes))


def test_films_hold_each_camera_of_each_episode_and_its_depth_as_grey(tmp_path):
    store = record(tmp_path, [[smooth_episode(seed=0), smooth_episode(seed=1)]])
    films = films_of(store, robot(), [1, 0], (HEIGHT, WIDTH))
    assert len(films.colour) == len(films.depth) == 4
    seen = store.read(1, range(24), ["wrist"])
    assert np.array_equal(films.colour[1], seen.rgb["wrist"])
    grey = (robot().cameras[1].depth.encode(seen.depth_m["wrist"]) + 1) * 127.5
    assert np.array_equal(films.depth[1][..., 0], grey.round())


def test_films_have_the_size_that_is_asked_for(tmp_path):
    films = films_of(record(tmp_path, [[smooth_episode()]]), robot(), [0], (16, 32))
    assert {film.shape for film in films.colour} == {(24, 16, 32, 3)}
    assert {film.shape for film in films.depth} == {(24, 16, 32, 1)}


def test_ranks_share_the_snippets_of_a_step(tmp_path):
    films = films_of(record(tmp_path, [[smooth_episode()]]), robot(), [0], (HEIGHT, WIDTH))
    shares = [batches(films, rank=rank, ranks=3) for rank in range(3)]
    assert np.array_equal(np.concatenate([share.train(4) for share in shares]), batches(films).train(4))
    for whole, *parts in zip(batches(films).validation(), *(share.validation() for share in shares), strict=True):
        assert np.array_equal(np.concatenate(parts), whole)
    with pytest.raises(ValueError, match="a batch of 24 for 5 ranks"):
        batches(films, ranks=5)


def test_the_snippets_of_a_step_are_named(tmp_path):
    store = record(tmp_path, [[smooth_episode(seed=0), smooth_episode(seed=1)]])
    films = films_of(store, robot(), [1, 0], (HEIGHT, WIDTH))
    shares = [batches(films, rank=rank, ranks=2) for rank in range(2)]
    names = shares[0].ids(3)
    assert names == shares[1].ids(3) and len(names) == 24 and {name.episode for name in names} == {0, 1}
    for name, snippet in zip(names, np.concatenate([share.train(3) for share in shares]), strict=True):
        first = np.moveaxis(snippet[:, 0], 0, -1)
        own = [*range(2)] if name.episode == 1 else [*range(2, 4)]  # two films of each kind an episode
        seen = [kind[k][name.row] for kind in (films.colour, films.depth) for k in own]
        assert any(np.array_equal(first, np.broadcast_to(image, first.shape)) for image in seen)


@pytest.mark.parametrize("cameras", [0, 1])
def test_cameras_without_depth_have_films_of_colour_alone(tmp_path, cameras):
    full = toy_spec()
    bare = [camera.model_copy(update={"depth": None}) for camera in full.cameras]
    spec = DatasetSpec(**(vars(full) | {"cameras": (*full.cameras[:cameras], *bare[cameras:])}))
    films = films_of(record(tmp_path, [[smooth_episode()]], spec), robot(), [0], (HEIGHT, WIDTH))
    assert len(films.colour) == 2 and len(films.depth) == cameras
    assert batches(films).train(0).shape == (24, 3, 3, HEIGHT, WIDTH)


def test_snippets_depend_on_seed_and_step_alone_and_keep_their_stride():
    film = np.arange(40, dtype=np.uint8)[:, None, None, None] + np.zeros((40, 2, 2, 3), np.uint8)
    films = Films([film], [100 + film[..., :1]])
    some = batches(films)
    assert some.train(3).equal(batches(films).train(3)) and not some.train(3).equal(some.train(4))
    rows = some.train(0)[:, 0, :, 0, 0].numpy().astype(int)
    last = np.where(rows[:, 0] >= 100, 139, 39)
    assert (rows[:, 1] == np.minimum(rows[:, 0] + 2, last)).all()
    share = np.mean([(batches(films, batch_size=300).train(0)[:, 0, 0, 0, 0].numpy() >= 100)])
    assert share == pytest.approx(1 / 3, abs=0.08)
