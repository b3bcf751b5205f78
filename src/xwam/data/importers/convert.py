"""A recording of another format becomes a dataset, which appears whole or not at all; a stopped import goes on.

.DEST.importing/           beside DEST, until the end; see `staging`
    damaged/00003.json     episodes that were left out of shard 3, put in place before the shard
    dataset/               becomes DEST
"""

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from xwam.core.config import Frozen, problems
from xwam.core.embodiment import Embodiment
from xwam.core.files import write_json
from xwam.data.episodes import Episode, EpisodeStore
from xwam.data.finalise import finalise
from xwam.data.importers.files import files_below, fingerprint
from xwam.data.importers.motion import Vectors
from xwam.data.importers.proof import prove
from xwam.data.importers.registry import format_named, recognise
from xwam.data.importers.report import REPORT_PATH, Damaged, ImportReport
from xwam.data.importers.source import ImportSettings, LinkedSource, Source
from xwam.data.processes import progress_bar, run_all
from xwam.data.staging import check_places, code_fingerprint, staging
from xwam.data.writer import ShardWriter, describe_robot, published

DAMAGED, DATASET = "damaged", "dataset"
MOST_DAMAGED = 0.1
# Small shards keep the work of a short import even; in a large one, ten episodes a file keep the files few.
MOST_EPISODES_PER_SHARD, LEAST_SHARDS = 10, 50
# Enough to tell a permuted column, and few enough to read in seconds.
PROVEN_EPISODES = 100


class ImportPlan(Frozen):
    """What an import depends on: a stopped one goes on only if all of it is as it was. `code` is that of our data."""

    source: str
    fingerprint: str
    format: str
    settings: ImportSettings
    code: str

    def in_words(self) -> dict[str, str]:
        return {
            "the recording": self.source,
            "the recording's files": self.fingerprint,
            "the format": self.format,
            "the settings": self.settings.model_dump_json(),
            "the installed version": self.code,
        }


def import_dataset(
    source: Path,
    dest: Path,
    settings: ImportSettings,
    format: str | None = None,
    workers: int = 2,
    skip_damaged: bool = False,
) -> ImportReport:
    """Imports the recording in `source` as the dataset `dest`, which must not exist yet, or be empty.

    Raises a ValueError that names the episode which cannot be imported, unless `skip_damaged` leaves it out: up to a
    tenth of all. Whatever goes wrong, `dest` stays as it was, and finished shards are kept for the next try.
    """
    source, dest = Path(os.path.abspath(source)), dest.resolve()
    check_places(source.resolve(), dest)
    form = format_named(format) if format else recognise(source)
    plan = ImportPlan(
        source=str(source),
        fingerprint=fingerprint(files_below(source)),
        format=form.NAME,
        settings=settings,
        code=code_fingerprint(),
    )
    try:
        opened = form.open_source(source, settings)
    except ValidationError as error:  # what a dataset cannot hold
        raise ValueError(f"{source}: {problems(error)}") from error
    with staging(dest, "importing", plan.in_words()) as folder:
        if isinstance(opened, LinkedSource):
            report = _link(folder, plan, opened)
        else:
            damaged = _convert(folder, plan, opened, workers, skip_damaged)
            report = _described(folder / DATASET, plan, opened, damaged)
        if fingerprint(files_below(source)) != plan.fingerprint:
            raise ValueError(f"{source} changed while it was imported: import it when nothing writes there")
        os.replace(folder / DATASET, dest)
        shutil.rmtree(folder)
    return report


def _link(folder: Path, plan: ImportPlan, source: LinkedSource) -> ImportReport:
    """Links to the recording, and reads it so; what is wrong is told by its own paths, and leaves nothing behind."""
    dataset = folder / DATASET
    try:
        source.link_into(dataset)
        return _described(dataset, plan, source, ())
    except ValueError as error:
        shutil.rmtree(folder)
        raise ValueError(str(error).replace(str(dataset), plan.source)) from error


# ---- episodes to shards ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """Some consecutive episodes, which one process imports."""

    index: int
    episodes: range


