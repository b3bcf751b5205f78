"""Compares this package with the reference's own tensors: `python tests/parity.py FILE...`

A file holds weights under published names, inputs, and the outputs that the reference gave, in float32 on a CPU; what
it is of is told by what it holds. A released checkpoint, a file or its run's folder, must load whole, and come back
bit for bit from safetensors. Prints the largest error of each output relative to the output's largest entry, and
exits with 1 if one is beyond its tolerance.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from xwam.core.streams import NoiseLevels, Streams, Velocity
from xwam.flow.levels import TIMESTEPS, policy_schedule, timestep, world_schedule
from xwam.flow.sampler import guided, sample, started
from xwam.model.transformer import TransformerConfig, WorldActionTransformer
from xwam.model.weights import (
    convert_released,
    load_transformer,
    read_converted,
    read_released_checkpoint,
    transformer_from_published,
    write_released,
)

TOLERANCES = {"transformer": 1e-4, "sampler": 1e-3, "wan_vae": 1e-4, "umt5": 1e-4, "released": 0.0}


@dataclass(frozen=True)
class Comparison:
    output: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # and so not if it is NaN


@dataclass(frozen=True)
class Golden:
    """A file's tensors, grouped by the first part of their names, and its metadata."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "Golden":
        with safe_open(path, "pt") as file:
            return cls(path, file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()})

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): x for name, x in self.tensors.items() if name.startswith(prefix)}

    @property
    def config(self) -> dict:
        return json.loads(self.metadata["config"])

    @property
    def kind(self) -> str:
        inputs = self.under("inputs.")
        marks = {
            "video_timestep": "transformer",
            "first_frame_latent": "sampler",
            "latent_mean": "wan_vae",
            "ids": "umt5",
        }
        kind = next((kind for mark, kind in marks.items() if mark in inputs), None)
        if kind is None:
            raise ValueError(
                f"{self.path} has inputs {sorted(inputs)}; one of {', '.join(marks)} would tell what it is of"
            )
        return kind


def check(path: Path) -> list[Comparison]:
    """Every output of a file against ours."""
    if path.is_dir() or path.suffix != ".safetensors":
        pairs, kind = released(path), "released"
    else:
        golden = Golden.read(path)
        kind = golden.kind
        pairs = {"transformer": transformer, "sampler": sampler, "wan_vae": wan_vae, "umt5": umt5}[kind](golden)
    with torch.no_grad():
        return [Comparison(name, relative_error(ours, theirs), TOLERANCES[kind]) for name, ours, theirs in pairs]


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    if torch.equal(ours, theirs):
        return 0.0
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


Pairs = Iterator[tuple[str, Tensor, Tensor]]  # name of an output, ours, the reference's


# ---- the network and its sampler -----------------------------------------------------------------------------------


def config_of(reference: dict) -> TransformerConfig:
    """Our configuration for the arguments that the reference's network was built with."""
    return TransformerConfig(
        width=reference["dim"],
        ffn_width=reference["ffn_dim"],
        heads=reference["num_heads"],
        blocks=reference["num_layers"],
        depth_blocks=reference["num_extra_layers"],
        views=reference["num_views"],
        latent_channels=reference["in_dim"],
        patch=tuple(reference.get("patch_size", (1, 2, 2))),
        text_width=reference["text_dim"],
        text_tokens=reference["text_len"],
        frequency_width=reference["freq_dim"],
        action_width=reference["action_dim"],
        actions_per_frame=reference["action_num"],
        proprio_width=reference["proprio_dim"],
        eps=reference.get("eps", 1e-6),
    )


def network_of(golden: Golden, weights: dict[str, Tensor]) -> WorldActionTransformer:
    network = WorldActionTransformer(config_of(golden.config))
    if missing := load_transformer(network, transformer_from_published(weights)):
        raise ValueError(f"{golden.path} lacks weights: {missing}")
    return network


def velocity_of(network: WorldActionTransformer, text: Tensor) -> Velocity:
    context = network.prepare_text(text)
    return lambda noisy, levels, with_depth: network(noisy, levels, context, with_depth)


