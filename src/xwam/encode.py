"""`xwam encode`: latents and text ahead of training, by processes here or by tasks of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, Literal

from xwam.data.processes import Pool, in_processes
from xwam.train.encoding import EncodingJob, Summary, encode_ahead
from xwam.train.runs import AutoencoderRun, ModelRun


def encode(
    run: ModelRun | AutoencoderRun,
    workers: int,
    engine: Literal["processes", "ray"],
    shard_episodes: int | None,
    verify: bool,
) -> None:
    """Makes what is missing and is not being made by others, and says what there is now."""
    if not isinstance(run, ModelRun):
        raise ValueError("an autoencoder trains on pixels, not on latents: name the recipe of a model, such as nano")
    for job in run.encoding_jobs(shard_episodes, verify):
        _tell(job, encode_ahead(job, in_ray(job.device) if engine == "ray" else in_processes(workers), wait=False))


def _tell(job: EncodingJob, summary: Summary) -> None:
    print(f"{summary.pieces - summary.claimed} of {summary.pieces} shards in {job.folder}: {summary.made} made now")
    if summary.stale:
        print(f"{summary.stale} of these were stale or damaged before")
    if summary.claimed:
        print(f"{summary.claimed} are with other workers; the same command later makes what they leave undone")


def in_ray(device: str) -> Pool:
    """A task a shard on the Ray cluster that RAY_ADDRESS names, else on this machine; a GPU for each, if there are."""
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: pip install ray") from error

    def results(function: Callable[..., Any], calls: Sequence[tuple]) -> Iterator[Any]:
        ray.init(ignore_reinit_error=True)
        gpus = int(device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0)
        task = ray.remote(num_cpus=1, num_gpus=gpus)(function)
        waiting = [task.remote(*call) for call in calls]
        while waiting:
            finished, waiting = ray.wait(waiting)
            yield from ray.get(finished)

    return results
