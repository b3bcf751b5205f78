"""How far apart two clouds lie: each point's distance to the nearest of the other, found once, and what follows of it.

The distances are exact: SciPy's k-d tree without tolerance. Points are asked for in the order of their own tree, so
that one after the other visits the same branches: 2 x 100,000 points of a surface take half the time, 0.3 s of a core.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree


@dataclass(frozen=True)
class Distances:
    """Between clouds a and b in metres, Euclidean: from each point of a to the nearest of b, and the other way."""

    a_to_b_m: Float[np.ndarray, " N"]
    b_to_a_m: Float[np.ndarray, " M"]

    @property
    def chamfer_m(self) -> float:
        """Chamfer distance: half of (mean over a + mean over b), so each cloud weighs the same; not squared."""
        return float((self.a_to_b_m.mean() + self.b_to_a_m.mean()) / 2)

    def f_score(self, threshold_m: float) -> float:
        """Harmonic mean of precision, the share of a nearer than this to b, and recall, the share of b nearer to a.

        As Knapitsch et al. 2017 (Tanks and Temples), with a the prediction and b the truth.
        """
        precision, recall = (float((d < threshold_m).mean()) for d in (self.a_to_b_m, self.b_to_a_m))
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def distances(a_m: Float[np.ndarray, "N 3"], b_m: Float[np.ndarray, "M 3"], processors: int = 1) -> Distances | None:
    """Nearest distances between two clouds, by so many processors; None if a cloud is empty: nothing is near it.

    Raises ValueError if a point is not finite.
    """
    for name, points in (("first", a_m), ("second", b_m)):
        if wrong := int((~np.isfinite(points)).any(axis=-1).sum()):
            raise ValueError(f"{wrong} of {len(points)} points of the {name} cloud are not finite: leave them out")
    if len(a_m) == 0 or len(b_m) == 0:
        return None
    a, b = (KDTree(points, balanced_tree=False) for points in (a_m, b_m))
    return Distances(_nearest(a, b, processors), _nearest(b, a, processors))


def _nearest(of: KDTree, to: KDTree, processors: int) -> Float[np.ndarray, " N"]:
    found = np.empty(of.n)
    found[of.indices], _ = to.query(of.data[of.indices], workers=processors)
    return found