def transformer(golden: Golden) -> Pairs:
    network, inputs = network_of(golden, golden.under("weights.")), golden.under("inputs.")
    streams = Streams(inputs["video"], inputs["action"], inputs["proprio"])
    times = (inputs[f"{stream}_timestep"] / TIMESTEPS for stream in ("video", "action", "proprio"))
    levels = NoiseLevels.of_elements(*times)
    conditional, unconditional = (velocity_of(network, inputs[text]) for text in ("text", "text_uncond"))
    outputs = golden.under("outputs.")
    for mode in sorted({name.split(".")[0] for name in outputs}):
        scale = float(mode.removeprefix("guidance")) if mode.startswith("guidance") else 1.0
        answer = guided(conditional, unconditional, scale)(streams, levels, f"{mode}.depth" in outputs)
        for stream, theirs in golden.under(f"outputs.{mode}.").items():
            yield f"{mode}.{stream}", getattr(answer, stream), theirs


def sampler(golden: Golden) -> Pairs:
    weights = Golden.read(golden.path.parent / golden.metadata["weights"]).under("weights.")
    network, inputs = network_of(golden, weights), golden.under("inputs.")
    steps = {"video_steps": int(golden.metadata["video_steps"]), "action_steps": int(golden.metadata["action_steps"])}
    shift, with_depth = float(golden.metadata["shift"]), "outputs.world.depth" in golden.tensors
    world = world_schedule(**steps, shift=shift, with_depth=with_depth)
    policy = policy_schedule(**steps, shift=shift)
    yield from schedules(golden, {"video": world, "action": policy})
    noise = Streams(*(inputs[f"noise.{stream}"] for stream in ("video", "action", "proprio")))
    given = noise.map(torch.zeros_like)
    given.video[:, :, :1], given.proprio[:, 0] = inputs["first_frame_latent"], inputs["proprio"]
    velocity = velocity_of(network, inputs["text"])
    answers = {
        mode: sample(velocity, started(given, noise, schedule), schedule)
        for mode, schedule in {"world": world, "policy": policy}.items()
    }
    for name, theirs in golden.under("outputs.").items():
        mode, stream = name.split(".")
        yield name, getattr(answers[mode], stream), theirs


def schedules(golden: Golden, by_stream: dict) -> Pairs:
    """The levels that the solver integrates over, and the whole timesteps that the network is told."""
    for stream, schedule in by_stream.items():
        sigmas = schedule.sigmas(stream)
        yield f"schedule.{stream}.sigmas", torch.tensor(sigmas), golden.tensors[f"schedule.{stream}.sigmas"]
        told = torch.tensor([timestep(sigma) for sigma in sigmas[:-1]])
        yield f"schedule.{stream}.timesteps", told, golden.tensors[f"schedule.{stream}.timesteps"]


# ---- Wan's autoencoder and text encoder ----------------------------------------------------------------------------


def wan_vae(golden: Golden) -> Pairs:
    from xwam.model.wan import WanAutoencoder, WanAutoencoderConfig

    inputs, outputs = golden.under("inputs."), golden.under("outputs.")
    mean, std = (tuple(inputs[f"latent_{name}"].tolist()) for name in ("mean", "std"))
    config = WanAutoencoderConfig(**golden.config, mean=mean, std=std)
    autoencoder = WanAutoencoder.from_original(golden.under("weights."), config)
    yield "latent", autoencoder.encode(inputs["video"]), outputs["latent"]
    yield "first_frame_latent", autoencoder.encode(inputs["video"][:, :, :1]), outputs["first_frame_latent"]
    yield "video", autoencoder.decode(outputs["latent"]), outputs["video"]


def umt5(golden: Golden) -> Pairs:
    from xwam.model.wan import UMT5TextEncoder, UMT5TextEncoderConfig

    inputs = golden.under("inputs.")
    config = UMT5TextEncoderConfig(**golden.config, tokens=inputs["ids"].shape[1])
    encoder = UMT5TextEncoder.from_original(golden.under("weights."), config)
    yield "embedding", encoder.embed(inputs["ids"], inputs["attention_mask"]), golden.tensors["outputs.embedding"]


