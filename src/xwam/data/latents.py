"""Clips encoded ahead: what a folder of latents holds, and training from it.

latents.json                how they were made, and which episodes each shard holds; for people, but for the numbers
shard-00000.safetensors     latents of all clips of some episodes, states and actions of all their rows
text-00000.safetensors      embeddings of instructions, if a frozen encoder makes them (xwam.data.texts)
sources/, claims/           digests of the dataset's files, and who works on what
version-1/, ...             the same of other versions of the clips, cropped and recoloured at random
"""

import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator

from xwam.core.config import Frozen
from xwam.core.embodiment import Embodiment
from xwam.core.files import read_json, write_json
from xwam.core.streams import Batch, Streams
from xwam.core.types import Clip
from xwam.data.batches import normalised
from xwam.data.clips import ClipDataset, ClipId, ClipIndex, check_dataset, window, wording
from xwam.data.episodes import EpisodeStore
from xwam.data.shards import Shard, gather, remove_leftovers, stored_fingerprint
from xwam.data.sources import Digests, episode_sources
from xwam.data.transforms import ClipTransform

PLAN = "latents.json"
SHARD_EPISODES = 10
# To be raised when the same settings would give other latents, or a shard looks otherwise.
FORMAT = 1
OPEN_SHARDS = 256


class LatentSettings(Frozen):
    """What latents depend on besides the recording; `autoencoder` is a fingerprint of its weights.

    Version 0 is what the model will see in use; each other one crops every camera and recolours all, by the episode.
    """

    autoencoder: str
    transform: ClipTransform
    frames: int
    start_stride: int = 1
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    dtype: Literal["float16", "bfloat16"] = "float16"
    version: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _the_same_each_time(self) -> Self:
        if self.transform.train:
            raise ValueError("a transform that augments gives other pixels each time: latents need one without `train`")
        return self

    def shown_by(self, episode: int) -> tuple[ClipTransform, int]:
        """How the clips of an episode are transformed, and the seed of what is random in that."""
        seed = crc32(f"{episode} {self.version}".encode())
        return self.transform.model_copy(update={"train": self.version > 0}), seed


