"""Latents and text encoded ahead by any number of workers: processes here, other machines, tasks of a cluster.

A worker needs an `EncodingJob` and nothing else. Whoever asks for pieces that others are at, is told so.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from xwam.core.config import Frozen
from xwam.core.embodiment import Embodiment
from xwam.data.encoding import encode_shard
from xwam.data.episodes import EpisodeStore
from xwam.data.latents import LatentPlan, LatentSettings
from xwam.data.processes import Pool, in_this_process, progress_bar
from xwam.data.shards import Outcome, is_there
from xwam.data.sources import Digests, content_digest
from xwam.data.texts import StoredText, encode_text_shard, instructions_of, text_fingerprint, text_shards
from xwam.data.transforms import ClipTransform
from xwam.model.autoencoders import SmallAutoencoder, SmallAutoencoderConfig
from xwam.model.fingerprint import fingerprint
from xwam.model.precision import Precision, precision_of
from xwam.model.wan import UMT5TextEncoder, UMT5TextEncoderConfig, WanAutoencoder, WanAutoencoderConfig
from xwam.saved import CONFIG, WEIGHTS

EXPORTED_AUTOENCODER = "autoencoder.safetensors"
POLL_S = 5.0


class TextSource(Frozen):
    """A frozen text encoder: its sizes, its weights (a file or folder), and its tokenizer's folder."""

    config: UMT5TextEncoderConfig
    weights: str
    tokenizer: str

    def load(self) -> UMT5TextEncoder:
        return UMT5TextEncoder.load(self.weights, self.tokenizer, self.config)

    def fingerprint(self, folder: Path, verify: bool = False) -> str:
        """Of the files, so that nothing is loaded; what was hashed is remembered in `folder`."""
        digests = Digests(folder / "sources", trust=not verify)
        digests.recall("text-encoder")
        files = [file for place in (self.weights, self.tokenizer) for file in _files(Path(place))]
        entries = {str(file): digests.of(str(file), file, lambda: content_digest(file)) for file in files}  # noqa: B023
        digests.keep("text-encoder", entries)
        about = [self.config.model_dump_json(), [digest for *_, digest in entries.values()]]
        return sha256(json.dumps(about).encode()).hexdigest()


class EncodingJob(Frozen):
    """Everything that encoding a dataset takes; as JSON it goes to any process on any machine.

    `folder` is that of this version alone. `shard_episodes` is kept from it if not given; with `verify` what is there
    is read and hashed again.
    """

    dataset: str
    folder: str
    autoencoder: str
    codec: SmallAutoencoderConfig | WanAutoencoderConfig
    text: TextSource | None
    embodiment: Embodiment
    transform: ClipTransform
    frames: int
    start_stride: int
    precision: Precision
    dtype: Literal["float16", "bfloat16"]
    device: str
    version: int = 0
    shard_episodes: int | None = None
    verify: bool = False


@dataclass(frozen=True)
class Piece:
    """A shard of latents or of texts."""

    kind: Literal["latents", "text"]
    shard: int


