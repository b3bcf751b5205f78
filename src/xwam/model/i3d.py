"""I3D (Carreira & Zisserman 2017, arXiv 1705.07750), whose logits are the features of FVD (arXiv 1812.01717).

Nothing is downloaded. The file is that of pytorch-i3d, trained on RGB of Kinetics-400: rgb_imagenet.pt, a plain table
of tensors, under the names that its modules have here.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

CLASSES, SIDE, LEAST_FRAMES = 400, 224, 9
FILMS_AT_ONCE = 8
# Channels of an inception module: alone, before and after 3 x 3 x 3 twice, after pooling.
MODULES = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": (3, 2),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": (2, 2),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


class I3D:
    """Films to features, one vector a film."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise ValueError(f"{path} does not exist: FVD needs rgb_imagenet.pt of pytorch-i3d")
        network, weights = Network(), torch.load(path, map_location="cpu", weights_only=True)
        # older files do not count batches, which nothing here asks for
        missing, unknown = network.load_state_dict(weights, strict=False)
        if wrong := [name for name in (*missing, *unknown) if not name.endswith("num_batches_tracked")]:
            raise ValueError(f"{path} is no I3D of {CLASSES} classes, for example {wrong[0]!r}: take rgb_imagenet.pt")
        self._network = network.eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, films: UInt8[np.ndarray, "N T H W 3"]) -> Float[np.ndarray, "N 400"]:
        """Logits, a mean over time, of films at 224 x 224; raises ValueError if they have fewer than 9 frames."""
        if films.shape[1] < LEAST_FRAMES:
            raise ValueError(f"films of {films.shape[1]} frames: FVD needs {LEAST_FRAMES} or more")
        parts = [films[k : k + FILMS_AT_ONCE] for k in range(0, len(films), FILMS_AT_ONCE)]
        return np.concatenate([self._network(_resized(part)).numpy() for part in parts])


def _resized(films: UInt8[np.ndarray, "N T H W 3"]) -> Float[Tensor, "N 3 T 224 224"]:
    x = torch.from_numpy(films).flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return x.unflatten(0, films.shape[:2]).transpose(1, 2)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        for name, sizes in MODULES.items():
            self.add_module(name, MaxPool(*((n,) * 3 for n in sizes)) if "Pool" in name else Inception(*sizes))
        self.logits = Unit(1024, CLASSES, 1, plain=True)

    def forward(self, video: Float[Tensor, "N 3 T 224 224"]) -> Float[Tensor, "N 400"]:
        for name, part in self.named_children():
            video = part(F.avg_pool3d(video, (2, 7, 7), stride=1) if name == "logits" else video)
        return video.mean((2, 3, 4))


class Inception(nn.Module):
    def __init__(self, inside: int, alone: int, before: int, after: int, before2: int, after2: int, pooled: int):
        super().__init__()
        self.b0 = Unit(inside, alone, 1)
        self.b1a, self.b1b = Unit(inside, before, 1), Unit(before, after, 3)
        self.b2a, self.b2b = Unit(inside, before2, 1), Unit(before2, after2, 3)
        self.b3a, self.b3b = MaxPool((3, 3, 3), (1, 1, 1)), Unit(inside, pooled, 1)

    def forward(self, x: Float[Tensor, "N c T H W"]) -> Float[Tensor, "N d T H W"]:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class Unit(nn.Module):
    """Convolution, batch norm and ReLU; `plain`: convolution with a bias alone."""

    def __init__(self, inside: int, outside: int, side: int, stride: int = 1, plain: bool = False):
        super().__init__()
        self.conv3d = nn.Conv3d(inside, outside, side, stride, bias=plain)
        self.bn = None if plain else nn.BatchNorm3d(outside, eps=0.001)

    def forward(self, x: Float[Tensor, "N c T H W"]) -> Float[Tensor, "N d T H W"]:
        x = self.conv3d(padded(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class MaxPool(nn.MaxPool3d):
    def forward(self, x: Float[Tensor, "N c T H W"]) -> Float[Tensor, "N c t h w"]:
        return super().forward(padded(x, self.kernel_size, self.stride))


def padded(
    x: Float[Tensor, "N c T H W"], kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> Float[Tensor, "N c t h w"]:
    """Zeros around, more behind than before, so that ceil(size / stride) places come out, as TensorFlow has it."""
    pads = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        pad = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [pad // 2, pad - pad // 2, *pads]
    return F.pad(x, pads)
