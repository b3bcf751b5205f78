"""Claimed and observed motion beside each other, over windows of rows: what a proof looks at.

A delta's windows hold how far it leads and how far the robot went; a target's hold where it leads and where the robot
then was, both from their mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from xwam.core.embodiment import Embodiment, Part
from xwam.data.importers.source import Claim

LAGS = (0, 1, 2)
ROTATION_KINDS = ("quaternion", "rotation_vector")

Vectors = tuple[Float[np.ndarray, "T Dp"], Float[np.ndarray, "T Da"]]


@dataclass(frozen=True)
class Windows:
    """Claimed and observed motion in N windows, and the error that is left: a norm, in degrees for rotations."""

    claimed: Float[np.ndarray, "N D"]
    observed: Float[np.ndarray, "N D"]
    error: Float[np.ndarray, " N"]

    def correlations(self) -> Float[np.ndarray, "D D"]:
        """Of each observed axis (row) with each claimed one (column), from 0; 0 where an axis is still."""
        products = self.observed.T @ self.claimed
        norms = np.outer(*(np.sqrt((x**2).sum(0)) for x in (self.observed, self.claimed)))
        return np.divide(products, norms, out=np.zeros_like(products), where=norms > 1e-12)

    def weights(self) -> Float[np.ndarray, " D"]:
        """Share of each axis in the motion that was observed."""
        moved = np.sqrt((self.observed**2).mean(0))
        return moved / max(moved.sum(), 1e-12)

    @property
    def score(self) -> float:
        """Mean correlation of the axes, each as much as it moves."""
        return float(self.weights() @ np.diag(self.correlations()))

    @property
    def gain(self) -> float:
        """How far the robot went for 1 that was claimed, by least squares."""
        return float((self.observed * self.claimed).sum() / max((self.claimed**2).sum(), 1e-12))

    @property
    def amounts(self) -> tuple[float, float]:
        """Root mean square of claimed and of observed motion."""
        claimed, observed = (float(np.sqrt((x**2).sum(1).mean())) for x in (self.claimed, self.observed))
        return claimed, observed

    def centred(self) -> "Windows":
        centred = {name: getattr(self, name) - getattr(self, name).mean(0) for name in ("claimed", "observed")}
        return replace(self, **centred)


@dataclass(frozen=True)
class Motion:
    """The two parts of a claim in all episodes; `turned` is the end-effector's orientation, if it is recorded."""

    claim: Claim
    state: Part
    action: Part
    episodes: list[Vectors]
    turned: list[Rotation] | None

    @classmethod
    def of(cls, embodiment: Embodiment, claim: Claim, episodes: Sequence[Vectors]) -> "Motion":
        """Cuts the claimed parts out of whole vectors; a ValueError tells if they cannot belong together."""
        state, action = embodiment.proprio.part(claim.proprio), embodiment.action.part(claim.action)
        places = embodiment.proprio.slice(state.name), embodiment.action.slice(action.name)
        cut = [(p[:, places[0]].astype(np.float64), a[:, places[1]].astype(np.float64)) for p, a in episodes]
        orientation = [part for part in embodiment.proprio.parts if part.name == _orientation_of(state.name)]
        turned = None
        if orientation and state.kind == "position":
            at = embodiment.proprio.slice(orientation[0].name)
            turned = [rotation(p[:, at], orientation[0]) for p, _ in episodes]
        motion = cls(claim, state, action, cut, turned)
        if state.size != action.size and not motion.is_rotation:
            raise ValueError(f"{claim} is of {action.size} entries for {state.size}: claim parts of one size")
        return motion

    @property
    def is_rotation(self) -> bool:
        return self.state.kind in ROTATION_KINDS

    def in_other_frame(self) -> "Motion | None":
        """The same motion under the claim of the other frame, where there is one and its orientation is known."""
        if self.claim.meaning == "target" or not (self.is_rotation or self.turned):
            return None
        frame = "ee" if self.claim.frame == "base" else "base"
        return replace(self, claim=replace(self.claim, frame=frame))

    def windows(self, lag: int, rows: int) -> Windows | None:
        """Windows of so many rows of all episodes; None if no episode is long enough.

        `lag` rows pass before an action has an effect; shorter episodes have shorter windows.
        """
        found = []
        for k, (state, action) in enumerate(self.episodes):
            fitting = min(rows, len(state) - 1 - max(LAGS))
            if fitting >= 1:
                turned = self.turned[k] if self.turned else None
                found.append(self._windows(state, action, turned, lag, fitting))
        if not found:
            return None
        joined = Windows(*(np.concatenate([getattr(x, name) for x in found]) for name in vars(found[0])))
        return joined.centred() if self.claim.meaning == "target" else joined

    def _windows(self, state: np.ndarray, action: np.ndarray, turned: Rotation | None, lag: int, rows: int) -> Windows:
        last = len(state) - 1 - lag
        starts = np.arange(last - rows + 1)
        if self.is_rotation:
            states = rotation(state, self.state)
            steps = rotation(action, self.action, self.claim.scale)
            if self.claim.meaning == "target":
                return _reached_rotation(steps[:last], states[1 + lag :], states[0])
            return _turned(steps, states, self.claim.frame == "ee", starts, rows, lag)
        steps = self.claim.scale * action
        if self.claim.meaning == "target":
            return _differing(steps[:last], state[1 + lag :])
        if self.claim.frame == "ee":
            steps = turned.apply(steps)
        sums = np.concatenate([np.zeros((1, steps.shape[1])), np.cumsum(steps, axis=0)])
        return _differing(sums[starts + rows] - sums[starts], state[starts + rows + lag] - state[starts + lag])


def rotation(values: Float[np.ndarray, "T D"], part: Part, scale: float = 1.0) -> Rotation:
    """Rotations of a part's rows; what is no quaternion is a rotation vector."""
    if part.kind != "quaternion":
        return Rotation.from_rotvec(scale * values)
    if np.any(np.linalg.norm(values, axis=1) < 1e-6):
        raise ValueError(f"part {part.name!r} holds a quaternion of length 0: check its columns")
    return Rotation.from_quat(values, scalar_first=True)


def _orientation_of(name: str) -> str:
    return f"{name.removesuffix('_position')}_orientation"


def _differing(claimed: Float[np.ndarray, "N D"], observed: Float[np.ndarray, "N D"]) -> Windows:
    return Windows(claimed, observed, np.linalg.norm(observed - claimed, axis=1))


def _reached_rotation(asked: Rotation, reached: Rotation, first: Rotation) -> Windows:
    error = (asked.inv() * reached).magnitude()
    return Windows((first.inv() * asked).as_rotvec(), (first.inv() * reached).as_rotvec(), np.degrees(error))


def _turned(steps: Rotation, states: Rotation, in_ee: bool, starts: np.ndarray, rows: int, lag: int) -> Windows:
    """Rotations over windows, as rotation vectors in the frame in which they are composed."""
    claimed = Rotation.identity(len(starts))
    for k in range(rows):
        step = steps[starts + k]
        claimed = claimed * step if in_ee else step * claimed
    before, after = states[starts + lag], states[starts + rows + lag]
    observed = before.inv() * after if in_ee else after * before.inv()
    return Windows(claimed.as_rotvec(), observed.as_rotvec(), np.degrees((claimed.inv() * observed).magnitude()))
