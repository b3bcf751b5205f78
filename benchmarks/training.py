"""A training step against one as X-WAM's reference takes it; and on a GPU, how much of the card the 5 B step uses.

    python benchmarks/training.py [--rounds 12] [--json OUT]
    python benchmarks/training.py --gpu [--batch 16] [--without-depth] [--uncompiled] [--json OUT]

The first compares, at a reduced size of Wan2.2's parts and in float32, the plain step with ours from pixels, whose
texts are encoded ahead, and with ours from latents; and its network alone, from latents. All give the same loss, which
is checked first. Small convolutions are slow for their work, so that the encoders take more of the reduced step than of
the full one: "at_5b_shares" weighs what was measured of the network by the shares of work in the 5 B step instead. They
alternate, and a ratio is that of two times of a round, in seconds of one processor. Memory is what a process of its
own for each takes beside Python and its libraries.

On a GPU of 80 GB, weights, gradients and both moments of 6.67 B parameters take 53 GB in bfloat16; each sample adds
about 0.6 GB, so that a batch of 16 fits, in which the optimizer's own time hardly counts.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from network_flops import network_flops, stride_of
from plain_training import PlainNetwork, encoded, read_texts
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from xwam.core.streams import Batch, NoiseLevels, Streams
from xwam.flow.levels import Asynchronous
from xwam.flow.objective import LossWeights, training_loss
from xwam.model.config import TransformerConfig
from xwam.model.tokens import Layout
from xwam.model.transformer import WorldActionTransformer
from xwam.model.wan import UMT5TextEncoder, UMT5TextEncoderConfig, WanAutoencoder, WanAutoencoderConfig
from xwam.recipes import RELEASED
from xwam.train.parallel import prepare_blocks
from xwam.wam import ModelConfig

RESULTS = Path(__file__).parent / "results"
WAYS = ("plain", "plain network", "pixels", "latents")
FROM_LATENTS = ("plain network", "latents")
LAW = Asynchronous()
FULL = RELEASED["wan22-5b-robocasa"]()


def reduced(image: tuple[int, int] = (128, 160), **sizes: int) -> ModelConfig:
    """The released model, each part so much smaller that the parts keep about the same shares of a step."""
    text = UMT5TextEncoderConfig(vocab_size=512, d_model=192, d_kv=32, d_ff=480, num_layers=10, num_heads=6, tokens=128)
    small = {"width": 192, "ffn_width": 896, "heads": 6, "blocks": 6, "depth_blocks": 2}
    small |= {"text_width": text.d_model, "text_tokens": text.tokens, **sizes}
    parts = {
        "transformer": FULL.transformer.model_copy(update=small),
        "autoencoder": WanAutoencoderConfig(base_dim=5, decoder_base_dim=5),
        "text": text,
        "image_size": image,
    }
    return FULL.model_copy(update=parts)


@dataclass(frozen=True)
class Inputs:
    """A batch of which video and depth are pixels, one of which they are latents, and its texts both ways."""

    pixels: Batch | None
    latents: Batch
    ids: Tensor
    mask: Tensor
    text: Tensor


class Training:
    """The networks of a step, its optimizer, and its inputs."""

    def __init__(self, way: str, config: ModelConfig, batch: int):
        torch.manual_seed(0)
        self.way, self.steps = way, 0
        self.network = awake(WorldActionTransformer(config.transformer))
        self.plain = PlainNetwork(self.network)
        self.autoencoder = None if way in FROM_LATENTS else WanAutoencoder(config.autoencoder)
        self.text_encoder = UMT5TextEncoder(config.text) if way == "plain" else None
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=True)
        inputs = random_inputs(config, batch)
        self.inputs = replace(inputs, pixels=None) if way in FROM_LATENTS else inputs

    def loss(self) -> Tensor:
        inputs, batch = self.inputs, self.inputs.latents
        if self.way not in FROM_LATENTS:
            batch = encoded(self.autoencoder, inputs.pixels)
        text = inputs.text if self.text_encoder is None else read_texts(self.text_encoder, inputs.ids, inputs.mask)
        network = self.plain if self.way.startswith("plain") else self.network

        def velocity(noisy: Streams, levels: NoiseLevels, with_depth: bool) -> Streams:
            return network(noisy, levels, text, with_depth)

        first = self.steps * len(batch)
        return training_loss(velocity, batch, LAW, range(first, first + len(batch))).total

    def step(self) -> float:
        loss = self.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        return loss.item()


def trainings(config: ModelConfig, batch: int) -> dict[str, Training]:
    """Each way with the same weights and, where one has made latents and texts ahead, with those of the plain way."""
    found = {way: Training(way, config, batch) for way in WAYS}
    plain = found["plain"]
    found["pixels"].autoencoder = plain.autoencoder
    for training in found.values():
        training.network.load_state_dict(plain.network.state_dict())
        given = plain.inputs
        text = read_texts(plain.text_encoder, given.ids, given.mask)
        training.inputs = replace(given, latents=encoded(plain.autoencoder, given.pixels), text=text)
    return found


def awake(network: WorldActionTransformer) -> WorldActionTransformer:
    """With weights that matter everywhere: as made, the network's last layers are 0."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    return network


