"""Whether a dream whose views agree is a better dream: chosen of several by consistency, against their mean.

    python benchmarks/best_of.py                # shipped nano, ten moments, 4 candidates each: 4 minutes of one core

Success in closed loop is the question, but an episode costs minutes (`xwam eval --best-of 4`); this asks the same of
single moments, where the expert tells what should have been done.
"""

import json
from pathlib import Path

import numpy as np
import torch

from xwam.cli.app import SHIPPED
from xwam.evaluate import FIRST_DREAM_SEED, Job, opened
from xwam.imagine.choosing import inconsistency_m, seeds_of
from xwam.imagine.present import Present, moments_of
from xwam.scene.estimates import bootstrapped
from xwam.scene.motion import action_errors
from xwam.scene.score import Truth
from xwam.sim.env import tasks_of
from xwam.wam import WorldActionModel

RESULTS = Path(__file__).parent / "results" / "best_of.json"
CANDIDATES, SHARES = 4, [0.4]
ASKED = {
    "changed/static/psnr_db": 1.0,
    "all/every/abs_rel": 1.0,
    "all/every/chamfer_m": 1000.0,
    "all/mounted/position_m": 1000.0,
}


def candidates(model: WorldActionModel, moment: Present) -> dict[str, list[float]]:
    """Of each candidate its inconsistency and its errors."""
    true, robot = moment.truth, model.embodiment
    truth = Truth(true.scene, robot.still_cameras)
    found: dict[str, list[float]] = {}
    for seed in seeds_of(FIRST_DREAM_SEED, CANDIDATES):
        dream = model.imagine(moment.observation, seed)
        flat = truth.score(dream.scene).flat()
        numbers = {name: scale * flat[name] for name, scale in ASKED.items()}
        frames = len(true.proprio) - 1
        errors = action_errors(dream.chunk.actions, true.actions, true.action_names, true.action_units, frames)
        numbers["action, mm"] = float(next(iter(errors.values())).mean())
        numbers["inconsistency, mm"] = 1000 * inconsistency_m(dream)
        for name, value in numbers.items():
            found.setdefault(name, []).append(value)
    return found


def main() -> None:
    torch.set_num_threads(1)
    chosen_less_mean, means = [], []
    for task in tasks_of(["metaworld/mt10"]):
        model, environment = opened(Job(SHIPPED, task, FIRST_DREAM_SEED, execute=1))
        for moment in moments_of(model, environment, FIRST_DREAM_SEED, SHARES):
            found = candidates(model, moment)
            best = int(np.argmin(found["inconsistency, mm"]))
            names = list(found)
            chosen_less_mean.append([found[name][best] - np.mean(found[name]) for name in names])
            means.append([np.mean(found[name]) for name in names])
            print(task, {name: [round(value, 3) for value in values] for name, values in found.items()}, flush=True)
    differences, overall = bootstrapped(np.array(chosen_less_mean), seed=0), np.mean(means, axis=0)
    told = {
        name: {"mean_of_all": float(mean), "chosen_less_mean": one.mean, "low": one.low, "high": one.high}
        for name, mean, one in zip(names, overall, differences, strict=True)
    }
    asked = {"model": "nano", "candidates": CANDIDATES, "moments": len(means)}
    RESULTS.write_text(json.dumps({"asked": asked, "measured": told}, indent=1))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