class LatentPlan:
    """Which shard holds which episodes, and the fingerprint of what each would be made from now.

    `shard_episodes` is kept from the folder if not given. With `verify` the dataset's files are hashed anew, though
    their sizes and times have not changed.
    """

    def __init__(
        self,
        folder: Path,
        store: EpisodeStore,
        embodiment: Embodiment,
        settings: LatentSettings,
        shard_episodes: int | None = None,
        verify: bool = False,
    ):
        check_dataset(store, embodiment)
        kept = read_json(folder / PLAN)["shard_episodes"] if (folder / PLAN).exists() else SHARD_EPISODES
        self.folder, self.store, self.embodiment, self.settings = folder, store, embodiment, settings
        self.shard_episodes = kept if shard_episodes is None else shard_episodes
        if self.shard_episodes < 1:
            raise ValueError(f"{shard_episodes} episodes a shard: give at least 1")
        self._digests = Digests(folder / "sources", trust=not verify)

    def __len__(self) -> int:
        """Number of shards."""
        return -(-len(self.store) // self.shard_episodes)

    def path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.safetensors"

    def shard_of(self, episode: int) -> int:
        return episode // self.shard_episodes

    def episodes(self, shard: int) -> range:
        first = shard * self.shard_episodes
        return range(first, min(first + self.shard_episodes, len(self.store)))

    def index(self, episodes: Sequence[int]) -> ClipIndex:
        """The clips of some episodes."""
        stride = self.settings.start_stride
        return ClipIndex(self.store, self.embodiment, self.settings.frames, episodes=episodes, start_stride=stride)

    def fingerprint(self, shard: int) -> str:
        """Differs as soon as the shard would."""
        store, robot, episodes = self.store, self.embodiment, self.episodes(shard)
        self._digests.recall(self.path(shard).stem)
        entries, sources = {}, []
        for episode in episodes:
            found = episode_sources(store, episode, robot, self._digests)
            begins = [first for _, first in store.files(episode, robot.camera_names)[1:]]
            sources.append([store.info(episode).length, begins, [digest for *_, digest in found.values()]])
            entries |= found
        self._digests.keep(self.path(shard).stem, entries)
        index = self.index(episodes)
        starts = index.place(np.arange(len(index)))[1].tolist()
        about = [FORMAT, self._settings_text, store.spec.fps, sources, sha256(repr(starts).encode()).hexdigest()]
        return sha256(json.dumps(about).encode()).hexdigest()

    def write(self) -> None:
        """Writes latents.json, if it is not there or tells of something else, and tidies up after the dead."""
        remove_leftovers(self.folder)
        spans = [self.episodes(shard) for shard in range(len(self))]
        content = {
            "format": FORMAT,
            "made_with": json.loads(self._settings_text),
            "dataset": {
                "robot": self.store.spec.robot,
                "episodes": len(self.store),
                "rows": int(self.store.index.lengths.sum()),
            },
            "shard_episodes": self.shard_episodes,
            "shards": {self.path(shard).name: [span[0], span[-1]] for shard, span in enumerate(spans)},
        }
        if not (self.folder / PLAN).exists() or read_json(self.folder / PLAN) != content:
            write_json(self.folder / PLAN, content)

    def check(self, shard: int) -> None:
        """Raises ValueError if a shard is missing, damaged, or was made from something else than what is there now."""
        path = self.path(shard)
        found = stored_fingerprint(path)
        if found != self.fingerprint(shard):
            state = "was made with other settings or from another recording" if found else "is missing or damaged"
            raise ValueError(f"{path} {state}: encode the dataset again")

    @cached_property
    def _settings_text(self) -> str:
        robot = self.embodiment
        # where a camera hangs matters to points in space, and to no pixel
        cameras = [camera.model_dump(mode="json", exclude={"mount", "T_ee_cam"}) for camera in robot.cameras]
        stored = [self.store.spec.camera(name).model_dump(mode="json") for name in robot.camera_names]
        about = {"cameras": cameras, "stored": stored, "actions_per_frame": robot.actions_per_frame}
        return json.dumps(about | {"settings": self.settings.model_dump(mode="json")}, sort_keys=True)


class LatentClips:
    """The clips of some episodes, read from their shards as they are needed; it can be pickled and forked.

    With more than one of the `versions` a clip is shown in another one each time, in turns.
    Raises ValueError if a shard is missing, damaged, or was made from something else than what is there now.
    """

    def __init__(
        self,
        folder: Path,
        store: EpisodeStore,
        embodiment: Embodiment,
        settings: LatentSettings,
        episodes: Sequence[int],
        versions: int = 1,
    ):
        if len(episodes) == 0:
            raise ValueError(f"no episodes to load latents of from {folder}: give at least one, or hold out fewer")
        self._plans = [
            LatentPlan(folder_of(folder, v), store, embodiment, settings.model_copy(update={"version": v}))
            for v in range(versions)
        ]
        self._plan = self._plans[0]
        self._index = self._plan.index(episodes)
        for plan in self._plans:
            for shard in sorted({plan.shard_of(episode) for episode in episodes}):
                plan.check(shard)
        self._forget()

    def __len__(self) -> int:
        return len(self._index)

    def ids(self, clips: Int[np.ndarray, " n"]) -> list[ClipId]:
        """What the clips are called."""
        return self._index.ids(self._plan.store, clips)

    def recorded(self, clip: int) -> Clip:
        """What a clip's latents were made from: the recorded pixels, cropped and resized as for the network."""
        plan = self._plan
        return ClipDataset(plan.store, self._index, plan.embodiment, plan.settings.transform).at(clip, draw=0)

    def batch(self, clips: Int[np.ndarray, " B"], draws: Int[np.ndarray, " B"]) -> Batch:
        plan, (episodes, starts) = self._plan, self._index.place(clips)
        versions = (clips + draws) % len(self._plans)
        opened = [self._opened(*at) for at in zip(versions.tolist(), episodes.tolist(), strict=True)]
        places = [shard.clip(*at) for shard, *at in zip(opened, episodes.tolist(), starts.tolist(), strict=True)]
        shards = [shard.file for shard in opened]
        video = gather(shards, places, "video", torch.float32)
        depth, depth_valid = None, torch.zeros(len(clips), *video.shape[2:], dtype=torch.bool)
        if any("depth" in shard for shard in shards):
            depth_valid = gather(shards, places, "depth_valid", torch.bool)
            depth = gather(shards, places, "depth", torch.float32) if depth_valid.any() else None
        lengths = plan.store.index.lengths[episodes]
        rows = window(lengths[:, None], starts[:, None], plan.settings.frames, plan.embodiment.actions_per_frame)
        vectors = (
            np.stack([shard.rows(name, *at) for shard, *at in zip(opened, episodes.tolist(), chosen, strict=True)])
            for name, chosen in (("proprio", rows.frames), ("actions", rows.actions))
        )
        proprio, action, proprio_valid, action_valid = normalised(plan.embodiment, *vectors, rows.actions_valid)
        shown = zip(episodes.tolist(), clips.tolist(), draws.tolist(), strict=True)
        texts = tuple(wording(plan.store.info(episode).instructions, *at) for episode, *at in shown)
        return Batch(Streams(video, action, proprio, depth), action_valid, proprio_valid, depth_valid, texts)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_opened"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._forget()

    def _forget(self) -> None:
        opened = lru_cache(OPEN_SHARDS)(lambda plan, shard: _OpenShard(plan.path(shard), plan.episodes(shard)[0]))
        plans = self._plans
        self._opened = lambda version, episode: opened(plans[version], plans[version].shard_of(episode))


def folder_of(folder: Path, version: int) -> Path:
    """Where in a folder of latents those of a version are."""
    return folder / f"version-{version}" if version else folder


class _OpenShard:
    """A shard of latents, and where in it the clips and rows of its episodes are."""

    def __init__(self, path: Path, first_episode: int):
        self.file, self._first_episode = Shard(path), first_episode
        self._starts = self.file.read("starts").numpy()
        self._episodes: list[list[int]] = self.file.read("episodes").tolist()

    def clip(self, episode: int, start: int) -> int:
        """Which of the shard's clips starts on this row."""
        first, end, _ = self._episodes[episode - self._first_episode]
        return first + int(np.searchsorted(self._starts[first:end], start))

    def rows(self, name: str, episode: int, chosen: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n D"]:
        """Rows of an episode's proprio or actions, in physical units."""
        *_, first_row = self._episodes[episode - self._first_episode]
        if not len(chosen):
            return self.file.read(name, first_row, 0).numpy()
        first, last = int(chosen[0]), int(chosen[-1])  # the rows of a window never step back
        return self.file.read(name, first_row + first, last - first + 1).numpy()[chosen - first]
