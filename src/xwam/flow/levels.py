"""Noise levels: the laws that training draws them from, and the tables that sampling walks down.

sigma is 1 for pure noise and 0 for clean, x = (1 - sigma) * clean + sigma * noise. A law says which pairs
(video's sigma, action's sigma) the network learns; a schedule is a table of such pairs, a row a denoising step.
Proprioception always shares the action's level. A schedule only works with a law that covers it:

    law            learns                        covers
    coupled        video = action                synchronous
    independent    every pair                    everything
    asynchronous   action <= video, action = 0   policy, world, forward dynamics, synchronous
"""

from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import ClassVar, Literal, Self, get_args

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor

from xwam.core.config import Frozen
from xwam.core.streams import NoiseLevels, Streams

TIMESTEPS = 1000  # the network's timestep embedding was trained on 1000 * sigma
NOISIEST = 0.9990000128746033  # where a descent starts before the time shift: 0.999, as float32 holds it
ROUNDING = 1e-6  # two levels drawn in float32 that are equal in exact arithmetic differ by less


def shifted(sigma, shift: float):
    """Time shift, which dwells on high noise: sigma <- s sigma / (1 + (s - 1) sigma). Keeps 0, 1 and order."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def levels_of(
    streams: Streams, sigma_video: Float[Tensor, " B"], sigma_action: Float[Tensor, " B"], depth: bool = False
) -> NoiseLevels:
    """The levels of all elements of `streams`: the first latent frame and the first proprio are given.

    With `depth`, depth is denoised too, and none of it is given.
    """
    frames, actions, proprios = streams.video.shape[2], streams.action.shape[1], streams.proprio.shape[1]
    return NoiseLevels.of_streams(sigma_video, sigma_action, frames, actions, proprios, depth)


# ---- training laws ---------------------------------------------------------------------------------------------
#
# A law has two methods. `levels` turns `dice` numbers a sample, uniform in [0, 1), into its sigmas of video and action.
# `supports` says whether a pair lies in the law's (closed) support: whether the network has met it in training.


@dataclass(frozen=True)
class Coupled:
    """One level for all streams; the baseline that samples synchronously."""

    name: ClassVar[str] = "coupled"
    dice: ClassVar[int] = 1
    shift: float = 5.0

    def levels(self, uniforms: Float[Tensor, "dice B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        sigma = shifted(uniforms[0], self.shift)
        return sigma, sigma.clone()

    def supports(self, sigma_video: float, sigma_action: float) -> bool:
        return _are_levels(sigma_video, sigma_action) and abs(sigma_video - sigma_action) <= ROUNDING


@dataclass(frozen=True)
class Independent:
    """Each level on its own, as in Unified World Models (arXiv 2504.02792); learns inverse dynamics too."""

    name: ClassVar[str] = "independent"
    dice: ClassVar[int] = 2
    shift: float = 5.0

    def levels(self, uniforms: Float[Tensor, "dice B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        video, action = shifted(uniforms, self.shift)
        return video, action

    def supports(self, sigma_video: float, sigma_action: float) -> bool:
        return _are_levels(sigma_video, sigma_action)


@dataclass(frozen=True)
class Asynchronous:
    """Asynchronous Noise Sampling of X-WAM (arXiv 2604.26694): the action is never noisier than the video.

    With probability p:  sigma_a = 0,        sigma_v ~ U(0, 1)
    otherwise:           sigma_a ~ U(0, 1),  sigma_v = sigma_a + (1 - sigma_a) b,  b ~ Beta(1.5, 1)
    """

    name: ClassVar[str] = "asynchronous"
    dice: ClassVar[int] = 3
    shift: float = 5.0
    clean_action_probability: float = 0.5

    def __post_init__(self):
        if not 0 <= self.clean_action_probability <= 1:
            raise ValueError(f"clean_action_probability is {self.clean_action_probability}; give one in 0 .. 1")

    def levels(self, uniforms: Float[Tensor, "dice B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        chance, sigma, u = uniforms
        clean = chance < self.clean_action_probability
        b = u ** (1 / 1.5)  # the distribution function of Beta(a, 1) is x^a
        video = torch.where(clean, sigma, sigma + (1 - sigma) * b)
        action = torch.where(clean, 0.0, sigma)
        return shifted(video, self.shift), shifted(action, self.shift)

    def supports(self, sigma_video: float, sigma_action: float) -> bool:
        if not _are_levels(sigma_video, sigma_action):
            return False
        if self.clean_action_probability == 1:
            return sigma_action == 0
        return sigma_action <= sigma_video + ROUNDING


@dataclass(frozen=True)
class Fixed:
    """One level for all streams, always the same: no law to train by, but one to measure losses under."""

    dice: ClassVar[int] = 0
    sigma: float

    def __post_init__(self):
        if not 0 < self.sigma <= 1:
            raise ValueError(f"sigma is {self.sigma}; give one above 0, where all is given, and up to 1")

    def levels(self, uniforms: Float[Tensor, "dice B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        level = uniforms.new_full(uniforms.shape[1:], self.sigma)
        return level, level.clone()

    def supports(self, sigma_video: float, sigma_action: float) -> bool:
        return sigma_video == sigma_action == self.sigma


Law = Coupled | Independent | Asynchronous


def law_of(name: str, **settings: float) -> Law:
    """The law that a configuration names, as `law_of("asynchronous", shift=3.0, clean_action_probability=0.25)`."""
    laws = {law.name: law for law in get_args(Law)}
    if name not in laws:
        close = get_close_matches(name, laws, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(laws)}"
        raise ValueError(f"no noise law is called {name!r}; {hint}")
    known = laws[name].__dataclass_fields__
    if unknown := sorted(settings.keys() - known.keys()):
        raise ValueError(f"the {name} noise law has no setting {unknown[0]!r}; it has {', '.join(known)}")
    return laws[name](**settings)


def _are_levels(*sigmas: float) -> bool:
    return all(0 <= sigma <= 1 for sigma in sigmas)


# ---- sampling schedules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """A table of noise levels: step i takes the video from sigma_video[i] to [i + 1], actions and proprios likewise.

    A stream that starts at 0 is given; one that reaches 0 is done, and stays. Denoised depth goes with the video.
    `with_depth` asks a depth branch for the latents at the last step, the one whose video is cleanest.
    """

    sigma_video: tuple[float, ...]
    sigma_action: tuple[float, ...]
    with_depth: bool = False

    def __post_init__(self):
        if len(self.sigma_video) != len(self.sigma_action) or len(self.sigma_video) < 2:
            rows = f"{len(self.sigma_video)} of video and {len(self.sigma_action)} of action"
            raise ValueError(f"a schedule has levels {rows}; give both the same number, two or more")
        for sigmas in (self.sigma_video, self.sigma_action):
            if not all(1 > high > low >= 0 or high == low == 0 for high, low in pairwise(sigmas)):
                raise ValueError(f"levels {sigmas} must fall strictly from below 1, and stay once they reach 0")

    @property
    def steps(self) -> int:
        return len(self.sigma_video) - 1

    def sigmas(self, stream: str) -> tuple[float, ...]:
        """The exact levels of `stream`, which the solver integrates over; the first and last included."""
        return self.sigma_video if stream in ("video", "depth") else self.sigma_action

    def network_levels(self, step: int) -> tuple[float, float]:
        """Video's and action's level as the network is told at `step`: whole timesteps, as the reference has it."""
        return timestep(self.sigma_video[step]) / TIMESTEPS, timestep(self.sigma_action[step]) / TIMESTEPS


def covers(law: Law, schedule: Schedule) -> bool:
    """Whether training under the law has met every pair of levels that the schedule walks through."""
    return all(law.supports(*schedule.network_levels(step)) for step in range(schedule.steps))


def timestep(sigma: float) -> int:
    """The timestep that the network's embedding sees: truncated, never rounded."""
    return int(TIMESTEPS * sigma)


