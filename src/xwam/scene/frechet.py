"""How far two sets of features are apart, as two normal distributions are."""

import numpy as np
from jaxtyping import Float


def frechet_distance(one: Float[np.ndarray, "N D"], other: Float[np.ndarray, "M D"]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of means and covariances (Dowson and Landau 1982), as FID and FVD.

    With fewer samples than features the covariances are not of full rank, and the distance is too large: compare only
    distances of equally many. Raises ValueError for fewer than two samples.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"{len(one)} and {len(other)} samples: a covariance needs two or more")
    apart = one.mean(0) - other.mean(0)
    first, second = (np.cov(x.astype(np.float64), rowvar=False).reshape(x.shape[1], -1) for x in (one, other))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # of S1 S2 and of this symmetric product the eigenvalues are the same
    both = np.linalg.eigvalsh(root @ second @ root)
    spread = np.trace(first) + np.trace(second) - 2 * np.sqrt(both.clip(min=0)).sum()
    return float(apart @ apart + max(spread, 0.0))
