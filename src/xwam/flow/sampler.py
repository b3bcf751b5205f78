"""The one denoising loop, and what goes into it: noise by seed, and guidance.

A sampling mode is a schedule, never a branch here: the policy is a table that ends early, forward dynamics one
in which the actions start clean.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xwam.core.streams import NoiseLevels, Streams, Velocity
from xwam.flow.levels import Schedule, levels_of
from xwam.flow.solvers import Past, Solver, unipc

# In the order that noise is drawn: actions do not depend on the video's size, nor anything on whether there is depth.
SAMPLED = ("action", "proprio", "video", "depth")

# From so many samples on, so many threads draw for a GPU.
MANY_SAMPLES, DRAWING_THREADS = 16, 8


def sampled(streams: Streams) -> tuple[str, ...]:
    """The streams that are denoised: all that are there."""
    return tuple(name for name in SAMPLED if getattr(streams, name) is not None)


def noise_like(streams: Streams, seeds: Sequence[int]) -> Streams:
    """Gaussian noise of the streams' shapes, sample b a function of seeds[b] alone, whatever batch it is in.

    It is drawn on the CPU in float32, so a seed means the same noise on every device.
    """
    return noise_from(generators_of(streams, seeds), streams)


def generators_of(streams: Streams, seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator on the CPU for each sample."""
    if len(seeds) != len(streams.action):
        raise ValueError(f"{len(seeds)} seeds for {len(streams.action)} samples; give one seed a sample")
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise_from(generators: Sequence[torch.Generator], streams: Streams) -> Streams:
    """Gaussian noise of the streams' shapes, of each sample from its own generator."""
    likes = {name: getattr(streams, name) for name in sampled(streams)}

    def draw(generator: torch.Generator) -> list[torch.Tensor]:
        return [torch.randn(like.shape[1:], generator=generator) for like in likes.values()]

    if streams.action.is_cuda and len(generators) >= MANY_SAMPLES:
        # a GPU waits for it, and the cores of its host have nothing else to do
        with ThreadPoolExecutor(DRAWING_THREADS) as pool:
            samples = list(pool.map(draw, generators))
    else:
        samples = [draw(generator) for generator in generators]
    drawn = zip(likes.items(), zip(*samples, strict=True), strict=True)
    return Streams(**{name: torch.stack(parts).to(like) for (name, like), parts in drawn})


def started(
    given: Streams,
    noise: Streams,
    schedule: Schedule,
    action_valid: Bool[Tensor, "B A Da"] | None = None,
    proprio_valid: Bool[Tensor, "B P Dp"] | None = None,
) -> Streams:
    """Where `sample` starts: `noise`, save for what `given` fixes.

    `given` holds the first latent frame, the first proprio and whatever stream the schedule starts clean; its
    other values are not read, except that invalid entries stay as they are there (0 by the embodiment's rule).
    It has depth, of any value, if depth is to be denoised.
    """
    free = _free(given, action_valid, proprio_valid)
    parts = {}
    for name in sampled(given):
        kept = getattr(given, name)
        moves = schedule.sigmas(name)[0] > 0
        parts[name] = torch.where(free[name], getattr(noise, name), kept) if moves else kept
    return Streams(**parts)


@torch.no_grad()
def sample(
    velocity: Velocity,
    start: Streams,
    schedule: Schedule,
    solver: Solver = unipc,
    action_valid: Bool[Tensor, "B A Da"] | None = None,
    proprio_valid: Bool[Tensor, "B P Dp"] | None = None,
    known_action: Float[Tensor, "B A Da"] | None = None,
    on_step: Callable[[int, Streams], None] | None = None,
) -> Streams:
    """Walks `start` down the schedule; returns every stream at the schedule's last level, and depth if it asks.

    The first latent frame, the first proprio and invalid entries stay bit for bit as they start: the loss never
    taught the network a velocity there. Depth is denoised if it is in `start`; otherwise it comes from the last step,
    at that step's input.
    With `known_action`, actions do not follow the network but the straight path from their noise to what is known,
    so that states and video are drawn for these actions, at pairs of levels that training has met.
    `on_step(step, streams)` is called after each step.
    """
    free = _free(start, action_valid, proprio_valid)
    now, names = start, sampled(start)
    if known_action is not None:
        now = replace(now, action=_on_path(known_action, start.action, schedule.sigma_action[0]))
    pasts: dict[str, Past] = dict.fromkeys(names, ())
    for step in range(schedule.steps):
        with_depth = schedule.with_depth and step == schedule.steps - 1
        predicted = velocity(now, _levels(now, schedule, step), with_depth)
        moved = {} if "depth" in names else {"depth": predicted.depth if with_depth else None}
        for name in names:
            sigma, sigma_next = schedule.sigmas(name)[step : step + 2]
            if sigma == 0:
                continue
            before = getattr(now, name)
            after, pasts[name] = solver(before, getattr(predicted, name), sigma, sigma_next, pasts[name])
            if name == "action" and known_action is not None:
                after = _on_path(known_action, start.action, sigma_next)
            moved[name] = torch.where(free[name], after, before)
        now = replace(now, **moved)
        if on_step is not None:
            on_step(step, now)
    return now


def guided(conditional: Velocity, unconditional: Velocity, guidance_scale: float) -> Velocity:
    """Classifier-free guidance (arXiv 2207.12598): unconditional + scale * (conditional - unconditional).

    A branch's depth is a prediction of the clean latent, not a velocity: the conditional one is taken as it is.
    """
    if guidance_scale == 1:
        return conditional

    def velocity(noisy: Streams, levels: NoiseLevels, with_depth: bool) -> Streams:
        with_text = conditional(noisy, levels, with_depth)
        without = unconditional(noisy, levels, False)
        names = sampled(noisy)
        mixed = {name: torch.lerp(getattr(without, name), getattr(with_text, name), guidance_scale) for name in names}
        return replace(with_text, **mixed)

    return velocity


def _on_path(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    return (1 - sigma) * clean + sigma * noise


def _levels(streams: Streams, schedule: Schedule, step: int) -> NoiseLevels:
    samples, device = len(streams.action), streams.action.device
    video, action = (torch.full((samples,), sigma, device=device) for sigma in schedule.network_levels(step))
    return levels_of(streams, video, action, depth=streams.depth is not None)


def _free(
    streams: Streams, action_valid: Bool[Tensor, "B A Da"] | None, proprio_valid: Bool[Tensor, "B P Dp"] | None
) -> dict[str, Bool[Tensor, "..."]]:
    """True, in a shape that broadcasts to the stream's, at elements that denoising may change."""
    device = streams.action.device
    later_frames = torch.arange(streams.video.shape[2], device=device) > 0
    later_proprios = torch.arange(streams.proprio.shape[1], device=device) > 0
    everywhere = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
    return {
        "video": later_frames[:, None, None, None],
        "action": everywhere if action_valid is None else action_valid,
        "proprio": later_proprios[:, None] & (everywhere if proprio_valid is None else proprio_valid),
        "depth": everywhere,
    }
