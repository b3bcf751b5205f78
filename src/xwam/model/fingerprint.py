"""Which weights a network has, in a word."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn


def fingerprint(module: nn.Module) -> str:
    """Differs as soon as any weight, the precision of any, or the `config` of the network does."""
    digest = sha256(f"{type(module).__name__} {module.config.model_dump_json()}".encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(_bytes_of(name, tensor))
    return digest.hexdigest()


def fingerprint_of_files(paths: Iterable[Path]) -> str:
    """Of the tensors in safetensors files, however they are spread over them; a tensor is in memory at a time.

    Raises ValueError if a file is missing or damaged.
    """
    digests = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                digests |= {name: sha256(_bytes_of(name, file.get_tensor(name))).digest() for name in file.keys()}
        except (SafetensorError, FileNotFoundError) as error:
            raise ValueError(f"{path} cannot be read: {error}; export or copy it again") from error
    return sha256(b"".join(digest for _, digest in sorted(digests.items()))).hexdigest()


def _bytes_of(name: str, tensor: Tensor) -> bytes:
    about = f"{name} {tensor.dtype} {list(tensor.shape)};".encode()
    return about + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