# ---- released checkpoint -------------------------------------------------------------------------------------------


def released(path: Path) -> Pairs:
    """Loads each part whole, then compares every tensor that returns from safetensors with the file's own."""
    parts = read_released_checkpoint(path)
    with torch.device("meta"):
        network = WorldActionTransformer(config_of_weights(parts["transformer"]))
    if missing := load_transformer(network, parts["transformer"]):
        raise ValueError(f"{path} lacks weights of the transformer: {missing}")
    load_wan(parts)
    with tempfile.TemporaryDirectory() as folder:
        convert_released(path, folder)
        back = Path(folder) / "back.pt"
        write_released(read_converted(folder), back)
        returned = read_released_checkpoint(back)
        for part, state in parts.items():
            if state.keys() != returned[part].keys():
                raise ValueError(f"{part} came back with other names: {state.keys() ^ returned[part].keys()}")
            same = all(
                state[name].dtype == x.dtype and torch.equal(state[name], x) for name, x in returned[part].items()
            )
            yield f"{part} ({len(state)} tensors)", torch.tensor(float(same)), torch.tensor(1.0)


def config_of_weights(state: dict[str, Tensor]) -> TransformerConfig:
    """Sizes that the weights show; heads, tokens of a text and actions of a frame leave no trace in them."""
    width, channels, *patch = state["patch_embedding.weight"].shape
    blocks, depth_blocks = (
        len([name for name in state if name.startswith(prefix) and name.endswith("modulation")])
        for prefix in ("blocks.", "depth_blocks.")
    )
    return TransformerConfig(
        width=width,
        ffn_width=state["blocks.0.ffn.up.weight"].shape[0],
        heads=1,
        blocks=blocks,
        depth_blocks=depth_blocks,
        views=state["view_embedding.weight"].shape[0],
        latent_channels=channels,
        patch=tuple(patch),
        text_width=state["text_embedding.first.weight"].shape[1],
        text_tokens=512,
        frequency_width=state["time_embedding.0.weight"].shape[1],
        action_width=state["action_encoder.first.weight"].shape[1],
        actions_per_frame=4,
        proprio_width=state["proprio_encoder.first.weight"].shape[1],
    )


def load_wan(parts: dict[str, dict[str, Tensor]]) -> None:
    from xwam.model.wan import UMT5TextEncoder, UMT5TextEncoderConfig, WanAutoencoder, WanAutoencoderConfig

    vae, text, statistics = parts["autoencoder"], parts["text_encoder"], parts["latent_statistics"]
    sizes = {
        "base_dim": vae["encoder.conv1.weight"].shape[0],
        "decoder_base_dim": vae["decoder.head.0.gamma"].shape[0],
        "z_dim": vae["conv2.weight"].shape[0],
    }
    mean, std = (tuple(statistics[name].tolist()) for name in ("mean", "std"))
    WanAutoencoder.from_original(vae, WanAutoencoderConfig(**sizes, mean=mean, std=std))
    vocabulary, width = text["token_embedding.weight"].shape
    buckets, heads = text["blocks.0.pos_embedding.embedding.weight"].shape
    config = UMT5TextEncoderConfig(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=text["blocks.0.attn.q.weight"].shape[0] // heads,
        d_ff=text["blocks.0.ffn.fc1.weight"].shape[0],
        num_layers=len([name for name in text if name.endswith("norm1.weight")]),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
    )
    UMT5TextEncoder.from_original(text, config)


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__)
        return 2
    passed = True
    for path in paths:
        print(path)
        for result in check(Path(path)):
            verdict = "ok" if result.passed else "FAILED"
            print(f"  {result.output:32s} {result.error:9.2e} of {result.tolerance:.0e} {verdict}", flush=True)
            passed &= result.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
