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
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from xwam.core.streams import NoiseLevels, Streams
from xwam.model.config import TransformerConfig
from xwam.model.depth_stream import network_of
from xwam.model.lora import LoraConfig, add_lora
from xwam.model.text import SmallTextEncoderConfig
from xwam.model.tokens import Layout, rotations
from xwam.model.transformer import WorldActionTransformer
from xwam.model.wan import UMT5TextEncoder
from xwam.saved import ModelConfig
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
    memory for each GPU; `flops` and `tokens` are those of a step of all GPUs, and what is computed twice counts twice.
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
    config, (model, parameters) = run.train, _built(run.model, run.lora, _low(run))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    shards = parallel.columns(config.parallel, config.shards, trained, gpus, min(gpus, MACHINE_GPUS))
    samples, rest = divmod(run.batch_size, gpus * config.accumulate)
    if rest:
        parts = f"{gpus} GPUs in {config.accumulate} parts each"
        raise ValueError(f"batch_size {run.batch_size} cannot be shared by {parts}: change train.accumulate")
    layout = _layout(run, model)
    way = Way(_low(run), config.checkpoint_blocks, gpus > 1, run.lora)
    traced = traced_by_few(run.model.transformer, layout, samples, way)
    kept = _kept(model, run, shards)
    places = {"moments": config.optimizer == "adamw_offload", "averages": config.ema_on_host and config.ema_decay > 0}
    offloaded = [name for name, on_host in places.items() if on_host]
    device = {name: 0 if name in offloaded else size for name, size in kept.items()}
    return Plan(
        run=run,
        gpus=gpus,
        shards=shards,
        samples=samples,
        parameters=parameters,
        trained=trained,
        device=device | {"gathered blocks": _gathered(model, run) if gpus > 1 else 0, "activations": traced.bytes},
        host={name: kept[name] for name in offloaded} | {"checkpoint being written": _written(kept, run)},
        flops=traced.flops * run.batch_size / samples,
        tokens=run.batch_size * sum(layout.lengths),
    )


def _written(kept: dict[str, int], run: ModelRun) -> int:
    """What a checkpoint copies to the host: weights, all of them again with the averages, and moments."""
    weights = kept["weights"] if run.lora is None else kept["gradients"]  # a frozen base is not written
    return weights * (2 if run.train.ema_decay else 1) + kept["moments"]


@lru_cache
def _built(config: ModelConfig, lora: LoraConfig | None, low: bool) -> tuple[WorldActionModel, dict[str, int]]:
    """The model that is trained, without memory, and parameters by part, those of the text encoder too."""
    small = isinstance(config.text, SmallTextEncoderConfig)
    with torch.device("meta"):
        model = WorldActionModel(config, text_encoder=None if small else nn.Module())
        text = model.text_encoder if small else UMT5TextEncoder(config.text)
    parts = dict.fromkeys(["trunk", *ADDED.values()], 0)
    for name, parameter in model.transformer.named_parameters():
        parts[next((part for start, part in ADDED.items() if name.startswith(start)), "trunk")] += parameter.numel()
    if lora is not None:
        add_lora(model, lora, torch.bfloat16 if low else None)
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
    views, vectors = len(config.embodiment.cameras), (config.actions, config.frames) if network.acts else (0, 0)
    return Layout(config.latent_frames, views, rows, columns, *vectors)


def _low(run: ModelRun) -> bool:
    """Whether products are in bfloat16; "auto" is taken for a GPU's."""
    return run.train.precision != "fp32"


def _kept(model: nn.Module, run: ModelRun, shards: int) -> dict[str, int]:
    """Bytes that stay from step to step, by part."""
    inside = {p for block in parallel.blocks_of(model) for p in block.parameters()}
    weights = gradients = moments = averages = 0
    with FakeTensorMode():
        for x in (*model.parameters(), *model.buffers()):
            cut = x.requires_grad or x in inside  # what is frozen outside of blocks is not
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
    low = 2 if _low(run) else 4
    blocks = [sum(p.numel() for p in block.parameters()) for block in parallel.blocks_of(model)]
    outside = sum(p.numel() for p in model.parameters() if p.requires_grad) - sum(blocks)
    return max(blocks) * (2 * low + low + 4) + outside * (4 + 4)


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(x.nbytes for x in tensors)


class Way(NamedTuple):
    """How a network is trained: with products in bfloat16, blocks computed twice, blocks gathered, adapters."""

    low: bool = True
    recompute: bool = False
    gathered: bool = False
    lora: LoraConfig | None = None


FEW = 2  # blocks from which on one more costs what the one before did: peaks are at the last ones then


@lru_cache
def traced_by_few(network: TransformerConfig, layout: Layout, samples: int, way: Way) -> Traced:
    """`traced`, of a network with as few blocks as show what a block of the trunk and a pair with its twin add."""
    pairs, alone = network.depth_blocks, network.blocks - network.depth_blocks

    def of(alone: int, pairs: int) -> Traced:
        small = network.model_copy(update={"blocks": alone + pairs, "depth_blocks": pairs})
        return traced(small, layout, samples, way)

    few_alone, few_pairs = min(alone, FEW), min(pairs, FEW)
    few, total = of(few_alone, few_pairs), []
    more_alone = of(few_alone + 1, few_pairs) if alone > few_alone else few
    more_pairs = of(few_alone, few_pairs + 1) if pairs > few_pairs else few
    for base, block, pair in zip(few, more_alone, more_pairs, strict=True):
        total.append(base + (alone - few_alone) * (block - base) + (pairs - few_pairs) * (pair - base))
    return Traced(*total)


