"""What each shortcut of the network saves: time of its plain twin over its own, alternating in one process.

    python benchmarks/fast_paths.py [CHECKPOINT] [--rounds 20]

Prints the median ratio and its quartiles, and writes them to benchmarks/results/fast_paths.json.
Absolute times depend on the machine; ratios of alternating runs hardly do.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from xwam.cli.app import SHIPPED
from xwam.core.streams import NoiseLevels, Streams
from xwam.flow.levels import policy_schedule, world_schedule
from xwam.flow.sampler import noise_like, sample
from xwam.wam import WorldActionModel

RESULTS = Path(__file__).parent / "results" / "fast_paths.json"
Pair = tuple[Callable[[], object], Callable[[], object]]


def pairs(model: WorldActionModel) -> dict[str, Pair]:
    """For each shortcut its plain twin and itself."""
    c, network = model.config, model.transformer
    height, width = (side // model.autoencoder.spatial_stride for side in c.image_size)
    empty = Streams(
        torch.zeros(1, c.transformer.latent_channels, c.latent_frames, c.transformer.views, height, width),
        torch.zeros(1, c.actions, c.transformer.action_width),
        torch.zeros(1, c.frames, c.transformer.proprio_width),
    )
    start = noise_like(empty, [0])
    text = model.text_encoder.encode(["open the drawer"])
    prepared = network.prepare_text(text)
    few = NoiseLevels.of_streams(torch.tensor([0.9]), torch.tensor([0.5]), c.latent_frames, c.actions, c.frames)
    each = NoiseLevels.of_elements(few.of("video"), few.of("action"), few.of("proprio"))
    clip = torch.zeros(c.transformer.views, 3, c.frames, *c.image_size)
    noise = c.noise
    world = world_schedule(noise.video_steps, noise.action_steps, noise.shift)
    policy = policy_schedule(noise.video_steps, noise.action_steps, noise.shift)

    def velocity(streams, levels, with_depth):
        return network(streams, levels, prepared, with_depth)

    def depth_in_every_step(streams, levels, with_depth):
        answer = network(streams, levels, prepared, True)
        return answer if with_depth else replace(answer, depth=None)

    def text_in_every_step(streams, levels, with_depth):
        return network(streams, levels, network.prepare_text(text), with_depth)

    return {
        "depth at the last step only": (
            lambda: sample(depth_in_every_step, start, world),
            lambda: sample(velocity, start, world),
        ),
        "text prepared once a request": (
            lambda: sample(text_in_every_step, start, policy),
            lambda: sample(velocity, start, policy),
        ),
        "modulation per distinct level": (
            lambda: network(start, each, prepared),
            lambda: network(start, few, prepared),
        ),
        "the given frame encoded as one": (
            lambda: model.autoencoder.encode(clip)[:, :, :1],
            lambda: model.autoencoder.encode(clip[:, :, :1]),
        ),
        "the policy leaves early": (
            lambda: sample(velocity, start, world),
            lambda: sample(velocity, start, policy),
        ),
    }


def ratios(pair: Pair, rounds: int) -> np.ndarray:
    """Time of the plain twin over that of the shortcut, one after the other in each round."""
    found = []
    for _ in range(rounds + 2):
        spent = []
        for run in pair:
            began = time.perf_counter()
            run()
            spent.append(time.perf_counter() - began)
        found.append(spent[0] / spent[1])
    return np.array(found[2:])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, default=SHIPPED)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, results = WorldActionModel.load(arguments.checkpoint), {}
    for name, pair in pairs(model).items():
        low, median, high = np.quantile(ratios(pair, arguments.rounds), [0.25, 0.5, 0.75])
        results[name] = {"median": round(median, 2), "quartiles": [round(low, 2), round(high, 2)]}
        print(f"{name:32} {median:5.2f} times ({low:.2f} .. {high:.2f})", flush=True)
    about = {"date": str(date.today()), "machine": "2 cores, CPU, 1 thread", "rounds": arguments.rounds}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(about | {"ratios": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
