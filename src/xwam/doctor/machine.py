"""Processors, memory, disk, and what the system allows."""

import os
import resource
import shutil
from pathlib import Path

from xwam.doctor.finding import Finding
from xwam.doctor.needs import Needs

GB = 1e9
SHARED = Path("/dev/shm")
SHARED_BYTES = 1e9
# A store keeps up to 128 videos open in each of its threads.
OPEN_FILES = 1024


def check_gpu(needs: Needs) -> list[Finding]:
    """Each GPU, with room for the recipe or without."""
    try:
        gpus = _gpus()
    except ImportError:
        return [Finding("GPU", "warning", "cannot be seen without torch", "pip install 'xwam[model]'")]
    if not gpus and shutil.which("nvidia-smi"):
        told = "there is a driver, but this build of torch sees no GPU"
        return [Finding("GPU", "warning", told, "pip install --force-reinstall torch")]
    if not gpus:
        slow = "runs on the CPU" if needs.trains else "is too slow for a robot on the CPU"
        return [Finding("GPU", "ok" if needs.trains else "warning", f"none: {needs.recipe} {slow}")]
    findings = []
    for name, free, total, bf16 in gpus:
        told = f"{name}: {free / GB:.1f} of {total / GB:.1f} GB free, {'with' if bf16 else 'without'} bfloat16"
        short = needs.device is not None and free < needs.device
        if short:
            told += f"; {needs.recipe} takes about {needs.device / GB:.1f} GB"
        mend = _smaller(needs) if needs.trains else "nvidia-smi"
        findings.append(Finding("GPU", "failed", told, mend) if short else Finding("GPU", "ok", told))
    # one that has room is enough
    enough = any(finding.state == "ok" for finding in findings)
    return [Finding("GPU", "warning", x.told) if enough and x.state == "failed" else x for x in findings]


def _gpus() -> list[tuple[str, float, float, bool]]:
    """Name, free and total bytes, and whether it computes in bfloat16."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        with torch.cuda.device(index):
            free, total = torch.cuda.mem_get_info()
            found.append(
                (torch.cuda.get_device_name(), free, total, torch.cuda.is_bf16_supported(including_emulation=False))
            )
    return found


def check_memory(needs: Needs) -> list[Finding]:
    """RAM against what the recipe takes of it; all of it where there is no GPU."""
    if needs.device is None:
        told = f"what {needs.recipe} takes can only be told with its packages"
        mend = f"pip install 'xwam[{','.join(needs.extras)}]'"
        return [Finding("memory", "failed", told, mend)]
    wanted = needs.host + (0 if _gpus() else needs.device)
    free = _free_memory()
    told = f"{free / GB:.1f} GB free, {needs.recipe} takes about {wanted / GB:.1f} GB"
    mend = _smaller(needs) if needs.trains else "ps -eo rss,pid,args --sort=-rss | head"
    return [Finding("memory", "ok", told) if free > wanted else Finding("memory", "failed", told, mend)]


def _smaller(needs: Needs) -> str:
    if "wan" in needs.extras:
        return f"xwam train {needs.recipe} --plan"
    return f"xwam train {needs.recipe} --set batch_size={max(1, needs.batch_size // 2)}"


def _free_memory() -> float:
    """Bytes that can be had without swapping, also within a container's limit."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return free if allowed == "max" else min(free, int(allowed))


def check_disk(needs: Needs, dataset: Path, weights: Path | None) -> list[Finding]:
    """Room for what is still to be written: the recording and the run with its latents, or published weights."""
    places = {"disk for the dataset": (dataset, needs.dataset), "disk for runs": (Path("runs"), needs.run)}
    if not needs.trains:
        places = {"disk for weights": (Path("checkpoints"), 0 if weights and weights.exists() else needs.run)}
    findings = []
    for name, (path, wanted) in places.items():
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free
        told = f"{free / GB:.0f} GB free in {there}, about {wanted / GB:.1f} GB still to be written"
        enough = Finding(name, "ok", told)
        findings.append(enough if free > wanted else Finding(name, "failed", told, f"du -xh {there} | sort -h | tail"))
    return findings


def check_cores(needs: Needs) -> list[Finding]:
    cores = len(os.sched_getaffinity(0))
    if cores > 1:
        return [Finding("CPU", "ok", f"{cores} cores")]
    return [Finding("CPU", "warning", "one core: all takes twice as long as said", "xwam record --workers 1")]


def check_shared_memory(needs: Needs) -> list[Finding]:
    """Containers often have 64 MB, too little for processes that hand each other batches."""
    total = shutil.disk_usage(SHARED).total if SHARED.exists() else 0
    told = f"{total / GB:.2f} GB in {SHARED}"
    if total >= SHARED_BYTES:
        return [Finding("shared memory", "ok", told)]
    mend = f"sudo mount -o remount,size=8G {SHARED}"
    return [Finding("shared memory", "warning", f"{told}; in a container give --shm-size=8g", mend)]


def check_open_files(needs: Needs) -> list[Finding]:
    limit, most = (
        float("inf") if x == resource.RLIM_INFINITY else x for x in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if limit >= OPEN_FILES:
        return [Finding("open files", "ok", f"{limit} at once")]
    mend = f"ulimit -n {OPEN_FILES}" if most >= OPEN_FILES else f"sudo prlimit --pid $$ --nofile={OPEN_FILES}"
    return [Finding("open files", "warning", f"{limit} at once; large datasets need {OPEN_FILES}", mend)]
