"""Files that appear whole or not at all, and JSON."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from platform import node


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a file beside `path`, then puts it in place, so that no reader ever sees half of it.

    Whatever goes wrong, `path` stays as it was. Of a full disk an OSError tells, with the mend.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # machines that share a folder may have processes of one number
    temporary = path.with_name(f".{path.name}.{node()}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # safetensors tells of it in words alone
        if getattr(error, "errno", None) == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(error):
            raise OSError(errno.ENOSPC, "disk full: free some space and start again", str(path)) from error
        raise


def write_json(path: Path, content: object) -> None:
    write_atomically(path, lambda file: file.write_text(json.dumps(content, indent=1)))


def read_json(path: Path) -> dict:
    """The object in a JSON file, or a ValueError that names the file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): copy it again, or restore it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, needs a JSON object: copy it again, or restore it")
    return content


def write_folder_atomically(folder: Path, mark: str, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a folder beside `folder`, then puts it in place: it is there as a whole or not at all.

    One that holds the file `mark`, so was written like this, is replaced. Raises ValueError if other things are there.
    """
    if folder.exists() and not (folder / mark).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds other things: name a folder that does not exist, or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (folder.with_name(f".{folder.name}.{node()}.{os.getpid()}.{state}") for state in ("new", "old"))
    for left_by_a_killed_process in (temporary, old):
        shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
    try:
        temporary.mkdir()
        write(temporary)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, "disk full: free some space and start again", str(folder)) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
