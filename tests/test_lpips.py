"""LPIPS by its definition, written out; with weights of our own, since none are downloaded."""

import numpy as np
import pytest
import torch

from xwam.model.lpips import ALEXNET, CHANNELS, LPIPS

SIZES = ((0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    alexnet, channels = {"classifier.6.bias": torch.zeros(1000)}, {}
    for k, (number, inside, outside, side) in enumerate(SIZES):
        alexnet[f"features.{number}.weight"] = torch.randn(outside, inside, side, side) / (inside * side * side) ** 0.5
        alexnet[f"features.{number}.bias"] = 0.1 * torch.randn(outside)
        channels[f"lin{k}.model.1.weight"] = torch.rand(1, outside, 1, 1)
    torch.save(alexnet, tmp_path / ALEXNET)
    torch.save(channels, tmp_path / CHANNELS)
    return tmp_path


def as_modules(folder) -> torch.nn.Sequential:
    """AlexNet's convolutional part as torchvision builds it."""
    relu, pool = torch.nn.ReLU, lambda: torch.nn.MaxPool2d(3, 2)
    convolutions = [torch.nn.Conv2d(3, 64, 11, 4, 2), torch.nn.Conv2d(64, 192, 5, padding=2)]
    convolutions += [torch.nn.Conv2d(a, b, 3, padding=1) for a, b in ((192, 384), (384, 256), (256, 256))]
    one, two, three, four, five = convolutions
    parts = (one, relu(), pool(), two, relu(), pool(), three, relu(), four, relu(), five, relu())
    network = torch.nn.Sequential(*parts)
    published = torch.load(folder / ALEXNET, weights_only=True)
    network.load_state_dict({n.removeprefix("features."): x for n, x in published.items() if n.startswith("features")})
    return network


def test_it_is_what_the_paper_defines(folder):
    random = np.random.default_rng(0)
    one, other = random.integers(0, 256, (2, 2, 48, 64, 3), dtype=np.uint8)
    network, weights = as_modules(folder), torch.load(folder / CHANNELS, weights_only=True)
    expected = torch.zeros(2)
    x, y = (torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1 for images in (one, other))
    mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((z - mean[:, None, None]) / std[:, None, None] for z in (x, y))
    layer = 0
    for part in network:
        x, y = part(x), part(y)
        if isinstance(part, torch.nn.ReLU):
            a, b = (z / (z.norm(dim=1, keepdim=True) + 1e-10) for z in (x, y))
            expected += torch.nn.functional.conv2d((a - b) ** 2, weights[f"lin{layer}.model.1.weight"]).mean((1, 2, 3))
            layer += 1
    found = LPIPS(folder)(one, other)
    assert layer == 5
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(LPIPS(folder)(other, one), found, rtol=1e-5)
    assert (LPIPS(folder)(one, one) == 0).all() and (found > 0.01).all()


def test_files_that_are_not_there_or_are_others_are_named(folder, tmp_path):
    torch.save({}, folder / CHANNELS)
    with pytest.raises(ValueError, match=r"holds no 'lin0.model.1.weight'"):
        LPIPS(folder)
    (folder / ALEXNET).unlink()
    with pytest.raises(ValueError, match="LPIPS needs a folder with alexnet"):
        LPIPS(folder)
