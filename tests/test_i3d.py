"""FVD: I3D's shapes and names with weights of our own, since none are downloaded; and the distance by known cases."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xwam.model.i3d import I3D, Network, padded
from xwam.scene.frechet import frechet_distance


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("i3d") / "rgb_imagenet.pt"
    network = Network()
    for part in network.modules():
        if isinstance(part, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(part.weight)  # with less, nothing of a film gets through so many layers
    weights = network.state_dict()
    torch.save({name: x for name, x in weights.items() if not name.endswith("num_batches_tracked")}, path)
    return path


def test_names_and_shapes_are_the_published_ones():
    shapes = {name: tuple(x.shape) for name, x in Network().state_dict().items()}
    assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert shapes["Conv3d_2c_3x3.bn.running_var"] == (192,)
    assert shapes["Mixed_3b.b1b.conv3d.weight"] == (128, 96, 3, 3, 3)
    assert shapes["Mixed_4f.b2a.conv3d.weight"] == (32, 528, 1, 1, 1)
    assert shapes["Mixed_5c.b3b.conv3d.weight"] == (128, 832, 1, 1, 1)
    assert shapes["logits.conv3d.weight"] == (400, 1024, 1, 1, 1) and shapes["logits.conv3d.bias"] == (400,)
    assert "logits.bn.weight" not in shapes and "Conv3d_2b_1x1.conv3d.bias" not in shapes


PADDED = [(9, 7, 2, (3, 3)), (8, 7, 2, (2, 3)), (5, 2, 2, (0, 1))]


@pytest.mark.parametrize(("size", "kernel", "stride", "around"), PADDED)
def test_zeros_around_are_those_of_tensorflow(size, kernel, stride, around):
    x = torch.rand(1, 1, size, 1, 1)
    assert torch.equal(padded(x, (kernel, 1, 1), (stride, 1, 1)), F.pad(x, (0, 0, 0, 0, *around)))


def test_films_become_features(file):
    network, films = I3D(file), np.random.default_rng(0).integers(0, 256, (2, 9, 32, 40, 3), dtype=np.uint8)
    films[:, 5:] //= 4
    features = network(films)
    assert features.shape == (2, 400) and np.isfinite(features).all()
    np.testing.assert_allclose(network(films[1:]), features[1:], rtol=1e-4, atol=1e-6)
    backwards = network(films[:1, ::-1].copy())
    assert np.abs(backwards - features[:1]).max() > 1e-3 * np.abs(features).max()  # time matters


def test_what_is_no_film_or_no_i3d_is_refused(file, tmp_path):
    with pytest.raises(ValueError, match="films of 8 frames: FVD needs 9 or more"):
        I3D(file)(np.zeros((1, 8, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="FVD needs rgb_imagenet.pt"):
        I3D(tmp_path / "none.pt")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"is no I3D of 400 classes, for example"):
        I3D(tmp_path / "other.pt")


def exactly(mean, variance, samples=50):
    """Samples of just this mean and, uncorrelated, this variance."""
    x = np.random.default_rng(0).normal(size=(samples, len(mean)))
    x = np.linalg.qr(x - x.mean(0))[0] * np.sqrt(samples - 1)
    return x * np.sqrt(variance) + mean


def test_the_distance_of_known_distributions():
    one, other = exactly([0.0, 1.0], [1.0, 4.0]), exactly([3.0, 1.0], [9.0, 4.0])
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, other) == pytest.approx(3.0**2 + (3 - 1) ** 2)  # means apart, then sqrt of variances
    assert frechet_distance(other, one) == pytest.approx(frechet_distance(one, other))


def test_turned_distributions_and_few_samples():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    one, other = exactly([0.0] * 3, [1.0, 4.0, 0.25]), exactly([1.0, 0.0, 0.0], [4.0, 1.0, 0.25])
    assert (
        frechet_distance(one @ turn, other @ turn) == pytest.approx(frechet_distance(one, other)) == pytest.approx(3.0)
    )
    few = np.random.default_rng(2).normal(size=(2, 5, 40))
    assert frechet_distance(few[0], few[1]) > 0 and frechet_distance(few[0], few[0]) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="1 and 5 samples"):
        frechet_distance(few[0][:1], few[1])
