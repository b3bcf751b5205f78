"""What a run takes, before it starts and without data or weights: parameters, memory, arithmetic, time.

Weights, gradients, moments and averages are counted tensor by tensor, as they will be cut. Activations and arithmetic
are read off the network itself, which runs once forward and backward on tensors without memory, as it will in training.
Sizes are bytes, of each GPU if not told otherwise; GB are 1e9 of them. A card sold with 80 GB has 84 or 85: what is
over serves CUDA, and memory that is free but in pieces.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from xwam.core.streams import NoiseLevels, Streams
from xwam.model.config import TransformerConfig
from xwam.model.text import SmallTextEncoderConfig
from xwam.model.tokens import Layout, rotations
from xwam.model.transformer import WorldActionTransformer
from xwam.model.wan import UMT5TextEncoder
from xwam.train import parallel
from xwam.train.optimizers import OPTIMIZERS
from xwam.train.runs import ModelRun
from xwam.wam import WorldActionModel

MACHINE_GPUS = 8  # that share one copy of the weights if `train.shards` does not say
ADDED = {"depth_": "depth branch", "action_": "actions and states", "proprio_": "actions and states"}
ADDED |= {"view_": "actions and states"}


class Traced(NamedTuple):
    """Of one forward and backward: bytes at their most, beside weights and gradients, and floating-point operations."""

    bytes: int
    flops: int


@dataclass(frozen=True)
class Plan:
    """What a run takes on so many GPUs, of which `shards` share one copy of the weights.

    `samples` is how many a GPU computes at once. `device` and `host` are bytes by part, of a GPU and of the host's
    memory for each GPU; `flops` and `tokens` are those of a step of all GPUs, where what is computed twice counts twice.
    """

    run: ModelRun
    gpus: int
    shards: int
    samples: int
    parameters: dict[str, int]
    trained: int
    device: dict[str, int]
    host: dict[str, int]
    flops: float
    tokens: int

    @property
    def bytes(self) -> int:
        return sum(self.device.values())

    def step_seconds(self, flops_per_second: float) -> float:
        """At so many floating-point operations a second on each GPU."""
        return self.flops / (self.gpus * flops_per_second)


def plan(run: ModelRun, gpus: int = 1) -> Plan:
    """The plan of a run on so many GPUs; raises if they cannot share its batch."""
    config, (model, parameters) = run.train, _built(run)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    shards = parallel.columns(config.parallel, config.shards, trained, gpus, min(gpus, MACHINE_GPUS))
    samples, rest = divmod(run.batch_size, gpus * config.accumulate)
    if rest:
        parts = f"{gpus} GPUs in {config.accumulate} parts each"
        raise ValueError(f"batch_size {run.batch_size} cannot be shared by {parts}: change train.accumulate")
    layout = _layout(run, model)
    traced = _traced(run.model.transformer, layout, samples, config.precision, config.checkpoint_blocks, gpus > 1)
    kept = _kept(model, run, shards)
    offloaded = {"moments"} & {"moments" if config.optimizer == "adamw_offload" else ""}
    offloaded |= {"averages"} if config.ema_on_host else set()
    device = {name: 0 if name in offloaded else size for name, size in kept.items()}
    return Plan(
        run=run,
        gpus=gpus,
        shards=shards,
        samples=samples,
        parameters=parameters,
        trained=trained,
        device=device | {"gathered blocks": _gathered(model, run) if gpus > 1 else 0, "activations": traced.bytes},
        host={name: kept[name] for name in sorted(offloaded)}
        | {"checkpoint being written": sum(kept.values()) - kept["gradients"]},
        flops=traced.flops * run.batch_size / samples,
        tokens=run.batch_size * sum(layout.lengths),
    )


@lru_cache
def _built(run: ModelRun) -> tuple[WorldActionModel, dict[str, int]]:
    """The model that is trained, without memory, and parameters by part, those of the text encoder too."""
    small = isinstance(run.model.text, SmallTextEncoderConfig)
    with torch.device("meta"):
        model = WorldActionModel(run.model, text_encoder=None if small else nn.Module())
        text = model.text_encoder if small else UMT5TextEncoder(run.model.text)
    parts = dict.fromkeys(["trunk", *ADDED.values()], 0)
    for name, parameter in model.transformer.named_parameters():
        parts[next((part for start, part in ADDED.items() if name.startswith(start)), "trunk")] += parameter.numel()
    for name, module in (("autoencoder", model.autoencoder), ("text encoder", text)):
        parts[name] = sum(p.numel() for p in module.parameters())
    return model, parts


def _layout(run: ModelRun, model: WorldActionModel) -> Layout:
    """How many tokens a sample has."""
    config, network = run.model, run.model.transformer
    rows, columns = (
        side // model.autoencoder.spatial_stride // patch
        for side, patch in zip(config.image_size, network.patch[1:], strict=True)
    )
    views = len(config.embodiment.cameras)
    return Layout(config.latent_frames, views, rows, columns, config.actions, config.frames)


def _kept(model: nn.Module, run: ModelRun, shards: int) -> dict[str, int]:
    """Bytes that stay from step to step, by part."""
    inside = {p for block in parallel.blocks_of(model) for p in block.parameters()}
    weights = gradients = moments = averages = 0
    with FakeTensorMode():
        for x in (*model.parameters(), *model.buffers()):
            cut = x.requires_grad or x in inside
            part = torch.empty(_cut(x.shape, shards) if cut else x.shape, dtype=x.dtype)
            weights += part.nbytes
            if x.requires_grad:
                gradients += part.nbytes
                moments += _nbytes(OPTIMIZERS[run.train.optimizer].new_state(part).values())
                averages += part.nbytes if run.train.ema_decay else 0
    return {"weights": weights, "gradients": gradients, "moments": moments, "averages": averages}


def _cut(shape: tuple[int, ...], shards: int) -> tuple[int, ...]:
    """What the rank with most has of a tensor, which is cut along its first axis."""
    return (-(-shape[0] // shards), *shape[1:]) if shape else ()


def _gathered(model: nn.Module, run: ModelRun) -> int:
    """Whole weights that many ranks gather: of two blocks, one of them with gradients, and of all outside of blocks."""
    low = 2 if run.train.precision == "bf16" else 4
    blocks = [sum(p.numel() for p in block.parameters()) for block in parallel.blocks_of(model)]
    outside = sum(p.numel() for p in model.parameters() if p.requires_grad) - sum(blocks)
    return max(blocks) * (2 * low + low + 4) + outside * (4 + 4)


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(x.nbytes for x in tensors)


@lru_cache
def _traced(
    network: TransformerConfig, layout: Layout, samples: int, precision: str, recompute: bool, gathered: bool
) -> Traced:
    """One forward and backward of the network on so many samples. Gathered blocks are in `precision` already."""
    cpu, low = torch.device("cpu"), precision == "bf16"
    rotations(layout, network.actions_per_frame, network.head_width, cpu)  # kept for good, so made of real numbers
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = WorldActionTransformer(network)
        if gathered and low:
            model.blocks.bfloat16(), model.depth_blocks.bfloat16()
        parallel.prepare_blocks(model, recompute, compile=False)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)  # as from the second part of a batch on
        inputs = _inputs(network, layout, samples)
        with Tracer(x for p in model.parameters() for x in (p, p.grad)) as tracer:
            with torch.autocast("cpu", torch.bfloat16, low, cache_enabled=not recompute):
                streams = model(*inputs, with_depth=network.depth_blocks > 0)
                loss = sum(x.float().square().mean() for x in vars(streams).values() if x is not None)
            del streams
            loss.backward()
    return Traced(tracer.peak, tracer.flops)


def _inputs(network: TransformerConfig, layout: Layout, samples: int) -> tuple[Streams, NoiseLevels, Tensor]:
    _, height, width = network.patch
    size = (layout.frames, layout.views, layout.rows * height, layout.columns * width)
    streams = Streams(
        video=torch.zeros(samples, network.latent_channels, *size),
        action=torch.zeros(samples, layout.actions, network.action_width),
        proprio=torch.zeros(samples, layout.proprios, network.proprio_width),
    )
    sigma = torch.zeros(samples)
    levels = NoiseLevels.of_streams(sigma, sigma, layout.frames, layout.actions, layout.proprios)
    return streams, levels, torch.zeros(samples, network.text_tokens, network.text_width)


# What PyTorch counts on a GPU, of the kernel that stands in for it here.
CPU_ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": lambda q, k, v, *rest: sdpa_flop_count(q.shape, k.shape, v.shape),
    "_scaled_dot_product_flash_attention_for_cpu_backward": lambda grad, q, k, v, *rest: sdpa_backward_flop_count(
        grad.shape, q.shape, k.shape, v.shape
    ),
}


class Tracer(TorchDispatchMode):
    """Counts operations, and bytes of the tensors that are made, as long as they live; `known` ones are not counted."""

    def __init__(self, known: Iterable[Tensor] = ()):
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._alive: dict[int, Any] = {x.untyped_storage()._cdata: None for x in known}

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        out = function(*arguments, **(named or {}))
        name = function.overloadpacket
        if name in flop_registry:
            self.flops += flop_registry[name](*arguments, **(named or {}), out_val=out)
        elif name.__name__ in CPU_ATTENTION:
            self.flops += CPU_ATTENTION[name.__name__](*arguments)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._count(x.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, partial(self._free, key, storage.nbytes()))
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int, _: Any) -> None:
        del self._alive[key]
        self.now -= size


def changes(plan_now: Plan, limit: float) -> list[tuple[str, Plan]]:
    """What would make the run take less of each GPU, as options of `xwam train`, each with the plan that it leads to.

    The last is the least of them that fit into `limit` bytes together, if any do.
    """
    train, found, together = plan_now.run.train, [], {}
    parts = plan_now.run.batch_size // plan_now.gpus
    wanted: list[dict[str, Any]] = [
        {} if train.checkpoint_blocks else {"checkpoint_blocks": True},
        {} if train.accumulate >= parts else {"accumulate": parts},
        {"ema_on_host": True} if train.ema_decay and not train.ema_on_host else {},
        {"optimizer": "adamw8bit"} if train.optimizer == "adamw" else {},
        {} if train.optimizer == "adamw_offload" else {"optimizer": "adamw_offload"},
    ]
    for change in filter(None, wanted):
        found.append(_changed(plan_now, change, plan_now.gpus))
        together |= change
        both = _changed(plan_now, together, plan_now.gpus)
        if len(together) > 1 and both[1].bytes <= limit:
            return [*found, both]
    gpus = max(2, 2 * plan_now.gpus)
    while gpus <= plan_now.run.batch_size and plan_now.run.batch_size % (gpus * train.accumulate) == 0:
        found.append(_changed(plan_now, {"shards": gpus}, gpus))
        if found[-1][1].bytes <= limit:
            break
        gpus *= 2
    return found


def _changed(before: Plan, change: dict[str, Any], gpus: int) -> tuple[str, Plan]:
    train = before.run.train.model_copy(update=change)
    options = [f"--gpus {gpus}"] if gpus != before.gpus else []
    options += [f"--set train.{name}={str(value).lower()}" for name, value in change.items()]
    return " ".join(options), plan(before.run.model_copy(update={"train": train}), gpus)
