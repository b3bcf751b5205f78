"""How long a request takes at the released 5 B size: acting, by asynchronous and by synchronous noise, and imagining.

    python benchmarks/acting.py [--batch 1 8] [--compile] [--rounds 5] [--json OUT]
    python benchmarks/acting.py --size nano --device cpu --batch 1

Weights are random and in bfloat16, the text's embedding and the present's latents are given. "act 10" leaves the video
unfinished after 10 of 50 steps, "act 50" denoises all streams together, as without asynchronous noise; "imagine" ends
with the clean video and depth. The autoencoder's encoding of the present, which each request begins with, is timed
apart; it is the same whatever follows. Times are medians, beside quartiles, of whole runs after one that warms up.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from network_flops import forward_flops, stride_of
from torch import Tensor, nn
from training import FULL, RESULTS, _seconds, awake, materialised, matmul_rate, spread, write

from xwam.cli.app import SHIPPED
from xwam.core.streams import NoiseLevels, Streams
from xwam.flow.levels import Schedule, levels_of, policy_schedule, world_schedule
from xwam.flow.sampler import noise_like, sample, started
from xwam.model.autoencoders import SmallAutoencoder, SmallAutoencoderConfig
from xwam.model.wan import WanAutoencoder
from xwam.saved import ModelConfig, described
from xwam.train.parallel import prepare_blocks


def size_of(name: str) -> ModelConfig:
    return FULL if name == "5b" else ModelConfig.parse(described(SHIPPED)["model"])


def schedules(config: ModelConfig) -> dict[str, Schedule]:
    """What is denoised in each kind of request."""
    video, action, shift = config.noise.video_steps, config.noise.action_steps, config.noise.shift
    return {
        f"act {action}": policy_schedule(video, action, shift),
        f"act {video}": policy_schedule(video, video, shift),
        "imagine": world_schedule(video, action, shift, config.transformer.has_depth),
    }


class Requests:
    """Requests for so many robots at once, whose presents are encoded and whose texts are embedded."""

    def __init__(self, config: ModelConfig, network: nn.Module, device: str, batch: int):
        c, stride = config.transformer, stride_of(config)
        height, width = (side // stride for side in config.image_size)
        self.network, self.device, self.batch = network, device, batch
        self.given = Streams(
            video=torch.randn(batch, c.latent_channels, config.latent_frames, c.views, height, width, device=device),
            action=torch.zeros(batch, config.actions, c.action_width, device=device),
            proprio=torch.randn(batch, config.frames, c.proprio_width, device=device),
        )
        self.text = torch.randn(batch, c.text_tokens, c.text_width, device=device)

    def call(self) -> Callable[[], Streams]:
        """The network's forward alone, without depth."""
        with self._as_acting():
            text, level = self.network.prepare_text(self.text), torch.full((self.batch,), 0.5, device=self.device)
        levels = levels_of(self.given, level, level)

        def once() -> Streams:
            with self._as_acting():
                return self.network(self.given, levels, text, False)

        return once

    def request(self, schedule: Schedule) -> Callable[[], Streams]:
        """All from the text's keys to the last denoising step."""

        def once() -> Streams:
            with self._as_acting():
                text = self.network.prepare_text(self.text)

                def velocity(noisy: Streams, levels: NoiseLevels, with_depth: bool) -> Streams:
                    return self.network(noisy, levels, text, with_depth)

                start = started(self.given, noise_like(self.given, range(self.batch)), schedule)
                return sample(velocity, start, schedule)

        return once

    def _as_acting(self) -> torch.autocast:
        # weights are in bfloat16 already: no cast of them is worth keeping
        return torch.autocast(self.device, torch.bfloat16, cache_enabled=False)


@torch.inference_mode()
def measure(config: ModelConfig, network: nn.Module, device: str, batch: int, rounds: int, rate: float) -> dict:
    """Milliseconds of one call, of each kind of request, and of the present's encoding; and the share of the rate."""
    requests = Requests(config, network, device, batch)
    branchless = config.transformer.model_copy(update={"depth_blocks": 0})
    work = batch * forward_flops(config.model_copy(update={"transformer": branchless}))
    found = {"batch": batch, "call": timed(requests.call(), device, 4 * rounds)}
    found["call"]["tflop"] = round(work / 1e12, 3)
    found["call"]["utilisation"] = round(work / (found["call"]["ms"]["median"] / 1e3) / rate, 3)
    for name, schedule in schedules(config).items():
        found[name] = {"steps": schedule.steps, **timed(requests.request(schedule), device, rounds)}
    return found


def timed(run: Callable[[], object], device: str, rounds: int) -> dict:
    """Milliseconds of a run, and the memory in use at most meanwhile, weights included."""
    run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = np.array([_seconds(run, device, 1) for _ in range(rounds)])
    peak = round(torch.cuda.max_memory_allocated() / 1e9, 2) if device == "cuda" else None
    return {"ms": spread(1e3 * times), "peak_gb": peak}


@torch.inference_mode()
def encoding(config: ModelConfig, device: str, batch: int, rounds: int) -> dict:
    """Of the present: a frame of each view of each robot, by an autoencoder of random weights in bfloat16."""
    small = isinstance(config.autoencoder, SmallAutoencoderConfig)
    with torch.device("meta"):
        autoencoder = (SmallAutoencoder if small else WanAutoencoder)(config.autoencoder).to(torch.bfloat16)
    autoencoder = awake(autoencoder.to_empty(device=device))
    frames = torch.zeros(batch * config.transformer.views, 3, 1, *config.image_size, device=device)

    def encode() -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return autoencoder.encode(frames)

    return timed(encode, device, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("5b", "nano"), default="5b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="requests at once")
    parser.add_argument("--compile", action="store_true", help="compile the blocks, which takes a minute or two")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind after the first")
    parser.add_argument("--side", type=int, default=8192, help="of the matrices whose products tell the card's rate")
    parser.add_argument("--json", type=Path, help="where to write the results")
    a = parser.parse_args()
    config, rate = size_of(a.size), matmul_rate(a.device, a.side)
    network = materialised(config.transformer, a.device)
    prepare_blocks(network, recompute=False, compile=a.compile)
    options = f"--size {a.size} --device {a.device} --rounds {a.rounds} --batch {' '.join(map(str, a.batch))}"
    results = {
        "card": torch.cuda.get_device_name() if a.device == "cuda" else "CPU",
        "matmul_tflop_per_second": round(rate / 1e12, 3),
        "compiled": a.compile,
        "requests": [],
    }
    path = a.json or RESULTS / ("acting_gpu" + a.compile * "_compiled" + ".json")
    for batch in a.batch:  # written after each, so that a run cut short leaves what it measured
        results["requests"].append(measure(config, network.eval(), a.device, batch, a.rounds, rate))
        write(path, f"acting.py {options}" + a.compile * " --compile", results)
    try:
        results["encoding"] = {batch: encoding(config, a.device, batch, a.rounds) for batch in a.batch}
    except ImportError as error:
        results["encoding"] = str(error)
    write(path, f"acting.py {options}" + a.compile * " --compile", results)


if __name__ == "__main__":
    main()
