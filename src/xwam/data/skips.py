"""Clips that cannot be read do not end a training of days: another is shown, and everybody hears of it."""

import threading
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from rich.console import Console

from xwam.core.types import Clip
from xwam.data.clips import ClipDataset, ClipId
from xwam.data.sampling import permuted

# More than this share of all clips that were shown, and more than so many, is no accident.
MOST_SHARE, ALWAYS_FINE = 0.01, 20
TRIES = 20


@dataclass(frozen=True)
class Skip:
    """A clip that could not be read, and why: the reason names the file."""

    clip: int
    reason: str


class ReadableClips:
    """The clips of a dataset; in place of one that cannot be read another, the same one whenever it is asked for.

    A clip that failed is not tried again. Raises RuntimeError that names some of them when they get too many.
    """

    def __init__(self, dataset: ClipDataset):
        self._dataset, self._lock, self._shown = dataset, threading.Lock(), 0
        self._skips: dict[int, Skip] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def ids(self, clips: Int[np.ndarray, " n"]) -> list[ClipId]:
        """What the clips are called that are asked for; another may have been shown in the place of one."""
        return self._dataset.ids(clips)

    @property
    def skips(self) -> tuple[Skip, ...]:
        return tuple(self._skips.values())

    def at(self, clip: int, draw: int) -> Clip:
        """A clip as its `draw`-th showing, or that of the first one in a row of others that can be read."""
        with self._lock:
            self._shown += 1
        for attempt in range(TRIES):
            chosen = clip if attempt == 0 else int(permuted(len(self), (attempt, draw), np.array([clip]))[0])
            if chosen in self._skips:
                continue
            try:
                return self._dataset.at(chosen, draw)
            except (ValueError, OSError) as error:
                self._skip(Skip(chosen, str(error)))
        raise self._too_many()

    def _skip(self, skip: Skip) -> None:
        """Notes it, and says so once for each reason, such as a damaged file that many clips lie in."""
        with self._lock:
            known = {other.reason for other in self._skips.values()}
            self._skips[skip.clip] = skip
            if skip.reason not in known:
                Console(stderr=True).print(f"Skipping clip {skip.clip}: {skip.reason}", markup=False, style="yellow")
            if len(self._skips) > max(ALWAYS_FINE, MOST_SHARE * self._shown):
                raise self._too_many()

    def _too_many(self) -> RuntimeError:
        reasons = list(dict.fromkeys(skip.reason for skip in self._skips.values()))
        more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        return RuntimeError(
            f"{len(self._skips)} of {self._shown} clips could not be read, which is too many to go on: "
            f"{'; '.join(reasons[:3])}{more}. `xwam validate` finds all that is damaged"
        )
