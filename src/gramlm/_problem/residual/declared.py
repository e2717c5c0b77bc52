"""The declaration of a residual: by rows, or whatever else knows its canonical form."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core.checks import described
from ..._core.flatten import FlatSpec
from .base import AbstractResidual
from .batches import count_of
from .outputs import check_values, of_dtype
from .rows import RowResidual


class AbstractDeclaration(eqx.Module):
    """A function `params, args -> residuals` that knows its canonical form."""

    @abc.abstractmethod
    def residual(
        self, params_spec: FlatSpec, params: Float[Array, " p"], args: PyTree, has_aux: bool
    ) -> AbstractResidual:
        """The residual as a function of a flat vector; raises if it is none."""

    @abc.abstractmethod
    def values(
        self, params_spec: FlatSpec, params: Float[Array, " p"], args: PyTree
    ) -> AbstractResidual:
        """The same for what is no residual but any function of the parameters."""


class Rows(AbstractDeclaration):
    """Declares a residual whose rows are a function of one data point each.

    `Rows(f)` is the residual function `(params, data) -> vmap(f)(params, data)`: `data` is a
    pytree of arrays with a common leading axis, and `f(params, x)` gets one slice of it and
    returns a scalar or a small array. `Rows(f, g, …)` puts several such blocks side by side (the
    interior and the boundary of a differential equation, several experiments) and takes a tuple
    with one data set each.

    !!! Example

        ```python
        import jax
        import jax.numpy as jnp
        import gramlm


        def interior(weights, x):  # u' = u
            return jax.grad(jnp.polyval, argnums=1)(weights, x) - jnp.polyval(weights, x)


        def boundary(weights, x):  # u(0) = 1
            return jnp.polyval(weights, x) - 1


        # With one function, `gramlm.Rows(interior)`, `args` would be its points alone.
        points = (jnp.linspace(0.0, 1.0, 6), jnp.zeros(1))
        solution = gramlm.solve(gramlm.Rows(interior, boundary), jnp.zeros(6), points)
        assert jnp.allclose(jnp.polyval(solution.value, 1.0), jnp.e, rtol=1e-3)
        ```

    What `f` needs beside the point goes into a closure, or into a `jax.tree_util.Partial` or an
    Equinox module if it holds arrays that change from solve to solve.
    """

    functions: tuple[Callable[..., Any], ...]

    def __init__(self, *functions: Callable[..., Any]):
        if not functions:
            raise TypeError("`Rows` needs at least one function `f(params, x)`; none came.")
        for function in functions:
            if not callable(function):
                raise TypeError(
                    f"`Rows` takes functions `f(params, x)`; got {type(function).__name__}. "
                    "Pass the data as `args`: `gramlm.solve(gramlm.Rows(f), params, args=data)`."
                )
        self.functions = functions

    def __call__(self, params: PyTree, args: PyTree) -> PyTree:
        """The residuals of all points, one array for each function."""
        blocks = tuple(
            jax.vmap(function, in_axes=(None, 0))(params, data)
            for function, data in zip(self.functions, self.datasets(args), strict=True)
        )
        return blocks[0] if len(blocks) == 1 else blocks

    def residual(
        self, params_spec: FlatSpec, params: Float[Array, " p"], args: PyTree, has_aux: bool
    ) -> RowResidual:
        if has_aux:
            raise ValueError("`has_aux=True` does not go with `Rows`: its rows have no aux.")
        datasets = jax.tree.map(jnp.asarray, self.datasets(args))
        sizes = tuple(
            _point_size(function, data, params_spec, params)
            for function, data in zip(self.functions, datasets, strict=True)
        )
        return RowResidual(
            functions=self.functions,
            datasets=datasets,
            params_spec=params_spec,
            sizes=sizes,
            size=sum(m * count_of(data) for m, data in zip(sizes, datasets, strict=True)),
        )

    def values(
        self, params_spec: FlatSpec, params: Float[Array, " p"], args: PyTree
    ) -> RowResidual:
        residual = self.residual(params_spec, params, args, has_aux=False)
        check_values(residual.structure(params), params.dtype)
        return residual

    def datasets(self, args: PyTree) -> tuple[PyTree, ...]:
        """`args` as one data set a function, checked."""
        if len(self.functions) == 1:
            datasets = (args,)
        elif isinstance(args, tuple | list) and len(args) == len(self.functions):
            datasets = tuple(args)
        else:
            raise ValueError(
                f"`args` must be a tuple of {len(self.functions)} data sets, one for each "
                f"function of `Rows`; got {described(args)}."
            )
        for index, data in enumerate(datasets):
            _check_dataset(data, index)
        return datasets


def _check_dataset(data: PyTree, index: int) -> None:
    leaves = jax.tree.leaves(data)
    name = f"The data set {index} of `Rows` (in `args`)"
    if not leaves:
        raise ValueError(f"{name} is empty; pass a pytree of arrays with a common leading axis.")
    lengths = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) != 1 or lengths in ({()}, {(0,)}):
        shapes = [jnp.shape(leaf) for leaf in leaves]
        raise ValueError(
            f"{name} must have one leading axis, of at least one point, common to all its "
            f"arrays; got shapes {shapes}."
        )


def _point_size(
    function: Callable[..., Any], data: PyTree, params_spec: FlatSpec, params: Float[Array, " p"]
) -> int:
    """m, the residuals of one point."""
    point = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)

    def evaluate(vector, x):
        output = function(params_spec.unflatten(vector), x)
        return of_dtype(vector.dtype, output, "A function of `Rows`")

    return jax.eval_shape(evaluate, params, point).shape[0]