class Encoder:
    """A job's dataset and networks, opened in this process."""

    def __init__(self, job: EncodingJob):
        self.job, self.device = job, local_device(job.device)
        self.precision = precision_of(job.precision, self.device)
        self._autoencoder = load_autoencoder(Path(job.autoencoder), job.codec)
        settings = latent_settings(job, self._autoencoder)
        self._autoencoder.to(self.device)
        store, folder = EpisodeStore(job.dataset), Path(job.folder)
        self.plan = LatentPlan(folder, store, job.embodiment, settings, job.shard_episodes, job.verify)
        self._texts = text_shards(folder, instructions_of(store)) if job.text else []

    @property
    def pieces(self) -> list[Piece]:
        return [
            *(Piece("latents", shard) for shard in range(len(self.plan))),
            *(Piece("text", shard) for shard in range(len(self._texts))),
        ]

    def path(self, piece: Piece) -> Path:
        return self.plan.path(piece.shard) if piece.kind == "latents" else self._texts[piece.shard][0]

    def is_there(self, piece: Piece) -> bool:
        if piece.kind == "latents":
            return is_there(self.path(piece), lambda: self.plan.fingerprint(piece.shard))
        path, texts = self._texts[piece.shard]
        return is_there(path, lambda: text_fingerprint(texts, self._text_fingerprint))

    def make(self, piece: Piece) -> Outcome:
        with _alike():
            if piece.kind == "latents":
                return encode_shard(self.plan, piece.shard, self._encode, self.job.verify)
            encode = lambda texts: self._text_encoder.encode(texts)  # noqa: E731  loaded when the first shard is missing
            return encode_text_shard(*self._texts[piece.shard], self._text_fingerprint, encode, self.job.verify)

    @torch.inference_mode()
    def _encode(self, video: Float[Tensor, "V 3 F H W"], windows: Int[np.ndarray, "n f"]) -> Tensor:
        """Latents (n, C, T, V, h, w)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            latents = self._autoencoder.encode_windows(video.to(self.device), windows)
        return rearrange(latents, "n v c t h w -> n c t v h w")

    @cached_property
    def _text_fingerprint(self) -> str:
        return self.job.text.fingerprint(self.plan.folder, self.job.verify)

    @cached_property
    def _text_encoder(self) -> UMT5TextEncoder:
        return self.job.text.load().to(self.device)


@dataclass(frozen=True)
class Summary:
    """How many pieces there are, were made now, were made now in place of stale ones, and are with other workers."""

    pieces: int
    made: int
    stale: int
    claimed: int


def encode_ahead(job: EncodingJob, pool: Pool, wait: bool) -> Summary:
    """Makes what is missing of a job, with whatever other workers there are; waits for what they are at, if asked to.

    Ranks of torchrun and tasks of a Slurm array begin at different pieces; none is bound to its own.
    """
    text = job.model_dump_json()
    try:
        encoder = _opened(text)
        encoder.plan.write()
        pieces, first = encoder.pieces, first_piece(len(encoder.pieces))
        ordered = [*pieces[first:], *pieces[:first]]
        missing = [piece for piece in ordered if job.verify or not encoder.is_there(piece)]
        before = {piece for piece in missing if encoder.path(piece).exists()}
        outcomes = _outcomes(text, missing, len(pieces), pool, wait)
    finally:
        _opened.cache_clear()  # networks need not stay, and the next call may find other files at the same places
    made = {piece for piece, outcome in outcomes.items() if outcome == "made"}
    return Summary(len(pieces), len(made), len(made & before), Counter(outcomes.values())["claimed"])


def _outcomes(job: str, missing: Sequence[Piece], total: int, pool: Pool, wait: bool) -> dict[Piece, Outcome]:
    """What came of each piece that was missing; the bar counts all pieces, whoever made them."""
    outcomes: dict[Piece, Outcome] = {}
    with progress_bar() as progress:
        bar = progress.add_task("Encoding", total=total, completed=total - len(missing))
        while missing:
            calls = [(job, piece) for piece in missing]
            for piece, outcome in (in_this_process if len(calls) == 1 else pool)(encode_piece, calls):
                outcomes[piece] = outcome
                progress.advance(bar, outcome != "claimed")
            missing = [piece for piece in missing if wait and outcomes[piece] == "claimed"]
            if missing:
                time.sleep(POLL_S)
    return outcomes


def encode_piece(job: str, piece: Piece) -> tuple[Piece, Outcome]:
    """One piece of a job in JSON, in whatever process."""
    return piece, _opened(job).make(piece)


def first_piece(count: int) -> int:
    """Where this process begins, if it is one of many: told by torchrun, or by Slurm's array or step."""
    for rank, lowest, size in (
        ("RANK", "", "WORLD_SIZE"),
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
        ("SLURM_PROCID", "", "SLURM_NTASKS"),
    ):
        if rank in os.environ and size in os.environ:
            return (int(os.environ[rank]) - int(os.environ.get(lowest, 0))) * count // int(os.environ[size]) % count
    return 0


def idle_cores() -> int:
    """Of this machine, shared by the ranks of torchrun; on an accelerator one process is enough."""
    if torch.cuda.is_available():
        return 1
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def local_device(name: str) -> torch.device:
    """Of the accelerators of this machine that of the process's local rank, if "auto" finds any."""
    if name == "auto":
        rank = int(os.environ.get("LOCAL_RANK", 0))
        name = f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def load_autoencoder(place: Path, config: SmallAutoencoderConfig | WanAutoencoderConfig) -> nn.Module:
    """The small autoencoder that a finished run or a model's export holds, or Wan's from its file or folder."""
    if isinstance(config, WanAutoencoderConfig):
        return WanAutoencoder.load(place, config).eval()
    path, prefix = autoencoder_file(place)
    weights = {name.removeprefix(prefix): x for name, x in load_file(path).items() if name.startswith(prefix)}
    autoencoder = SmallAutoencoder(config)
    autoencoder.load_state_dict(weights)
    return autoencoder.eval()


def has_autoencoder(place: Path) -> bool:
    """Whether `place` is what `load_autoencoder` takes for a small one."""
    try:
        return bool(autoencoder_file(place))
    except ValueError:
        return False


def autoencoder_file(place: Path) -> tuple[Path, str]:
    """The file of a small autoencoder and what its weights' names begin with there.

    `place` is the file, the folder of its run, or that of an exported model.
    """
    if (place / CONFIG).is_file() and (place / WEIGHTS).is_file():
        return place / WEIGHTS, "autoencoder."
    path = place if place.suffix == ".safetensors" else place / EXPORTED_AUTOENCODER
    if not path.is_file():
        raise ValueError(f"{path} does not exist: finish `xwam train nano-autoencoder --run {place}` first")
    return path, ""


def latent_settings(job: EncodingJob, autoencoder: nn.Module) -> LatentSettings:
    names = ("transform", "frames", "start_stride", "precision", "dtype", "version")
    return LatentSettings(autoencoder=fingerprint(autoencoder), **{name: getattr(job, name) for name in names})


def stored_text(job: EncodingJob) -> StoredText | None:
    """What stands in for the job's frozen text encoder, if it has one."""
    folder = Path(job.folder)
    return StoredText(folder, job.text.fingerprint(folder)) if job.text else None


@lru_cache(maxsize=1)
def _opened(job: str) -> Encoder:
    return Encoder(EncodingJob.parse(json.loads(job)))


@contextmanager
def _alike() -> Iterator[None]:
    """One thread and full products: the same bytes with any number of workers, whatever ran here before."""
    threads, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(products)


def _files(place: Path) -> list[Path]:
    """The file, or all files of the folder, in an order that does not depend on the file system."""
    if not place.exists():
        raise ValueError(f"{place} does not exist: name the text encoder's weights and its tokenizer")
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
