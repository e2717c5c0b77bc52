"""How large a basis may be, and how many vectors join it at a time."""

from dataclasses import dataclass

# A basis may use this part of its room for vectors of the last Jacobian, lest none be left for
# what is new. Arbitrary.
_RECYCLED_PART = 0.75


@dataclass(frozen=True)
class BlockSizes:
    """Room for vectors, vectors in a block, and recycled vectors taken in at a time.

    With 0 of these nothing is recycled, and fewer than that many come in blocks of `block`.
    `fills`: whether there is room for a basis of the whole space.
    """

    capacity: int
    block: int
    recycled: int
    fills: bool

    @classmethod
    def within(cls, length: int, capacity: int, block: int, recycled: int) -> "BlockSizes":
        """As asked for, as far as vectors of this length allow; whole blocks."""
        block, fills = min(block, length), capacity >= length
        # The last block of a basis of the whole space may bring a single vector.
        capacity = length + block - 1 if fills else max(capacity, block)
        capacity = -(-capacity // block) * block
        room = max(int(_RECYCLED_PART * capacity), 1)
        return cls(capacity, block, min(recycled, room, length), fills)

    def for_range(self, length: int) -> "BlockSizes":
        """With blocks that may have independent images of this length."""
        block, recycled = min(self.block, length), min(self.recycled, length)
        return BlockSizes(self.capacity, block, recycled, self.fills)

    @property
    def recycled_room(self) -> int:
        """How many vectors may be recycled."""
        if self.recycled == 0:
            return 0
        return max(int(_RECYCLED_PART * self.capacity) // self.recycled, 1) * self.recycled