def random_inputs(config: ModelConfig, batch: int, device: str = "cpu") -> Inputs:
    c, (height, width) = config.transformer, config.image_size
    stride = stride_of(config)
    generator = None if device == "meta" else torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, device=device)

    latent = (c.latent_channels, config.latent_frames, c.views, height // stride, width // stride)
    action, proprio = normal(config.actions, c.action_width), normal(config.frames, c.proprio_width)
    streams = Streams(normal(*latent), action, proprio, normal(*latent))
    known = {name: torch.ones_like(x, dtype=torch.bool) for name, x in vars(streams).items()}
    latents = Batch(streams, known["action"], known["proprio"], known["depth"][:, 0], ("",) * batch)
    video = (3, config.frames, c.views, height, width)
    pixels = replace(streams, video=normal(*video).tanh(), depth=normal(*video).tanh())
    ids = torch.arange(batch * c.text_tokens, device=device).view(batch, -1) % config.text.vocab_size
    mask = (torch.arange(c.text_tokens, device=device) < 20).long().expand(batch, -1)
    return Inputs(replace(latents, streams=pixels), latents, ids, mask, normal(c.text_tokens, c.text_width))


# ---- what is measured ------------------------------------------------------------------------------------------


def check(found: dict[str, Training]) -> dict[str, float]:
    """The loss of each way; raises unless they and the gradients agree."""
    losses, gradients = {}, {}
    for way, training in found.items():
        loss = training.loss()
        loss.backward()
        losses[way] = loss.item()
        gradients[way] = torch.cat([p.grad.flatten() for p in training.network.parameters()])
        training.optimizer.zero_grad()
    for way in WAYS[1:]:
        error = (gradients[way] - gradients["plain"]).norm() / gradients["plain"].norm()
        if abs(losses[way] - losses["plain"]) > 1e-5 * losses["plain"] or error > 1e-4:
            raise AssertionError(f"{way}: losses {losses}, gradients {error:.1e} apart")
    return losses


def timed(found: dict[str, Training], rounds: int) -> dict[str, np.ndarray]:
    """Seconds a step of each way in each round."""
    spent = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way, training in found.items():
            began = time.process_time()  # of one thread, and so blind to what else the machine does
            training.step()
            spent[way] += [time.process_time() - began] if number else []
    return {way: np.array(values) for way, values in spent.items()}


def spread(values: np.ndarray, digits: int = 2) -> dict:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).round(digits).tolist()
    return {"median": median, "quartiles": [low, high]}


def memory(way: str, config: ModelConfig, batch: int) -> dict[str, float]:
    """Megabytes that networks and two steps take of this process at most, and that a loss keeps for its gradient."""
    before = resident_mb("VmRSS")
    training = Training(way, config, batch)
    saved = saved_mb(training)
    training.step()
    training.step()
    return {"process_mb": round(resident_mb("VmHWM") - before), "saved_mb": round(saved, 1)}


def resident_mb(line: str) -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(row for row in status if row.startswith(line)).split()[1]) / 1024


def saved_mb(training: Training) -> float:
    """Of the tensors that a loss keeps for its gradient, beside the weights."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    held = {p.untyped_storage().data_ptr() for p in training.network.parameters()}
    with saved_tensors_hooks(keep, lambda x: x):
        loss = training.loss()  # alive, so that no place in memory is used twice
    del loss
    return sum(size for place, size in kept.items() if place not in held) / 2**20


def memory_apart(way: str, batch: int) -> dict[str, float]:
    """`memory` in a process of its own."""
    command = [sys.executable, __file__, "--memory", way, "--batch", str(batch)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def flops(config: ModelConfig) -> dict[str, float]:
    """Of each part for one sample, in units of 1e9: the network forward and backward, the encoders forward."""
    with torch.device("meta"):
        autoencoder = WanAutoencoder(config.autoencoder)
    inputs, text = random_inputs(config, 1, "meta"), config.text
    inner, L = text.num_heads * text.d_kv, text.tokens
    parts = {
        "network": network_flops(config),
        "autoencoder": counted(lambda: encoded(autoencoder, inputs.pixels)),
        "text encoder": 2 * text.num_layers * L * (text.d_model * (4 * inner + 3 * text.d_ff) + 2 * L * inner),
    }
    return {name: count / 1e9 for name, count in parts.items()}


def counted(run) -> int:
    """FLOP of a call, which may be on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def shares(parts: dict[str, float]) -> dict[str, float]:
    return {name: round(count / sum(parts.values()), 3) for name, count in parts.items()}


