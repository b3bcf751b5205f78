"""Clips: windows of episodes with some frames of every camera and all actions between them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from xwam.core.embodiment import Embodiment
from xwam.core.types import Clip
from xwam.data.episodes import EpisodeStore
from xwam.data.transforms import ClipTransform, stacked


class Window(NamedTuple):
    """Rows of an episode that make a clip; past the end the last row repeats and actions are not valid."""

    frames: Int[np.ndarray, " T"]
    actions: Int[np.ndarray, " A"]
    actions_valid: Bool[np.ndarray, " A"]


def window(length: int, start: int, frames: int, actions_per_frame: int) -> Window:
    """`frames` rows from `start` on, `actions_per_frame` apart, and the rows between the first and the last."""
    frame_rows = start + actions_per_frame * np.arange(frames)
    action_rows = start + np.arange((frames - 1) * actions_per_frame)
    last = length - 1
    return Window(np.minimum(frame_rows, last), np.minimum(action_rows, last), action_rows <= last)


def split(store: EpisodeStore, held_out: int | float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Episodes for training and for validation; of each environment a number, or below 1 a share, is held out.

    An environment's draw depends on its name and `seed` alone, so further environments leave it as it is.
    """
    validation = np.zeros(len(store), bool)
    for name, episodes in store.index.by_environment().items():
        count = round(held_out * len(episodes)) if held_out < 1 else int(held_out)
        if not 0 <= count < len(episodes):
            raise ValueError(
                f"held_out {held_out} of the {len(episodes)} episodes of {name!r}: hold out fewer, or record more"
            )
        validation[np.random.default_rng([seed, crc32(name.encode())]).permutation(episodes)[:count]] = True
    return np.flatnonzero(~validation).tolist(), np.flatnonzero(validation).tolist()


class ClipId(NamedTuple):
    """What a clip is called outside: its dataset's folder, its episode and where that was, and its first row."""

    dataset: str
    environment: str
    episode: int
    row: int

    def __str__(self) -> str:
        return f"{self.dataset} {self.environment} episode {self.episode} row {self.row}"


