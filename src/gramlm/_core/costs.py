"""What products with J cost."""

from typing import NamedTuple


class ProductCosts(NamedTuple):
    """What a product with `J Jᵀ` costs.

    - `seconds`: with one vector.
    - `vector`: the time of one more, as a part of that of the first. About 1 where b vectors cost
      b times as much as one, near 0 where they share a pass over the data.
    - `assemble`: whether a block of vectors is multiplied faster by forming rows of J.
    """

    seconds: float
    vector: float
    assemble: bool
