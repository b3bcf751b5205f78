"""LPIPS: how different two images look to AlexNet (Zhang et al. 2018, arXiv 1801.03924, version 0.1).

Nothing is downloaded. A folder holds the two files that the authors' package reads, under their names:
    alexnet-owt-7be5be79.pth    AlexNet as torchvision publishes it
    alex.pth                    the weights of its channels, from the package's weights/v0.1
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

ALEXNET, CHANNELS = "alexnet-owt-7be5be79.pth", "alex.pth"
# torchvision's number of each convolution, its stride and padding, and whether pooling comes before it
CONVOLUTIONS = ((0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False), (10, 1, 1, False))
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
SMALL = 1e-10


class LPIPS:
    """A distance of images: 0 for equal ones, about 0.5 for unlike ones."""

    def __init__(self, folder: Path):
        alexnet, channels = (_read(folder / name) for name in (ALEXNET, CHANNELS))
        try:
            self._filters = [(alexnet[f"features.{n}.weight"], alexnet[f"features.{n}.bias"]) for n, *_ in CONVOLUTIONS]
            self._weights = [channels[f"lin{k}.model.1.weight"] for k in range(len(CONVOLUTIONS))]
        except KeyError as error:
            raise ValueError(
                f"{folder} holds no {error}: take {ALEXNET} and {CHANNELS} as they are published"
            ) from error

    @torch.inference_mode()
    def __call__(
        self, one: UInt8[np.ndarray, "N H W 3"], other: UInt8[np.ndarray, "N H W 3"]
    ) -> Float[np.ndarray, " N"]:
        """Of each pair: summed over layers, weighted squared differences of unit features, a mean over places."""
        layers = zip(self._features(one), self._features(other), self._weights, strict=True)
        distances = [(weight * (a - b).square()).sum(1).mean((-1, -2)) for a, b, weight in layers]
        return torch.stack(distances).sum(0).numpy()

    def _features(self, images: UInt8[np.ndarray, "N H W 3"]) -> list[Float[Tensor, "N c h w"]]:
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1 - mean) / std
        found = []
        for (weight, bias), (_, stride, padding, pooled) in zip(self._filters, CONVOLUTIONS, strict=True):
            x = F.relu(F.conv2d(F.max_pool2d(x, 3, 2) if pooled else x, weight, bias, stride, padding))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + SMALL))
        return found


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: LPIPS needs a folder with {ALEXNET} and {CHANNELS}")
    return torch.load(path, map_location="cpu", weights_only=True)
