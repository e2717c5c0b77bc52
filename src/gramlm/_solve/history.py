"""What is kept of the steps of a solve."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.flatten import FlatSpec
from .carry import Records
from .solution import History


class Recording(eqx.Module):
    """What `solution.history` holds beside cost, damping, gradient norm and time.

    - `params`: whether to keep the parameters after steps 0, `every`, 2·`every`, …: p numbers for
      each of them, in the memory of the host. Inside of a transformation room for all
      `1 + max_steps // every` of them is made on the device.
    """

    params: bool = eqx.field(static=True, default=False)
    every: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if not isinstance(self.params, bool):
            raise TypeError(f"`Recording(params=…)` must be a bool; got {self.params!r}.")
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"`Recording(every=…)` must be a positive number of steps; got {self.every!r}."
            )

    def next_stop(self, step: int, until: int) -> int:
        """The step at which to pause after `step`, `until` at the latest."""
        return min(until, (step // self.every + 1) * self.every) if self.params else until

    def wants(self, step: int) -> bool:
        return self.params and step % self.every == 0

    def room(self, max_steps: int, flat: Float[Array, " p"]) -> Float[Array, "m p"] | None:
        """For the parameters within one program."""
        if not self.params:
            return None
        rows = jnp.full((1 + max_steps // self.every, flat.size), jnp.nan, flat.dtype)
        return rows.at[0].set(flat)

    def with_row(self, rows: Float[Array, "m p"] | None, step, flat: Float[Array, " p"]):
        """`rows` after a step."""
        if rows is None:
            return None
        index = jnp.where(step % self.every == 0, step // self.every, len(rows))
        return rows.at[index].set(flat, mode="drop")


class Past(eqx.Module):
    """The steps made so far, on the host.

    - `values`, (3, k): as in `Records`. `seconds`, (k,): since the start, at the end of each.
    - `params`, (m, p): the flat parameters after some.
    """

    values: np.ndarray
    seconds: np.ndarray
    params: np.ndarray

    @classmethod
    def empty(cls, steps: int, rows: int, params: int, dtype) -> "Past":
        return cls(
            np.empty((3, steps), dtype),
            np.empty((steps,), np.float64),
            np.empty((rows, params), dtype),
        )


class Chronicle:
    """Grows with the steps of a solve, by pieces."""

    def __init__(self, past: Past):
        self._values, self._seconds, self._params = [past.values], [past.seconds], [past.params]
        self.seconds = float(past.seconds[-1]) if len(past.seconds) else 0.0

    def add(self, records: Records, count: int, seconds: float) -> None:
        """`count` steps, the last of which ended at `seconds`."""
        self._values.append(np.array(np.asarray(records.values)[:, :count]))
        self._seconds.append(np.linspace(self.seconds, seconds, count + 1)[1:])
        self.seconds = seconds

    def add_params(self, flat: Float[Array, " p"]) -> None:
        """The parameters now."""
        self._params.append(np.array(flat)[None])

    def first(self, steps: int, recording: Recording) -> Past:
        """That of so many steps. Ctrl-C may have come between a step and what is said of it."""
        rows = 1 + steps // recording.every if recording.params else 0
        return Past(
            np.concatenate(self._values, axis=1)[:, :steps],
            np.concatenate(self._seconds)[:steps],
            np.concatenate(self._params)[:rows],
        )


def history_of(past: Past, last_cost: Float[Array, ""], spec: FlatSpec | None) -> History:
    """The history that a user sees; `spec` where parameters were kept."""
    cost_before, damping, gradient_norm = past.values
    params = None if spec is None else unflatten_rows(spec, jnp.asarray(past.params))
    # By NumPy: a slice by JAX would compile for each new length.
    cost = np.append(cost_before, np.asarray(last_cost))
    seconds = past.seconds.astype(cost.dtype)
    return History(*jax.device_put((cost, damping, gradient_norm, seconds)), params=params)


def unflatten_rows(spec: FlatSpec, rows: Float[Array, "m p"]) -> PyTree:
    """Parameters from flat ones, the free leaves with the axis of the rows in front."""
    leaves, start = [], 0
    for slot, fixed in zip(spec.slots, spec.fixed, strict=True):
        if slot is None:
            leaves.append(fixed)
            continue
        part, start = rows[:, start : start + slot.size], start + slot.size
        leaves.append(jax.vmap(partial(slot.unflatten, fixed=fixed))(part))
    return jax.tree.unflatten(spec.treedef, leaves)


def flatten_rows(spec: FlatSpec, params: PyTree) -> Float[np.ndarray, "m p"]:
    """Its inverse."""
    pairs = zip(jax.tree.leaves(params), spec.slots, strict=True)
    parts = [jax.vmap(slot.flatten)(leaf) for leaf, slot in pairs if slot is not None]
    return np.concatenate([np.asarray(part) for part in parts], axis=1)
