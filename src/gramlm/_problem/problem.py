"""The declaration of a problem beyond its residual."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._core.arrays import as_array
from .._core.free import frozen
from .loss import AbstractLoss, known
from .weights import AbstractWeighting


class Problem(eqx.Module):
    """A residual function with what belongs to it; goes wherever a residual function does.

    `gramlm.solve` takes the same keywords and makes one. Write it yourself to take single steps, or
    to ask for a covariance.

    - `residual_fn`: a function, or `gramlm.Rows`.
    - `loss`: a `gramlm.extend.AbstractLoss`, None for squares; or a pytree of them with the
      structure of the residual, or of its upper part.
    - `weights`: non-negative numbers that multiply the squares, such as inverse variances: a
      scalar, an array, or a pytree with the structure of the residual, or of its upper part, whose
      arrays broadcast to those of the residual; or a `gramlm.extend.AbstractWeighting`. Weights
      come before the loss, whose scale is then in units of the weighted residual.
    - `free`: which parameters to solve for, all unless given: a pytree prefix of the parameters
      with leaves True, False, or functions of a leaf, as for `equinox.filter`, or boolean arrays of
      the shape of a parameter, where single entries are free. What is fixed may be anything and
      comes back as it came; fixed arrays of other values do not compile anew.
    - `lower`, `upper`: bounds of the parameters, parameter units: scalars, arrays, or pytrees with
      the structure of the parameters, or of its upper part; None or infinite for no bound.
      Of a complex parameter they are complex: bounds of its real and its imaginary part.

    !!! Example

        ```python
        import equinox as eqx
        import jax.numpy as jnp
        import gramlm


        def residual(params, data):
            x, y = data
            return params["a"] * jnp.exp(-params["b"] * x) - y


        x = jnp.linspace(0.0, 2.0, 8)
        data = (x, 2 * jnp.exp(-x))
        params = {"a": jnp.asarray(1.0), "b": jnp.asarray(0.5)}
        problem = gramlm.Problem(residual, loss=gramlm.Huber(0.1), lower=0.0)
        solver = gramlm.LevenbergMarquardt()
        state = solver.init(problem, params, data)
        params, state, info = eqx.filter_jit(solver.step)(problem, params, state, data)
        assert info.cost < info.cost_before
        ```
    """

    residual_fn: Callable[..., Any]
    loss: AbstractLoss | PyTree = None
    weights: AbstractWeighting | PyTree = None
    lower: PyTree = None
    upper: PyTree = None
    free: PyTree = eqx.field(default=None, converter=frozen)

    def __check_init__(self):
        if isinstance(self.residual_fn, Problem):
            raise TypeError("`Problem` takes a residual function, not another `Problem`.")

    @classmethod
    def of(cls, residual_fn: Callable[..., Any], **parts: Any) -> "Problem":
        """A problem from whatever goes for a residual function, and parts, None for not given.

        Raises `TypeError` for parts beside a `Problem`.
        """
        given = {name: part for name, part in parts.items() if part is not None}
        if not isinstance(residual_fn, Problem):
            return cls(residual_fn, **given)
        if given:
            names = ", ".join(f"`{name}`" for name in given)
            raise TypeError(f"{names} came beside a `Problem`: put them into it.")
        return residual_fn

    @property
    def checked(self) -> bool:
        """Whether it holds numbers that have to be looked at before a solve."""
        return not (self.loss is self.weights is self.lower is self.upper is None)

    def with_arrays(self) -> "Problem":
        """The same with arrays for Python numbers, so that other values are the same program."""
        parts = {
            name: jax.tree.map(as_array, getattr(self, name))
            for name in ("weights", "lower", "upper")
        }
        loss = jax.tree.map(
            lambda leaf: known(leaf).with_arrays() if _is_loss(leaf) else leaf,
            self.loss,
            is_leaf=_is_loss,
        )
        return dataclasses.replace(self, loss=loss, **parts)

    def __call__(self, *args: Any) -> Any:
        """What the residual function returns: without weights, loss and bounds."""
        return self.residual_fn(*args)


def _is_loss(leaf: Any) -> bool:
    return isinstance(leaf, AbstractLoss)
