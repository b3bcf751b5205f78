"""The batches of coming steps, made while the present one is in use."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

# Each holds two batches ahead in shared memory.
MOST_LOADERS = 8


def loaders_for(device: torch.device) -> int:
    """Processes that keep up with a GPU, of those that its rank may have; beside a network on the CPU none."""
    if device.type != "cuda":
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min(MOST_LOADERS, max(1, cores // 2))


def prefetched(load: Callable[[int], Any], steps: range, loaders: int = 0, pinned: bool = False) -> Iterator[Any]:
    """load(step) for each step in order, made ahead: by so many processes, or by one thread of this one.

    A process takes its copy of what `load` holds when it begins; with `pinned`, batches come in pinned memory.
    """
    if loaders and len(steps):
        yield from DataLoader(_Steps(load), None, sampler=steps, num_workers=loaders, pin_memory=pinned)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        coming = [pool.submit(load, step) for step in steps[:1]]
        for step in steps:
            batch = coming.pop().result()
            if step + 1 in steps:
                coming.append(pool.submit(load, step + 1))
            yield batch


class _Steps(Dataset):
    """A function of the step, as torch's loader asks for items."""

    def __init__(self, load: Callable[[int], Any]):
        self._load = load

    def __getitem__(self, step: int) -> Any:
        return self._load(step)
