"""What two states share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def equal_overlap(one: Float[np.ndarray, " samples"], other: Float[np.ndarray, " samples"]) -> float:
    """Return the overlap of two states whose weights of all samples sum to one each, ½ where they are the same.

    ``sum_n W_i W_j / (W_i + W_j)``: what the MBAR overlap matrix of these two alone holds at equal numbers of samples.

    References:
        Klimovich, Shirts & Mobley 2015, J. Comput. Aided Mol. Des. 29:397 (overlap matrix).
    """
    total = one + other
    return float(np.divide(one * other, total, out=np.zeros_like(total), where=total > 0).sum())
