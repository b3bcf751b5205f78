"""Many processes that train one model: ranks, one for each GPU, as `torchrun` starts them; one rank without it.

Weights are sharded block by block (FSDP2), always in the same way: the ranks stand in a grid,

                     shard ->
    replicate    rank 0   rank 1      each row holds one copy of the weights, moments and averages, cut into pieces;
        |        rank 2   rank 3      gradients are summed along both

With one column every rank holds a whole copy (data parallel), with one row there is one copy in all. Whatever the grid,
a step computes what one rank would on the whole batch.
"""

import atexit
import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

# Above this, a copy of weights, gradients, moments and averages would take more than about 10 GB of every GPU.
SHARDED_FROM_PARAMETERS = 500_000_000


def rank() -> int:
    """Which of the ranks this process is, from 0."""
    return int(os.environ.get("RANK", 0))


def ranks() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def device_of(name: str) -> torch.device:
    """This rank's device; "auto" is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and ranks() > 1:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


def start() -> None:
    """Joins the other ranks, once; what is summed on the CPU goes through gloo, what lies on GPUs through NCCL."""
    if ranks() > 1 and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)


def wait_for_all() -> None:
    """Returns once every rank has called it."""
    summed(torch.zeros(1))


def summed(values: Tensor) -> Tensor:
    """The sum of all ranks' `values`, which lie on the CPU."""
    if ranks() > 1:
        start()
        distributed.all_reduce(values)
    return values


def places(count: int) -> range:
    """Where this rank's `count` samples are in the batch of all ranks: after those of the ranks before it."""
    counts = torch.zeros(ranks(), dtype=torch.int64)
    counts[rank()] = count
    start = int(summed(counts)[: rank()].sum())
    return range(start, start + count)


def local(x: Tensor) -> Tensor:
    """This rank's part of a tensor, in the same memory; all of it where it is not sharded."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> Tensor:
    """All of a tensor; every rank must ask for it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The entries of the outermost module lists that hold trained weights: what is gathered and freed as one."""
    found, inside = [], set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and module not in inside:
            inside.update(module.modules())
            found += [block for block in module if any(p.requires_grad for p in block.parameters())]
    return found


def prepare_blocks(model: nn.Module, recompute: bool, compile: bool) -> None:
    """Blocks that keep only their inputs and compute the rest anew when gradients flow back; and compiled ones.

    Names of parameters stay as they are.
    """
    for block in blocks_of(model):
        if recompute:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        if compile:
            block.forward = torch.compile(block.forward)


def columns(
    mode: Literal["auto", "none", "ddp", "fsdp"],
    shards: int | None,
    parameters: int,
    count: int | None = None,
    machine: int | None = None,
) -> int:
    """Ranks that share one copy of this many trained parameters; raises if `shards` does not fit the ranks.

    There are `count` ranks, of which `machine` on each machine; those of this process if not given.
    """
    count = ranks() if count is None else count
    if mode == "none" and count > 1:
        raise ValueError(f"parallel is none and there are {count} ranks: start one process, or set parallel=auto")
    if mode == "ddp" or count == 1 or (mode == "auto" and parameters < SHARDED_FROM_PARAMETERS):
        return 1
    shards = shards or machine or int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if count % shards:
        raise ValueError(f"{shards} shards do not fit {count} ranks: choose a divisor")
    return shards


def unallocated(from_files: bool) -> AbstractContextManager:
    """Where a model is built that `shard` will cut, so that its weights never lie whole on every rank's host.

    Those of rank 0 are made there, for all; if they are to be read from files, not there either. What is built on the
    meta device has no memory until a rank gets its part.
    """
    return torch.device("meta") if from_files or rank() > 0 else nullcontext()


def shard(
    model: nn.Module,
    device: torch.device,
    shards: int,
    precision: Literal["bf16", "fp32"],
    methods: Sequence[str] = ("loss",),
) -> None:
    """Moves `model` to the device, and shards it if there are other ranks; all begin with the weights of rank 0.

    A model on the meta device gets its memory block by block, a whole block at a time.

    Blocks are gathered in `precision` and their gradients summed in float32; the weights themselves, and all that is
    outside of blocks, stay float32. Frozen weights outside of blocks are not sharded. `methods` are what may be called.
    """
    if ranks() == 1:
        _allocated(model, device)
        return
    start()
    grid = init_device_mesh(device.type, (ranks() // shards, shards), mesh_dim_names=("replicate", "shard"))
    shard_over(grid["shard"] if shards == ranks() else grid, model, device, precision, methods)


def shard_over(
    mesh: DeviceMesh, model: nn.Module, device: torch.device, precision: Literal["bf16", "fp32"], methods: Sequence[str]
) -> None:
    """`shard` over these ranks, which may be a single one."""
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing writes into it
    low = torch.bfloat16 if precision == "bf16" else None
    for block in blocks_of(model):
        _begin_alike(_allocated(block, device))
        policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    _begin_alike(_allocated(model, device))
    frozen = {p for p in model.parameters() if not p.requires_grad}
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    # Freed after every call, as the blocks are: whoever changes weights in between finds no old copy in use.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True, ignored_params=frozen)
    for method in methods:
        register_fsdp_forward_method(model, method)


def sum_between_copies(model: nn.Module, now: bool) -> None:
    """Whether the next backward sums gradients between the copies of the weights: only the last one of a step must."""
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(now)


def _allocated(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on the device; what had no memory has some there, of any content."""
    for part in module.modules():
        if any(x.is_meta for x in (*part.parameters(recurse=False), *part.buffers(recurse=False))):
            part.to_empty(device=device, recurse=False)
    return module.to(device)


def _begin_alike(module: nn.Module) -> None:
    for x in _plain([*module.parameters(), *module.buffers()]):
        x.data = x.data.contiguous()  # convolution weights may be channels-last, which cannot be sharded
        distributed.broadcast(x.data, src=0)


def _plain(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [x for x in tensors if not isinstance(x, DTensor)]
