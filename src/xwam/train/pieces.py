"""Tensors in safetensors files: whole in one, or in pieces, a file a rank.

A file `model.safetensors` holds whole tensors. Where ranks share them, `model-00000.safetensors` holds rank 0's pieces,
`model-00001.safetensors` those of rank 1, and so on; its metadata says where in the whole tensor each piece begins and
what shape the whole has. Any number of ranks reads what any other number wrote: each the parts it needs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from xwam.train import parallel

ABOUT = "pieces"


class Piece(NamedTuple):
    """A box of a tensor: its values, where it starts, and the shape of the whole."""

    values: Tensor
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """This rank's part, in the same memory."""
        x = x.detach()
        if not isinstance(x, DTensor):
            return cls(x, (0,) * x.ndim, tuple(x.shape))
        _, start = compute_local_shape_and_global_offset(x.shape, x.device_mesh, x.placements)
        return cls(x.to_local(), tuple(start), tuple(x.shape))

    @property
    def complete(self) -> bool:
        return tuple(self.values.shape) == self.shape


def own_pieces(tensors: Mapping[str, Tensor]) -> dict[str, Piece]:
    """What this rank writes, copied to the CPU: of what several ranks hold, the first of them writes it."""
    pieces = {name: Piece.of(x) for name, x in tensors.items() if _is_first(x)}
    copies = {name: piece.values.to("cpu", copy=True).contiguous() for name, piece in pieces.items()}
    return {name: piece._replace(values=copies[name]) for name, piece in pieces.items() if piece.values.numel()}


def write(path: Path, pieces: Mapping[str, Piece]) -> Path:
    """Writes the file of `path`; if ranks share the tensors, this rank's part of it."""
    about = None
    if parallel.rank() > 0 or not all(piece.complete for piece in pieces.values()):
        path = path.with_name(f"{path.stem}-{parallel.rank():05d}{path.suffix}")
        about = {ABOUT: json.dumps({name: [piece.start, piece.shape] for name, piece in pieces.items()})}
    save_file({name: piece.values for name, piece in pieces.items()}, path, metadata=about)
    return path


def files_of(path: Path) -> list[Path]:
    """The file `path`, or those that hold its pieces: this rank's and rank 0's first, which most likely suffice."""
    if path.exists():
        return [path]
    files = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))
    if not files:
        raise ValueError(f"no file {path}: name a file like RUN/checkpoints/step_00001000/ema.safetensors")
    return list(dict.fromkeys([files[parallel.rank() % len(files)], *files]))


def names_in(path: Path) -> set[str]:
    """Names of the tensors that rank 0 wrote, of which those that are not sharded are all."""
    with _open(min(files_of(path))) as file:
        return set(file.keys())


def read_into(path: Path, tensors: Mapping[str, Tensor], beside: tuple[str, ...] = ()) -> None:
    """Fills `tensors`, sharded or not, in place; raises unless names and shapes are those of the files.

    The files may hold more whose names begin with one of `beside`.
    """
    read_files_into(files_of(path), tensors, lambda name: None if name.startswith(beside) else name)


@torch.no_grad()
def read_files_into(
    files: Sequence[Path], tensors: Mapping[str, Tensor], own_name: Callable[[str], str | None]
) -> None:
    """`read_into` from files whose tensors have other names; those without a name of our own are passed over."""
    wanted = {name: Piece.of(x) for name, x in tensors.items()}
    missing = {name: piece.values.numel() for name, piece in wanted.items()}
    unknown, misshapen = [], {}
    for path in files:
        with _open(path) as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            for stored in file.keys():
                size, name = tuple(file.get_slice(stored).get_shape()), own_name(stored)
                start, shape = about.get(stored, ((0,) * len(size), size))
                if name not in wanted:
                    unknown += [] if name is None else [name]
                elif wanted[name].shape != tuple(shape):
                    misshapen[name] = f"{name} ({tuple(shape)} in the file, {wanted[name].shape} in the model)"
                else:
                    missing[name] -= _copy(wanted[name], file, stored, start, size)
        if not any(missing.values()):
            break
    absent = [name for name, count in missing.items() if count and name not in misshapen]
    _raise_faults(files[0], absent, unknown, [misshapen[name] for name in wanted if name in misshapen])


@torch.no_grad()
def put(values: Tensor, into: Tensor) -> None:
    """Copies a whole tensor into one of its shape that may be sharded."""
    piece = Piece.of(into)
    box = [slice(first, first + size) for first, size in zip(piece.start, piece.values.shape, strict=True)]
    piece.values.copy_(values[*box])


def _copy(into: Piece, file: safe_open, name: str, start: Sequence[int], size: Sequence[int]) -> int:
    """Copies what a tensor's wanted and stored boxes share; returns how many entries that is."""
    to, of = [], []
    for a, wanted, b, stored in zip(into.start, into.values.shape, start, size, strict=True):
        first, end = max(a, b), min(a + wanted, b + stored)
        if first >= end:
            return 0
        to.append(slice(first - a, end - a))
        of.append(slice(first - b, end - b))
    values = file.get_slice(name)[*of] if of else file.get_tensor(name)
    into.values[*to].copy_(values)
    return values.numel()


def _is_first(x: Tensor) -> bool:
    """Whether no rank before this one holds the same part."""
    if not isinstance(x, DTensor):
        return parallel.rank() == 0
    place = zip(x.device_mesh.get_coordinate(), x.placements, strict=True)
    return all(coordinate == 0 for coordinate, placement in place if placement.is_replicate())


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): delete its folder to go on from the one before") from error


def _raise_faults(path: Path, absent: list[str], unknown: list[str], misshapen: list[str]) -> None:
    """One line a kind of fault, each with the first few names."""
    faults = {"missing from the file": absent, "unknown to the model": unknown, "of another shape": misshapen}
    lines = [
        f"{len(names)} {fault}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for fault, names in faults.items()
        if names
    ]
    if lines:
        raise ValueError(
            f"{path} does not fit this model:\n  " + "\n  ".join(lines) + "\n"
            "It looks like a checkpoint of another model: build the model from the config.json that belongs to it."
        )