class ClipIndex:
    """All clips of some episodes (all if None), which start `start_stride` rows apart; a few numbers an episode.

    Each clip has at least its second frame within the episode, if that is long enough.
    """

    def __init__(
        self,
        store: EpisodeStore,
        embodiment: Embodiment,
        frames: int,
        *,
        episodes: Sequence[int] | None = None,
        start_stride: int = 1,
    ):
        if frames < 1 or start_stride < 1:
            raise ValueError(f"clips of {frames} frames every {start_stride} rows: both must be at least 1")
        self.frames, self.actions_per_frame, self._start_stride = frames, embodiment.actions_per_frame, start_stride
        self._episodes = np.asarray(range(len(store)) if episodes is None else episodes, dtype=np.int32)
        self._lengths = store.index.lengths[self._episodes]
        counts = -(-np.maximum(1, self._lengths - self.actions_per_frame) // start_stride)
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, clips: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Each clip's episode and the row on which it starts."""
        episodes, starts, _ = self._place(clips)
        return episodes, starts

    def ids(self, store: EpisodeStore, clips: Int[np.ndarray, " n"]) -> list[ClipId]:
        """What the clips are called; `store` is the index's own."""
        places = zip(*(x.tolist() for x in self.place(clips)), strict=True)
        return [ClipId(store.root.name, store.info(at).environment, at, row) for at, row in places]

    def window(self, clip: int) -> tuple[int, Window]:
        """A clip's episode and rows."""
        [episode], [start], [length] = self._place(np.array([clip]))
        return int(episode), window(int(length), int(start), self.frames, self.actions_per_frame)

    def _place(self, clips: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(clips) and not 0 <= clips.min() <= clips.max() < len(self):
            raise ValueError(f"clips {clips.min()} .. {clips.max()}: there are {len(self)}")
        which = np.searchsorted(self._ends, clips, side="right")
        first = np.where(which > 0, self._ends[which - 1], 0)
        return self._episodes[which], (clips - first) * self._start_stride, self._lengths[which]


class ClipDataset:
    """Clips decoded from disk, with the robot's cameras in its order; without `depth`, that is left alone."""

    def __init__(
        self,
        store: EpisodeStore,
        index: ClipIndex,
        embodiment: Embodiment,
        transform: ClipTransform | None = None,
        depth: bool = True,
    ):
        check_dataset(store, embodiment, one_size=transform is None)
        self._store, self._index, self._embodiment = store, index, embodiment
        self._transform, self._depth = transform, depth

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, clip: int) -> Clip:
        if not 0 <= clip < len(self):  # IndexError ends a for loop over the clips
            raise IndexError(f"clip {clip}: there are {len(self)}")
        return self.at(clip, draw=0)

    def at(self, clip: int, draw: int) -> Clip:
        """A clip as its `draw`-th showing: wording and augmentation depend on (clip, draw) alone."""
        episode, rows = self._index.window(clip)
        instruction = wording(self._store.info(episode).instructions, clip, draw)
        seed = crc32(f"{clip} {draw}".encode())
        loading = (self._store, episode, rows, self._embodiment, instruction)
        return load_clip(*loading, transform=self._transform, seed=seed, depth=self._depth)

    def ids(self, clips: Int[np.ndarray, " n"]) -> list[ClipId]:
        """What the clips are called."""
        return self._index.ids(self._store, clips)

    def files(self, clip: int) -> list[Path]:
        """The files that hold the clip."""
        episode, _ = self._index.window(clip)
        return [path for path, _ in self._store.files(episode, self._embodiment.camera_names)]


def wording(instructions: Sequence[str], clip: int, draw: int) -> str:
    """One of an episode's wordings; which, depends on the clip and on how often it was shown."""
    return instructions[np.random.default_rng([draw, clip]).integers(len(instructions))]


def check_dataset(store: EpisodeStore, embodiment: Embodiment, one_size: bool = False) -> None:
    """Raises if the dataset is not of this robot, or, if that is asked for, if its cameras differ in size."""
    cameras = [store.spec.camera(name) for name in embodiment.camera_names]
    sizes = {(camera.height, camera.width) for camera in cameras}
    if one_size and len(sizes) > 1:
        raise ValueError(f"cameras of {store.root} have the sizes {sorted(sizes)}: give a transform to one size")
    for name, vector in (("proprio", embodiment.proprio), ("action", embodiment.action)):
        try:
            vector.columns_in(getattr(store.spec, name))
        except ValueError as error:
            about = f"{name} of {store.root} is not that of embodiment {embodiment.name!r}"
            raise ValueError(f"{about}: {error}") from error


def load_clip(
    store: EpisodeStore,
    episode: int,
    rows: Window,
    embodiment: Embodiment,
    instruction: str,
    *,
    transform: ClipTransform | None = None,
    seed: int = 0,
    depth: bool = True,
) -> Clip:
    """Decodes a clip; calibration is None unless all cameras have it, depth if none has; else it is 0 where unknown.

    Cameras of different sizes need a transform, which takes its random numbers from `seed`.
    """
    names = embodiment.camera_names
    views = store.read(episode, rows.frames, names, depth)
    proprio, actions = store.vectors(episode, embodiment)
    rgb, intrinsics, T_base_cam = (
        [arrays[name] for name in names] if all(name in arrays for name in names) else None
        for arrays in (views.rgb, views.intrinsics, views.T_base_cam)
    )
    depth_m = None
    if views.depth_m:
        measured = views.depth_m
        depth_m = [measured[name] if name in measured else _nothing(views.rgb[name]) for name in names]
    if transform is None:
        pixels = tuple(arrays and stacked(arrays) for arrays in (rgb, depth_m, intrinsics))
    else:
        pixels = transform.of_views(rgb, depth_m, intrinsics, seed)
    return Clip(
        names,
        *pixels,
        T_base_cam=T_base_cam and np.stack(T_base_cam),
        proprio=proprio[rows.frames],
        actions=actions[rows.actions] * rows.actions_valid[:, None],
        actions_valid=rows.actions_valid,
        instruction=instruction,
        period_s=embodiment.frame_period_s,
        depth_scale=store.spec.depth_scale,
    )


def _nothing(rgb: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T H W"]:
    """Depth of a camera that measures none."""
    return np.zeros(rgb.shape[:3], np.float32)