def shards_of(count: int) -> list[Shard]:
    """The shards of so many episodes."""
    size = min(max(count // LEAST_SHARDS, 1), MOST_EPISODES_PER_SHARD)
    return [Shard(k, range(first, min(first + size, count))) for k, first in enumerate(range(0, count, size))]


def _convert(folder: Path, plan: ImportPlan, source: Source, workers: int, skip_damaged: bool) -> list[Damaged]:
    """Imports the shards that are missing, and joins all of them; returns what was left out."""
    if not len(source):
        raise ValueError(f"{plan.source} holds no episode: give the folder of a recording that is complete")
    known = set(published(folder / DATASET))
    shards = shards_of(len(source))
    missing = [shard for shard in shards if shard.index not in known]
    damaged = [entry for shard in sorted(known) for entry in _left_out(folder, shard)]
    with progress_bar() as progress:
        left = sum(len(shard.episodes) for shard in missing)
        bar = progress.add_task("Importing episodes", total=len(source), completed=len(source) - left)
        jobs = [(folder, plan, shard, skip_damaged) for shard in missing]
        for k, shard in enumerate(run_all(import_shard, jobs, workers)):
            left -= len(shard.episodes)
            damaged += _left_out(folder, shard.index)
            progress.update(bar, completed=len(source) - left)
            _check_damaged(damaged, len(source))
            if k == 0:
                _check_room(folder, len(source) - left, left)
    for left_behind in (folder / DATASET).glob(".shard-*"):  # by a process that was killed between its last two acts
        shutil.rmtree(left_behind)
    finalise(folder / DATASET)
    return damaged


def import_shard(folder: Path, plan: ImportPlan, shard: Shard, skip_damaged: bool) -> Shard:
    """Imports the episodes of a shard; what is left out is told in a file of its own."""
    source, damaged = _opened(plan), []
    with ShardWriter(folder / DATASET, source.spec, shard.index) as writer:
        for index in shard.episodes:
            try:
                episode = _episode(source, index)
            except ValueError as error:
                if not skip_damaged:
                    named = "" if source.label(index) in str(error) else f"{source.label(index)}: "
                    raise ValueError(f"{named}{error}; --skip-damaged leaves it out") from error
                damaged.append(asdict(Damaged(source.label(index), str(error))))
                continue
            writer.add(episode)
        write_json(_damaged_path(folder, shard.index), damaged)
    return shard


@lru_cache(maxsize=1)
def _opened(plan: ImportPlan) -> Source:
    """The recording, opened once in each process."""
    return format_named(plan.format).open_source(Path(plan.source), plan.settings)


def _episode(source: Source, index: int) -> Episode:
    episode = source.episode(index)
    episode.check(source.spec)
    return episode


def _damaged_path(folder: Path, shard: int) -> Path:
    return folder / DAMAGED / f"{shard:05d}.json"


def _left_out(folder: Path, shard: int) -> list[Damaged]:
    return [Damaged(**entry) for entry in json.loads(_damaged_path(folder, shard).read_text())]


def _check_damaged(damaged: Sequence[Damaged], count: int) -> None:
    if len(damaged) > MOST_DAMAGED * count:
        told = "; ".join(f"{entry.label}: {entry.reason}" for entry in damaged[:3])
        raise ValueError(
            f"{len(damaged)} of {count} episodes are damaged, more than {MOST_DAMAGED:.0%}, so the format may be "
            f"another than was thought: {told}"
        )


def _check_room(folder: Path, done: int, left: int) -> None:
    """Raises if what is left will not fit, by what the first shards took: now rather than in some hours."""
    used = sum(file.size for file in files_below(folder))
    wanted, free = used / done * left, shutil.disk_usage(folder).free
    if wanted > free:
        advice = (
            f"{left} more episodes take about {wanted / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: "
            "free some space and start again; finished shards are kept"
        )
        raise OSError(errno.ENOSPC, advice, str(folder))


# ---- what is known of the dataset --------------------------------------------------------------------------------


def _described(
    dataset: Path, plan: ImportPlan, source: Source | LinkedSource, damaged: Sequence[Damaged]
) -> ImportReport:
    """Tests the dataset by reading it, proves what actions mean, and writes both the robot and this report into it."""
    store, robot = EpisodeStore(dataset), source.embodiment
    lengths = [store.info(episode).length for episode in range(len(store))]
    for episode in (0, len(store) - 1):
        store.read(episode, [0, lengths[episode] - 1])
    chosen = np.unique(np.linspace(0, len(store) - 1, PROVEN_EPISODES).astype(int)).tolist()
    report = ImportReport(
        format=plan.format,
        source=Path(plan.source).name,
        fingerprint=plan.fingerprint,
        settings=plan.settings,
        episodes=len(store),
        rows=sum(lengths),
        assumptions=source.assumptions,
        proofs=tuple(prove(robot, source.claims, (_finite_vectors(store, episode, robot) for episode in chosen))),
        damaged=tuple(damaged),
    )
    describe_robot(dataset, robot, report.remarks())
    write_json(dataset / REPORT_PATH, report.content())
    return report


def _finite_vectors(store: EpisodeStore, episode: int, robot: Embodiment) -> Vectors:
    vectors = store.vectors(episode, robot)
    if not all(np.isfinite(rows).all() for rows in vectors):
        [(table, _)] = store.files(episode, ())
        raise ValueError(f"{table}: states or actions of episode {episode} hold NaN or infinity: mend or remove them")
    return vectors
