"""One denoising step: from a velocity at sigma to the sample at a lower sigma_next.

The flow's ordinary differential equation is dx / d sigma = v(x, sigma), with v = noise - clean.
A solver is a pure function: what it remembers of earlier steps goes in and comes out as `past`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """What a step leaves to its successors: the sample that it started from, and the clean one foreseen there."""

    sigma: float
    sample: Float[Tensor, "..."]
    clean: Float[Tensor, "..."]


Past = tuple[Evaluation, ...]  # newest first

# solver(sample, velocity, sigma, sigma_next, past) -> sample at sigma_next, past of the next step
Solver = Callable[[Float[Tensor, "..."], Float[Tensor, "..."], float, float, Past], tuple[Float[Tensor, "..."], Past]]


def euler(
    sample: Float[Tensor, "..."], velocity: Float[Tensor, "..."], sigma: float, sigma_next: float, past: Past = ()
) -> tuple[Float[Tensor, "..."], Past]:
    """First order: the velocity holds for the whole step."""
    return sample + (sigma_next - sigma) * velocity, past


def unipc(
    sample: Float[Tensor, "..."], velocity: Float[Tensor, "..."], sigma: float, sigma_next: float, past: Past = ()
) -> tuple[Float[Tensor, "..."], Past]:
    """Second order: UniPC with B_2(h) and clean-sample prediction (Zhao et al. 2023, arXiv 2302.04867).

    The velocity found at the predicted sample first corrects the step that led here (UniC), at no cost of its
    own, then predicts the next one (UniP). Order 1 at the first step, which has no past, and at a step to
    sigma 0, where log-SNR is infinite and the foreseen clean sample is the answer.
    """
    clean = sample - sigma * velocity
    if past:
        sample = _correct(clean, sigma, past)
    past = (Evaluation(sigma, sample, clean), *past)[:2]
    return clean if sigma_next == 0 else _predict(sigma_next, past), past


def _predict(sigma: float, past: Past) -> Float[Tensor, "..."]:
    """UniP: the next sample. At order 2 the paper fixes the weight of its one difference at 1/2."""
    last = past[0]
    target = last.clean if len(past) == 1 else last.clean + 0.5 * _slope(sigma, past)
    return _towards(target, sigma, last)


def _correct(clean: Float[Tensor, "..."], sigma: float, past: Past) -> Float[Tensor, "..."]:
    """UniC: the last step taken again, now that the clean sample foreseen at its end is known.

    The weights of the differences at r and at 1, the step's end, solve, for z = -h, phi_1(z) = (e^z - 1) / z,
    phi_k+1(z) = (phi_k(z) - 1 / k!) / z and B_2(h) = e^z - 1 = z phi_1,
        w_r + w_1 = phi_2 / phi_1,    r w_r + w_1 = 2 phi_3 / phi_1.
    At order 1 the paper fixes the one weight at 1/2.
    """
    last = past[0]
    if len(past) == 1:
        return _towards(last.clean + 0.5 * (clean - last.clean), sigma, last)
    z = _log_snr(last.sigma) - _log_snr(sigma)
    r = _ratio(sigma, past)
    phi_1 = math.expm1(z) / z
    phi_2 = (phi_1 - 1) / z
    phi_3 = (phi_2 - 1 / 2) / z
    w_r = (phi_2 - 2 * phi_3) / (phi_1 * (1 - r))
    w_1 = phi_2 / phi_1 - w_r
    return _towards(last.clean + w_r * _slope(sigma, past) + w_1 * (clean - last.clean), sigma, last)


def _towards(target: Float[Tensor, "..."], sigma: float, start: Evaluation) -> Float[Tensor, "..."]:
    """The exact flow to `sigma` if the clean sample were `target` throughout.

    With alpha = 1 - sigma and h the gain in log-SNR, alpha (1 - exp(-h)) = 1 - sigma / sigma_start.
    """
    kept = sigma / start.sigma
    return kept * start.sample + (1 - kept) * target


def _slope(sigma: float, past: Past) -> Float[Tensor, "..."]:
    """D_1 / r: the change of the foreseen clean sample, per step to `sigma` in log-SNR."""
    return (past[1].clean - past[0].clean) / _ratio(sigma, past)


def _ratio(sigma: float, past: Past) -> float:
    """r: where the step before the last began, seen from the last in units of the step to `sigma`; negative."""
    here = _log_snr(past[0].sigma)
    return (_log_snr(past[1].sigma) - here) / (_log_snr(sigma) - here)


def _log_snr(sigma: float) -> float:
    """lambda = log(alpha / sigma), half the logarithm of the signal-to-noise ratio."""
    return math.log((1 - sigma) / sigma)
