"""What the trainer asks of a model, of its batches, and of those who watch a run."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxtyping import Int
from torch import Tensor


class Trainable(Protocol):
    """What the trainer asks of an `nn.Module`.

    Ranks, and parts of what a rank holds, share a batch; `counts` says of how much of it the losses are means.
    """

    def counts(self, batch: Any, seeds: Sequence[int]) -> Int[Tensor, " n"]:
        """How many elements each loss is a mean over; the counts of the parts of a batch add up to its own."""
        ...

    def loss(self, batch: Any, seeds: Sequence[int], counts: Int[Tensor, " n"]) -> dict[str, Tensor]:
        """Scalar losses; "total" is the one to descend. What is random in sample b comes from seeds[b] alone.

        With the counts of a larger batch each is a share, and the shares of all its parts add up to its losses.
        """
        ...

    def tokens(self, batch: Any) -> int:
        """How long the sequences of a batch are together, which tells how fast a run is."""
        ...


class Batches(Protocol):
    """Batches as functions of position: of each batch the part of rank `parallel.rank()` among `parallel.ranks()`.

    The batch of all ranks is theirs one after the other, rank 0's first. A batch has a length, can be cut by a slice,
    and has `.to(device)`, as tensors and `Batch` have. `train` is called from a background thread, one call at a time.
    """

    def train(self, step: int) -> Any: ...

    def validation(self) -> Iterable[Any]: ...

    def ids(self, step: int) -> Sequence[NamedTuple]:
        """What the samples of a step are called, those of all ranks; asked for when something is wrong with them."""
        ...


class Examination(Protocol):
    """What is measured beside the losses of the validation batches, by all ranks alike, and nothing of it is trained.

    It finds the averages in the model, and calls none of its methods but `methods`.
    """

    methods: tuple[str, ...]

    def __call__(self, step: int) -> dict[str, Any]:
        """Further entries of the validation's record in the log; numbers stand in groups, by name."""
        ...


class Background(Protocol):
    """What is found out about checkpoints while training goes on; rank 0 alone has it."""

    def begin(self, checkpoint: Path) -> None:
        """A checkpoint is there, and may go as soon as this returns."""
        ...

    def found(self) -> Iterable[dict[str, Any]]:
        """Records of the log, each with the step that it is about; each is given once."""
        ...

    def end(self, finished: bool) -> bool:
        """Training is over, or was only stopped: whether to ask again, since there is something to wait for."""
        ...
