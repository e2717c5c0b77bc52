"""A callback that writes checkpoints."""

import os
import time
from pathlib import Path

from ..callback.base import AbstractCallback, Beginning, Ending, Event


class Checkpoints(AbstractCallback):
    """Writes the solve to the file `path`, in place of the one before, and once more at its end.

    Every `every` steps, or when `seconds` have passed since the last, whichever comes first;
    each minute unless given. It is written under another name first, so that a crash leaves the
    one before.

    `gramlm.solve(..., resume=path)` goes on from it.

    !!! Example

        ```python
        import jax.numpy as jnp
        import gramlm


        def residual(params):
            return jnp.array([10 * (params[1] - params[0] ** 2), 1 - params[0]])


        start = jnp.array([-1.2, 1.0])
        checkpoints = gramlm.Checkpoints("fit.gramlm", every=5)
        gramlm.solve(residual, start, max_steps=5, throw=False, callback=checkpoints)
        solution = gramlm.solve(residual, start, resume="fit.gramlm")  # goes on at step 5
        assert jnp.allclose(solution.value, 1.0, rtol=1e-3)
        ```
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int | None = None,
        *,
        seconds: float | int | None = None,
    ):
        if isinstance(every, bool) or (every is not None and not (every == int(every) >= 1)):
            raise ValueError(
                f"`Checkpoints(every=…)` is a positive number of steps; got {every!r}."
            )
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"`Checkpoints(seconds=…)` must not be negative; got {seconds!r}.")
        self.path = Path(path)
        self._every = every
        self._seconds = 60.0 if every is None and seconds is None else seconds
        self._step = 0
        self._time = 0.0

    def start(self, beginning: Beginning) -> None:
        directory = self.path.parent
        if not directory.is_dir():
            raise FileNotFoundError(
                f"`Checkpoints({str(self.path)!r})`: there is no directory {directory}. Make it "
                "before the solve."
            )
        if self.path.is_dir():
            raise IsADirectoryError(
                f"`Checkpoints({str(self.path)!r})` must name a file; this is a directory."
            )
        if not os.access(directory, os.W_OK):
            raise PermissionError(
                f"`Checkpoints({str(self.path)!r})`: no permission to write in {directory}."
            )
        self._step, self._time = beginning.step, time.perf_counter()

    def __call__(self, event: Event) -> None:
        steps, seconds = event.step - self._step, time.perf_counter() - self._time
        due = self._every is not None and steps >= self._every
        if due or (self._seconds is not None and seconds >= self._seconds):
            self._save(event)

    def end(self, ending: Ending | None) -> None:
        # What an error left in the middle of a step is no better than the last file.
        if ending is not None and ending.snapshot is not None and ending.step != self._step:
            self._save(ending)

    def _save(self, moment: Event | Ending) -> None:
        moment.checkpoint().save(self.path)
        self._step, self._time = moment.step, time.perf_counter()