def traced(network: TransformerConfig, layout: Layout, samples: int, way: Way) -> Traced:
    """One forward and backward of the network on so many samples; gathered blocks come as products take them."""
    with torch.device("meta"):
        model = nn.ModuleDict({"transformer": network_of(network)})
    if way.lora is not None:
        add_lora(model, way.lora, torch.bfloat16 if way.low else None)
    if way.gathered and way.low:
        for block in parallel.blocks_of(model):
            block.bfloat16()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _fake(model)
        parallel.prepare_blocks(model, way.recompute, compile=False)
        learning = [p for p in model.parameters() if p.requires_grad]
        for parameter in learning:
            parameter.grad = torch.zeros_like(parameter)  # as from the second part of a batch on
        inputs = _inputs(network, layout, samples)
        with Tracer([*model.parameters(), *(p.grad for p in learning)]) as tracer:
            _descend(model["transformer"], inputs, way)
    rotations.cache_clear()  # whose tables have no numbers now
    return Traced(tracer.peak, tracer.flops)


def _fake(model: nn.Module) -> None:
    """Parameters on the meta device become ones that claim to be on the CPU, where all kernels are known."""
    for module in model.modules():
        for name, x in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(x.shape, dtype=x.dtype), requires_grad=x.requires_grad))


def _descend(network: WorldActionTransformer, inputs: tuple[Any, ...], way: Way) -> None:
    with torch.autocast("cpu", torch.bfloat16, way.low, cache_enabled=not way.recompute):
        streams = network(*inputs, with_depth=network.config.has_depth)
        loss = sum(x.float().square().mean() for x in vars(streams).values() if x is not None and x.numel())
    loss.backward()


def _inputs(network: TransformerConfig, layout: Layout, samples: int) -> tuple[Streams, NoiseLevels, Tensor]:
    _, height, width = network.patch
    size = (layout.frames, layout.views, layout.rows * height, layout.columns * width)
    video = torch.zeros(samples, network.latent_channels, *size)
    streams = Streams(
        video=video,
        depth=video.clone() if network.denoises_depth else None,
        action=torch.zeros(samples, layout.actions, network.action_width),
        proprio=torch.zeros(samples, layout.proprios, network.proprio_width),
    )
    sigma = torch.zeros(samples)
    counts = (layout.frames, layout.actions, layout.proprios)
    levels = NoiseLevels.of_streams(sigma, sigma, *counts, depth=network.denoises_depth)
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


def changes(now: Plan, limit: float) -> list[tuple[str, Plan]]:
    """What would make the run take less of each GPU, as options of `xwam train`, each with the plan that it leads to.

    First each change alone; then, until one fits into `limit` bytes, the changes of one GPU together, more GPUs that
    share a copy, and an adapter instead of all weights.
    """
    train, parts = now.run.train, now.run.batch_size // now.gpus
    single: list[dict[str, Any]] = [
        {} if train.checkpoint_blocks else {"checkpoint_blocks": True},
        {} if train.accumulate >= parts else {"accumulate": parts},
        {"ema_on_host": True} if train.ema_decay and not train.ema_on_host else {},
        {} if train.optimizer != "adamw" else {"optimizer": "adamw8bit"},
        {} if train.optimizer == "adamw_offload" else {"optimizer": "adamw_offload"},
    ]
    single = [change for change in single if change]
    found = [_changed(now, change) for change in single]
    together: dict[str, Any] = {}
    for change in single:
        together |= change
        if len(together) > 1 and (both := _changed(now, together))[1].bytes <= limit:
            found.append(both)
            break
    for gpus in (2 * now.gpus, 4 * now.gpus, 8 * now.gpus):
        if parts % (gpus // now.gpus * train.accumulate) == 0 and not (found and found[-1][1].gpus > now.gpus):
            more = _changed(now, {"shards": gpus}, gpus)
            found += [more] if more[1].bytes <= limit else []
    if now.run.lora is None:
        frugal = {name: value for change in single[:2] for name, value in change.items() if name != "optimizer"}
        found.append(_changed(now, frugal, lora=LoraConfig()))
    return found


def _changed(
    before: Plan, change: dict[str, Any], gpus: int | None = None, lora: LoraConfig | None = None
) -> tuple[str, Plan]:
    run, gpus = before.run, gpus or before.gpus
    options = [f"--gpus {gpus}"] if gpus != before.gpus else []
    options += [f"--set train.{name}={str(value).lower()}" for name, value in change.items()]
    if lora is not None:
        options.append("--set lora={} --set start_from=MODEL")
    train = run.train.model_copy(update=change)
    return " ".join(options), plan(run.model_copy(update={"train": train, "lora": lora or run.lora}), gpus)