def measure(rounds: int, batch: int) -> dict:
    torch.set_num_threads(1)
    config = reduced()
    found = trainings(config, batch)
    results = {"losses": check(found)}
    seconds = timed(found, rounds)
    results["seconds"] = {way: spread(x, 3) for way, x in seconds.items()}
    results["times_as_fast"] = {way: spread(seconds["plain"] / seconds[way]) for way in ("pixels", "latents")}
    results["network_times_as_fast"] = spread(seconds["plain network"] / seconds["latents"])
    parts = {"here": flops(config), "5b": flops(FULL)}
    results["gflop_a_sample"] = {size: {name: round(x, 2) for name, x in p.items()} for size, p in parts.items()}
    results["shares_of_flops"] = {size: shares(p) for size, p in parts.items()}
    network, share = results["network_times_as_fast"]["median"], results["shares_of_flops"]["5b"]["network"]
    results["at_5b_shares"] = round(network + (1 - share) / share, 2)
    results["memory"] = {way: memory_apart(way, batch) for way in WAYS}
    return results


# ---- on a GPU --------------------------------------------------------------------------------------------------


def utilisation(
    config: ModelConfig, device: str, batch: int, steps: int, side: int = 8192, compiled: bool = True
) -> dict:
    """Tokens a second of the network's step in bfloat16, and its share of the card's own rate of matrix products.

    Weights, gradients and moments are in bfloat16, so that one card holds them. Blocks are compiled, if they are to be,
    and compute their inside twice; the second time does not count as work done.
    """
    rate = matmul_rate(device, side)
    network = materialised(config.transformer, device)
    parameters = sum(p.numel() for p in network.parameters())
    prepare_blocks(network, recompute=True, compile=compiled)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    inputs = random_inputs(config, batch, device)
    weights = LossWeights(depth=float(config.transformer.has_depth))

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            velocity = lambda noisy, levels, with_depth: network(noisy, levels, inputs.text, with_depth)  # noqa: E731
            loss = training_loss(velocity, inputs.latents, LAW, range(batch), weights).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    times = np.array([_seconds(step, device, 1) for _ in range(steps)])
    seconds = float(np.median(times))
    tokens = batch * sum(Layout.of(inputs.latents.streams, config.transformer).lengths)
    work = batch * network_flops(config)
    return {
        "batch": batch,
        "depth": config.transformer.has_depth,
        "compiled": compiled,
        "parameters": parameters,
        "tokens": tokens,
        "steps": steps,
        "seconds": spread(times, 4),
        "tokens_per_second": round(tokens / seconds, 1),
        "model_tflop_per_second": round(work / seconds / 1e12, 3),
        "matmul_tflop_per_second": round(rate / 1e12, 3),
        "utilisation": round(work / seconds / rate, 3),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if device == "cuda" else None,
    }


def materialised(config: TransformerConfig, device: str) -> WorldActionTransformer:
    with torch.device("meta"):
        network = WorldActionTransformer(config).to(torch.bfloat16)
    return awake(network.to_empty(device=device))


def matmul_rate(device: str, side: int) -> float:
    """FLOP a second of bfloat16 products of square matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2 * side**3 / _seconds(lambda: a @ b, device, 20)


def _seconds(run, device: str, times: int) -> float:
    """Of one call, on average."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(times):
        run()
    wait()
    return (time.perf_counter() - began) / times


def write(path: Path, command: str, results: dict) -> None:
    about = {"date": str(date.today()), "command": f"python benchmarks/{command}", "torch": torch.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about | results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpu", action="store_true", help="the 5 B step on this machine's GPU")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, help="samples a step: 1, or 16 with --gpu")
    parser.add_argument("--without-depth", action="store_true", help="with --gpu, a network without the depth branch")
    parser.add_argument("--uncompiled", action="store_true", help="with --gpu, blocks as they are")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    batch = arguments.batch or (16 if arguments.gpu else 1)
    options = f"training.py --rounds {arguments.rounds} --batch {batch}"
    if arguments.memory:
        torch.set_num_threads(1)
        print(json.dumps(memory(arguments.memory, reduced(), batch)))
    elif arguments.gpu:
        config, compiled = FULL, not arguments.uncompiled
        if arguments.without_depth:
            network = FULL.transformer.model_copy(update={"depth_blocks": 0})
            config = FULL.model_copy(update={"transformer": network})
        measured = utilisation(config, "cuda", batch, arguments.rounds, compiled=compiled)
        name = "training_gpu" + arguments.without_depth * "_without_depth" + arguments.uncompiled * "_uncompiled"
        options += " --gpu" + arguments.without_depth * " --without-depth" + arguments.uncompiled * " --uncompiled"
        write(arguments.json or RESULTS / f"{name}.json", options, {"card": torch.cuda.get_device_name(), **measured})
    else:
        about = {"machine": f"{os.cpu_count()} cores, CPU, 1 thread"}
        write(arguments.json or RESULTS / "training.json", options, about | measure(arguments.rounds, batch))


if __name__ == "__main__":
    main()
