"""How many steps to make between two looks at the clock."""

import time

import jax

# Between two looks, in seconds: what Ctrl-C and a time limit may have to wait for, unless a single
# step takes longer.
_INTERVAL = 0.5

# A wait that is longer than this, in seconds, is slept through in pieces; each look in between
# takes a core from the computation for a moment.
_SHORT = 0.25

# From one look to the next the number of steps grows by this at most.
_GROWTH = 8


class StepTime:
    """What a step takes. Kept from solve to solve, so that a short one is made in one go.

    `compiled`: whether the program is there.
    """

    def __init__(self):
        self.compiled = False
        self._seconds: float | None = None
        self._most = 1

    def steps(self, seconds_left: float | None) -> int:
        """How many to make next."""
        if self._seconds is None:
            return 1
        seconds = _INTERVAL if seconds_left is None else min(_INTERVAL, seconds_left)
        return max(1, min(self._most, int(seconds / self._seconds)))

    def wait(self, array: jax.Array, steps: int) -> None:
        """Waits for what so many steps return, so that Ctrl-C is heard meanwhile."""
        if self._seconds is not None and steps * self._seconds < _SHORT:
            array.block_until_ready()
            return
        begin = time.perf_counter()
        while not array.is_ready():  # pyright: ignore[reportAttributeAccessIssue]
            time.sleep(min(max((time.perf_counter() - begin) / 16, 5e-4), 5e-3))

    def learn(self, steps: int, seconds: float) -> None:
        """What some steps took. The first time that is compilation."""
        if self.compiled and steps > 0:
            self._seconds = max(seconds / steps, 1e-9)
            self._most = _GROWTH * steps
        self.compiled = True
