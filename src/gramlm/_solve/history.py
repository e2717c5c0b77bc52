"""What is kept of the steps of a solve."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core.flatten import FlatSpec
from .._step.info import StepInfo
from .carry import Told
from .solution import History


@dataclass(frozen=True)
class Saving:
    """What `solution.history` holds beside cost, damping, gradient norm and time.

    - `params`: whether to keep the parameters after steps 0, `every`, 2·`every`, …: p numbers for
      each of them, in the memory of the host. Inside of a transformation room for all
      `1 + max_steps // every` of them is made on the device.
    """

    params: bool = False
    every: int = 1

    def __post_init__(self):
        if not isinstance(self.params, bool):
            raise TypeError(f"`Saving(params=…)` must be a bool; got {self.params!r}.")
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"`Saving(every=…)` must be a positive number of steps; got {self.every!r}."
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


class Records(eqx.Module):
    """One column a step, NaN where none was made: the cost before it, and the damping and the
    gradient norm of `History`. In one array, which is one transfer to the host.
    """

    values: Float[Array, "3 k"]

    @classmethod
    def empty(cls, size: int, flat: Float[Array, " p"]) -> "Records":
        return cls(jnp.full((3, size), jnp.nan, flat.dtype))

    def with_step(self, index: Int[Array, ""], info: StepInfo) -> "Records":
        column = jnp.stack([info.cost_before, info.damping, info.gradient_norm])
        return Records(self.values.at[:, index].set(column))

    def history(self, told: Told, params: PyTree) -> History:
        """What a program returns: of full length, without times."""
        cost_before, damping, gradient_norm = self.values
        cost = jnp.append(cost_before, jnp.nan).at[told.totals.num_steps].set(told.info.cost)
        seconds = jnp.full_like(damping, jnp.nan)
        return History(cost, damping, gradient_norm, seconds, params)


class Past(NamedTuple):
    """The steps made so far, on the host.

    - `values`, (3, k): as in `Records`. `seconds`, (k,): since the start, at the end of each.
    - `params`, (m, p): the flat parameters after some.
    """

    values: np.ndarray
    seconds: np.ndarray
    params: np.ndarray

    @classmethod
    def empty(cls, steps: int, rows: int, flat: Float[Array | np.ndarray, " p"]) -> "Past":
        """For flat parameters like these."""
        return cls(
            np.empty((3, steps), flat.dtype),
            np.empty((steps,), np.float64),
            np.empty((rows, flat.size), flat.dtype),
        )

    @classmethod
    def of(cls, history: History, steps: int, spec: FlatSpec) -> "Past":
        """The inverse of `history`."""
        columns = (history.cost, history.damping, history.gradient_norm)
        values = np.stack([np.asarray(column)[:steps] for column in columns])
        seconds = np.asarray(history.seconds, np.float64)[:steps]
        if history.params is None:
            return cls(values, seconds, np.empty((0, spec.size), values.dtype))
        return cls(values, seconds, flatten_rows(spec, history.params))

    def history(self, last_cost: Any, spec: FlatSpec | None) -> tuple[Any, ...]:
        """The fields of a `History`; `spec` where parameters were kept."""
        cost_before, damping, gradient_norm = self.values
        params = None if spec is None else unflatten_rows(spec, jnp.asarray(self.params))
        cost = np.empty(len(cost_before) + 1, cost_before.dtype)
        cost[:-1], cost[-1] = cost_before, last_cost
        return cost, damping, gradient_norm, self.seconds.astype(cost.dtype), params


class HistoryBuffer:
    """Grows with the steps of a solve, by pieces."""

    def __init__(self, past: Past):
        self._parts = [past]
        self._no_params = past.params[:0]
        self.seconds = float(past.seconds[-1]) if len(past.seconds) else 0.0

    def add(self, records: Records, count: int, seconds: float) -> None:
        """`count` steps, the last of which ended at `seconds`."""
        values = np.array(np.asarray(records.values)[:, :count])
        times = self.seconds + np.arange(1, count + 1) * ((seconds - self.seconds) / max(count, 1))
        self._parts.append(Past(values, times, self._no_params))
        self.seconds = seconds

    def add_params(self, flat: Float[Array, " p"]) -> None:
        """The parameters now."""
        part = self._parts[-1]
        self._parts[-1] = part._replace(params=np.concatenate([part.params, np.array(flat)[None]]))

    def first(self, steps: int, recording: Saving) -> Past:
        """That of so many steps. Ctrl-C may have come between a step and what is said of it."""
        rows = 1 + steps // recording.every if recording.params else 0
        values, seconds, params = zip(*self._parts, strict=True)
        return Past(
            np.concatenate(values, axis=1)[:, :steps],
            np.concatenate(seconds)[:steps],
            np.concatenate(params)[:rows],
        )


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