def descent(steps: int, shift: float) -> tuple[float, ...]:
    """The levels between `steps` denoising steps: even from NOISIEST to 0 before the time shift."""
    if steps < 1:
        raise ValueError(f"a descent of {steps} steps; give 1 or more")
    return (*(shifted(NOISIEST * (1 - i / steps), shift) for i in range(steps)), 0.0)


def world_schedule(
    video_steps: int = 50, action_steps: int = 10, shift: float = 5.0, with_depth: bool = True
) -> Schedule:
    """Everything is generated; the actions are done after `action_steps`, then only the video moves."""
    if action_steps > video_steps:
        raise ValueError(f"{action_steps} action steps outnumber {video_steps} video steps; the action leads")
    action = descent(action_steps, shift) + (0.0,) * (video_steps - action_steps)
    return Schedule(descent(video_steps, shift), action, with_depth)


def policy_schedule(video_steps: int = 50, action_steps: int = 10, shift: float = 5.0) -> Schedule:
    """The world's table left as soon as the actions are clean; the video stays unfinished."""
    world = world_schedule(video_steps, action_steps, shift)
    return Schedule(world.sigma_video[: action_steps + 1], world.sigma_action[: action_steps + 1])


def synchronous_schedule(steps: int = 50, shift: float = 5.0, with_depth: bool = True) -> Schedule:
    """All streams together, the only way to sample under the coupled law."""
    return world_schedule(steps, steps, shift, with_depth)


def forward_dynamics_schedule(video_steps: int = 50, shift: float = 5.0, with_depth: bool = True) -> Schedule:
    """The video that follows from given actions and proprios."""
    return Schedule(descent(video_steps, shift), (0.0,) * (video_steps + 1), with_depth)


def inverse_dynamics_schedule(action_steps: int = 10, shift: float = 5.0) -> Schedule:
    """The actions and proprios behind a given video; outside the asynchronous law."""
    return Schedule((0.0,) * (action_steps + 1), descent(action_steps, shift))


# ---- settings ---------------------------------------------------------------------------------------------------


class NoiseConfig(Frozen):
    """How noise levels are drawn in training, and how many steps take the noise away.

    Sampling is synchronous where actions take as many steps as the video; the coupled law allows nothing else.
    """

    law: Literal["coupled", "independent", "asynchronous"] = "asynchronous"
    clean_action_probability: float = 0.5
    shift: float = 5.0
    video_steps: int = 50
    action_steps: int = 10

    @model_validator(mode="after")
    def _samples_what_it_trains(self) -> Self:
        if not covers(self.training_law(), world_schedule(self.video_steps, self.action_steps, self.shift)):
            steps = f"{self.action_steps} action steps beside {self.video_steps} of the video"
            raise ValueError(f"training under the {self.law} law never meets {steps}: give both the same number")
        return self

    def training_law(self) -> Law:
        clean = {"clean_action_probability": self.clean_action_probability} if self.law == "asynchronous" else {}
        return law_of(self.law, shift=self.shift, **clean)

    def with_action_steps(self, steps: int | None) -> Self:
        """The same with another number of action steps, if one is given."""
        return self if steps is None else self.parse({**self.model_dump(), "action_steps": steps})
