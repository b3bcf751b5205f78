"""Shards: safetensors files that many workers write, each whole, checked, and stale when what it is made from changes.

The same tensors under the same fingerprint give the same bytes, whoever writes them and however often.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from math import prod
from pathlib import Path
from platform import node
from typing import Literal, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from xwam.core.files import write_atomically
from xwam.data.claims import ABANDONED_S, alive, claimed, remove_abandoned

# All that is said about a shard is one text: of several, safetensors changes the order from run to run.
ABOUT = "xwam"
CLAIMS = "claims"
DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}

# done: it was there; made: by this call; claimed: another worker is at it
Outcome = Literal["done", "made", "claimed"]


class ShardError(ValueError):
    """A shard that is missing, damaged, or no shard of ours."""


class _Place(NamedTuple):
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    row_bytes: int


class Shard:
    """An open shard, whose rows are read one by one: nothing else of the file enters memory. For any thread."""

    def __init__(self, path: Path):
        self.path = path
        try:
            # never buffered: every read says where
            self._file = open(path, "rb", buffering=0)
        except FileNotFoundError:
            raise ShardError(f"{path} does not exist: encode the dataset") from None
        try:
            header_bytes = int.from_bytes(self._file.read(8), "little")
            size = os.fstat(self._file.fileno()).st_size
            if not 0 < header_bytes <= size:
                raise ValueError(f"a header of {header_bytes} bytes in a file of {size}")
            header = json.loads(self._file.read(header_bytes))
            self.about: dict = json.loads(header.pop("__metadata__")[ABOUT])
            self._places = {name: _place(entry, 8 + header_bytes) for name, entry in header.items()}
            ends = [place.offset + place.row_bytes * place.shape[0] for place in self._places.values()]
            if max(ends, default=0) != size:
                raise ValueError(f"{size} bytes instead of {max(ends, default=0)}")
        except (ValueError, KeyError, TypeError) as error:
            self._file.close()
            raise ShardError(f"{path} is damaged ({error}): encode the dataset again") from error

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str, first: int | None = None, count: int = 1) -> Tensor:
        """`count` entries of a tensor along its first axis, from `first` on; the whole tensor without it."""
        place = self._places[name]
        first, count = (0, place.shape[0]) if first is None else (first, count)
        if first < 0 or first + count > place.shape[0]:
            raise IndexError(f"entries {first} to {first + count} of {name} in {self.path}: it has {place.shape[0]}")
        read = torch.empty(count, *place.shape[1:], dtype=place.dtype)
        self._fill(_bytes(read), place.offset + first * place.row_bytes)
        return read

    def _fill(self, view: memoryview, offset: int) -> None:
        while view:
            got = os.preadv(self._file.fileno(), [view], offset)
            if not got:
                raise ShardError(f"{self.path} became shorter: encode the dataset again")
            view, offset = view[got:], offset + got

    def intact(self) -> bool:
        """Whether all is as it was written; reads the whole file."""
        try:
            return _digest((name, self.read(name)) for name in sorted(self._places)) == self.about["sha256"]
        except (ShardError, KeyError):
            return False


def gather(shards: Sequence[Shard], entries: Sequence[int], name: str, dtype: torch.dtype) -> Tensor:
    """An entry of a tensor from each of some shards, converted: (n, ...); 0 where a shard lacks the tensor."""
    like = next(shard for shard in shards if name in shard)._places[name]
    gathered = torch.zeros(len(shards), *like.shape[1:], dtype=dtype)
    entry_read = torch.empty(like.shape[1:], dtype=like.dtype)  # stays in the processor's cache, unlike all of them
    view = _bytes(entry_read)
    for target, shard, entry in zip(gathered, shards, entries, strict=True):
        if name in shard:
            place = shard._places[name]
            assert (place.dtype, place.shape[1:]) == (like.dtype, like.shape[1:]) and 0 <= entry < place.shape[0]
            shard._fill(view, place.offset + entry * place.row_bytes)
            target.copy_(entry_read)
    return gathered


def write_shard(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Writes tensors, each of at least one axis, and what is said about them; reads them back before they appear."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({**about, "sha256": _digest(sorted(stored.items()))}, sort_keys=True)

    def write(file: Path) -> None:
        save_file(stored, file, metadata={ABOUT: text})
        with open(file, "rb") as written:
            os.fsync(written.fileno())
        if not Shard(file).intact():
            raise OSError(f"{path} reads otherwise than it was written: check the disk")

    write_atomically(path, write)


def stored_fingerprint(path: Path) -> str | None:
    """Of a shard whose size is right, else None."""
    try:
        return Shard(path).about.get("fingerprint")
    except ShardError:
        return None


def make_shard(
    path: Path,
    fingerprint: Callable[[], str],
    make: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, object]]],
    verify: bool = False,
) -> Outcome:
    """Makes the shard's tensors and what is said about them, unless it is there or another worker makes it.

    With `verify` a shard is only there if every byte is as it was written.
    """

    def done() -> bool:
        return is_there(path, fingerprint) and (not verify or Shard(path).intact())

    if done():
        return "done"
    with claimed(path.parent / CLAIMS / path.stem) as mine:
        if not mine:
            return "claimed"
        if done():  # by another worker, just before
            return "done"
        known = fingerprint()
        tensors, about = make()
        write_shard(path, tensors, {**about, "fingerprint": known})
        return "made"


def is_there(path: Path, fingerprint: Callable[[], str]) -> bool:
    """Whether the shard was made from what it would be made from now."""
    return path.exists() and stored_fingerprint(path) == fingerprint()


def remove_leftovers(folder: Path) -> None:
    """Removes what killed workers had begun to write (`write_atomically`), and their claims."""
    remove_abandoned(folder / CLAIMS)
    for part in folder.rglob(".*"):
        head, _, pid = part.name.rpartition(".")
        try:
            old = time.time() - part.stat().st_mtime > ABANDONED_S
        except FileNotFoundError:
            continue  # its writer has just finished it
        if old or (head.endswith(f".{node()}") and pid.isdecimal() and not alive(int(pid))):
            part.unlink(missing_ok=True)


def _place(entry: dict, data_offset: int) -> _Place:
    (first, last), shape, dtype = entry["data_offsets"], tuple(entry["shape"]), DTYPES[entry["dtype"]]
    row_bytes = dtype.itemsize * prod(shape[1:])
    if last - first != shape[0] * row_bytes:
        raise ValueError(f"{last - first} bytes for {entry['dtype']} of shape {shape}")
    return _Place(dtype, shape, data_offset + first, row_bytes)


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
