"""What an episode's latents are made from, as digests: they change with any byte of its videos, states or actions.

Hashing a video file takes as long as reading it, so a digest is remembered with the size and the time of change of the
file, and holds until either differs.
"""

from collections.abc import Callable
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path

from xwam.core.embodiment import Embodiment
from xwam.core.files import read_json, write_json
from xwam.data.episodes import EpisodeStore

# What is remembered of a file or of a part of it: size in bytes, time of change in ns, digest
Entry = list[int | str]


class Digests:
    """Digests of files, remembered as JSON in `folder`; without `trust` each is made anew, once."""

    def __init__(self, folder: Path, trust: bool = True):
        self._folder, self._trust = folder, trust
        self._known: dict[str, Entry] = {}

    def of(self, name: str, file: Path, make: Callable[[], str]) -> Entry:
        """The entry `name`, which depends on nothing but `file`."""
        stat = file.stat()
        known = self._known.get(name)
        if known is None or known[:2] != [stat.st_size, stat.st_mtime_ns]:
            known = self._known[name] = [stat.st_size, stat.st_mtime_ns, make()]
        return known

    def recall(self, part: str) -> None:
        """Takes in what `keep` wrote about `part` of a dataset, in whatever process."""
        path = self._folder / f"{part}.json"
        for name, entry in read_json(path).items() if self._trust and path.exists() else ():
            self._known.setdefault(name, entry)

    def keep(self, part: str, entries: dict[str, Entry]) -> None:
        """Remembers the entries on which `part` depends."""
        path = self._folder / f"{part}.json"
        if not path.exists() or read_json(path) != entries:
            write_json(path, entries)


def episode_sources(store: EpisodeStore, episode: int, embodiment: Embodiment, digests: Digests) -> dict[str, Entry]:
    """Entries of what an episode is read from: of its table the robot's columns, its cameras' videos whole."""
    (table, first), *videos = store.files(episode, embodiment.camera_names)

    def vectors() -> str:
        digest = sha256()
        for rows in store.vectors(episode, embodiment):
            digest.update(f"{rows.shape};".encode() + rows.tobytes())
        return digest.hexdigest()

    columns = repr([embodiment.proprio.column_names, embodiment.action.column_names])
    span = f"rows {first} to {first + store.info(episode).length}"
    name = f"{table.relative_to(store.root).as_posix()} {span} of {sha256(columns.encode()).hexdigest()[:16]}"
    entries = {name: digests.of(name, table, vectors)}
    for path, _ in videos:
        name = path.relative_to(store.root).as_posix()
        entries[name] = digests.of(name, path, partial(content_digest, path))
    return entries


def content_digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(file, "rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
