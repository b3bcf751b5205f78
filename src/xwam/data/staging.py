"""Long work whose result appears whole or not at all: a folder beside the destination, for one process at a time.

.DEST.<verb>/      beside DEST, until the end
    plan.json      what is being made of what; other work does not go on here
    lock           held by the process that works
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import xwam.core
import xwam.data
from xwam.core.files import read_json, write_json

PLAN, LOCK = "plan.json", "lock"


def check_places(source: Path, dest: Path) -> None:
    """Raises unless `dest` is free: it does not exist or is an empty folder, and lies apart from `source`."""
    if dest.exists() and not (dest.is_dir() and not any(dest.iterdir())):
        raise ValueError(f"{dest} holds something already: name a folder that does not exist, or remove it first")
    if dest.is_relative_to(source) or source.is_relative_to(dest):
        raise ValueError(f"{dest} and {source} lie within each other: name a destination beside the source")


def code_fingerprint() -> str:
    """Of the code that decides what files hold: after an update, new ones would not match those that are there."""
    digest = sha256()
    rooms = [Path(room.__file__).parent for room in (xwam.core, xwam.data)]
    for path in sorted(path for room in rooms for path in room.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def staging(dest: Path, verb: str, plan: Mapping[str, str]) -> Iterator[Path]:
    """The folder of this work, new or as it was left, for this process alone.

    Raises a ValueError if another process works there, or if the work was begun with another plan; a plan names
    whatever the result depends on, in words for people.
    """
    folder = dest.with_name(f".{dest.name}.{verb}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made ({error}): name a destination elsewhere") from error
    with open(folder / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is {verb} to {dest}: wait for it, or end it") from error
        _check_plan(folder, verb, plan)
        yield folder


def _check_plan(folder: Path, verb: str, plan: Mapping[str, str]) -> None:
    path = folder / PLAN
    if not path.exists():
        write_json(path, dict(plan))
        return
    try:
        begun = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; or remove {folder} to begin anew") from error
    if changed := [name for name in {**begun, **plan} if begun.get(name) != plan.get(name)]:
        raise ValueError(
            f"{verb} was begun in {folder}, and since then {' and '.join(changed)} changed: "
            "go on as before, or remove that folder to begin anew"
        )
