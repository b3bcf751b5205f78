"""How well clouds of two of Meta-World's cameras, lifted from true RGB-D, agree in the robot's base frame.

    python benchmarks/two_cameras.py            # MT10, all pairs of its three cameras: a minute of one core

A point that camera a sees is compared with what camera b sees, unless it is hidden from b by more than 5 cm. Told are
the gap to b's surface along b's ray (docs/scoring.md), and the distance to b's nearest point in units of the spacing of
b's points there, the longer of those to the next column and to the next row: two samplings of one surface cannot agree
better than to most of one spacing.
"""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from xwam.core.cameras import unproject
from xwam.core.types import Observation
from xwam.scene.consistency import CAP_M, gaps
from xwam.scene.surface import MAX_INCIDENCE_DEG, on_surface
from xwam.sim.env import make_environment, tasks_of
from xwam.sim.record import FIRST_EVALUATION_SEED

RESULTS = Path(__file__).parent / "results" / "two_cameras.json"
STEPS = (0, 20, 60)
SIZE = 128


def compared(seen: Observation, far_m: dict[str, float]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each ordered pair of cameras, sizes of gaps in metres, and distances to nearest points in spacings."""
    names = tuple(seen.images)
    depth_m = np.stack([np.where(seen.depths_m[name] <= far_m[name], seen.depths_m[name], 0) for name in names])
    K, poses = (np.stack([field[name] for name in names]) for field in (seen.intrinsics, seen.T_base_cam))
    points_m, firm = unproject(depth_m, K, poses), on_surface(depth_m, K, MAX_INCIDENCE_DEG) & (depth_m > 0)
    spacing_m = np.zeros(depth_m.shape)
    spacing_m[:, :-1, :-1] = np.maximum(
        np.linalg.norm(np.diff(points_m, axis=2), axis=-1)[:, :-1],
        np.linalg.norm(np.diff(points_m, axis=1), axis=-1)[:, :, :-1],
    )
    found, apart = gaps(depth_m, K, poses), {}
    for a, b in permutations(range(len(names)), 2):
        sampled = firm[b] & (spacing_m[b] > 0)
        both = found[a, b] <= CAP_M
        distance_m, nearest = KDTree(points_m[b][sampled]).query(points_m[a][both])
        apart[f"{names[a]} in {names[b]}"] = np.abs(found[a, b][both]), distance_m / spacing_m[b][sampled][nearest]
    return apart


def measured(task: str) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """The same at some steps of an expert's episode."""
    environment, found = make_environment(task, SIZE, SIZE), {}
    try:
        environment.reset(FIRST_EVALUATION_SEED)
        far_m = {camera.name: camera.far_m for camera in environment.embodiment.cameras}
        for step in range(max(STEPS) + 1):
            if step in STEPS:
                for pair, values in compared(environment.observe(depth=True), far_m).items():
                    found.setdefault(pair, []).append(values)
            environment.step(environment.expert_action())
    finally:
        environment.close()
    return found


def told(values: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    gap_m, spacings = (np.concatenate(parts) for parts in zip(*values, strict=True))
    return {
        "points": len(gap_m),
        "gap_median_mm": 1000 * float(np.median(gap_m)),
        "gap_95_mm": 1000 * float(np.quantile(gap_m, 0.95)),
        "nearest_median_spacings": float(np.median(spacings)),
        "nearest_95_spacings": float(np.quantile(spacings, 0.95)),
        "within_a_spacing": float((spacings <= 1).mean()),
    }


def main() -> None:
    by_task, by_pair = {}, {}
    for task in tasks_of(["metaworld/mt10"]):
        found = measured(task)
        by_task[task] = told([values for pair in found.values() for values in pair])
        for pair, values in found.items():
            by_pair.setdefault(pair, []).extend(values)
        print(task, {name: round(value, 3) for name, value in by_task[task].items()}, flush=True)
    pairs = {pair: told(values) for pair, values in by_pair.items()}
    for pair, numbers in pairs.items():
        print(pair, {name: round(value, 3) for name, value in numbers.items()})
    asked = {"size": SIZE, "steps": STEPS, "seed": FIRST_EVALUATION_SEED}
    RESULTS.write_text(json.dumps({"asked": asked, "tasks": by_task, "pairs": pairs}, indent=1))


if __name__ == "__main__":
    main()
