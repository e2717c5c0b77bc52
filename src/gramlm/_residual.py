"""Canonical residuals: whatever the user wrote, as a function of flat vectors.

A residual is either *plain*, any function of the parameters, or made of *rows*,
`r_i = f(θ, x_i)` mapped over a data set. Rows are worth a factor n: all rows of the Jacobian
cost one backward pass over the data, where a plain residual needs one for each.
"""

import abc
import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ._flatten import FlatSpec, as_parameters, flatten_residual
from ._misc import column_sum_squares, map_blocks, matmul, times_transpose, unit_rows

# Rows of the Jacobian assembled at a time, unless a memory policy says otherwise: large enough
# for the products to be efficient, small enough for the temporaries not to matter. Each row of a
# plain residual differentiates the whole data set: all 1020 rows of a small Poisson problem at
# once took 7.9 GB and 7.2 s, by blocks of 128 they took 0.8 GB and 2.2 s.
_POINTS_AT_A_TIME = 256
_PLAIN_ROWS_AT_A_TIME = 128


class Rows(eqx.Module):
    """Declares a residual whose rows are a function of one data point each.

    `Rows(f)` is the residual function `(params, data) -> vmap(f)(params, data)`: `data` is a
    pytree of arrays with a common leading axis, and `f(params, x)` gets one slice of it and
    returns a scalar or a small array. `Rows(f, g, …)` puts several such blocks side by side (the
    interior and the boundary of a differential equation, several experiments) and takes a tuple
    with one data set each.

    !!! Example

        ```python
        def misfit(params, point):
            return jnp.dot(params["w"], jnp.exp(-(point["x"] - centres) ** 2)) - point["y"]

        gramlm.solve(gramlm.Rows(misfit), params, args={"x": x, "y": y})
        gramlm.solve(gramlm.Rows(interior, boundary), params, args=(x_interior, x_boundary))
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

    def datasets(self, args: PyTree) -> tuple[PyTree, ...]:
        """`args` as one data set a function, checked."""
        if len(self.functions) == 1:
            datasets = (args,)
        elif isinstance(args, tuple | list) and len(args) == len(self.functions):
            datasets = tuple(args)
        else:
            raise ValueError(
                f"`args` must be a tuple of {len(self.functions)} data sets, one for each "
                f"function of `Rows`; got {_describe(args)}."
            )
        for index, data in enumerate(datasets):
            _check_dataset(data, index)
        return datasets


class AbstractResidual(eqx.Module):
    """A residual as a function of a flat parameter vector, at fixed arguments."""

    params_spec: eqx.AbstractVar[FlatSpec]
    size: eqx.AbstractVar[int]

    @property
    def num_params(self) -> int:
        """p, the number of parameters."""
        return self.params_spec.size

    @abc.abstractmethod
    def __call__(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        """The residual vector, residual units."""

    @abc.abstractmethod
    def value_and_jacobian(
        self, params: Float[Array, " p"]
    ) -> tuple[Float[Array, " n"], Float[Array, "n p"]]:
        """The residual and its dense Jacobian, row by row in memory."""

    @abc.abstractmethod
    def assembly_products(self) -> int:
        """How many products with J or Jᵀ `value_and_jacobian` is worth."""

    @abc.abstractmethod
    def sum_squared_rows(self, params: Float[Array, " p"]) -> Float[Array, " p"] | None:
        """`diag(JᵀJ)` without storing J, or None where rows of J are not cheap."""

    @abc.abstractmethod
    def in_blocks(self, block_size: int, assemble: bool = True) -> "AbstractResidual":
        """The same residual, evaluated and differentiated by blocks of rows.

        `assemble`: whether whole rows of J may be formed on the way, which is a waste where they
        are sparse.
        """


class PlainResidual(AbstractResidual):
    """Any function of the parameters."""

    function: Callable[[PyTree], PyTree]
    params_spec: FlatSpec
    size: int = eqx.field(static=True)
    block_size: int | None = eqx.field(static=True, default=None)

    def __call__(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        residual = flatten_residual(self.function(self.params_spec.unflatten(params)))
        if residual.shape != (self.size,):
            raise ValueError(
                f"`residual_fn` returned {residual.size} residuals where it had returned "
                f"{self.size} before. Its size must not change within a solve."
            )
        return residual

    def value_and_jacobian(self, params: Float[Array, " p"]):
        if self.block_size is None:
            n, p = self.size, self.num_params
            num_blocks = -(-min(n, p) // _PLAIN_ROWS_AT_A_TIME)
            count = -(-min(n, p) // num_blocks)
            if n <= p:
                residual, vjp = jax.vjp(self, params)
                rows = jax.vmap(lambda u: vjp(u)[0])
                units = partial(unit_rows, count=count, size=n, dtype=params.dtype)
                return residual, map_blocks(lambda start: rows(units(start)), n, count)
            residual, jvp = jax.linearize(self, params)
            units = partial(unit_rows, count=count, size=p, dtype=params.dtype)
            columns = map_blocks(lambda start: jax.vmap(jvp)(units(start)), p, count)
            return residual, columns.T
        return self(params), self._jacobian_in_blocks(params, self.block_size)

    def _jacobian_in_blocks(self, params: Float[Array, " p"], count: int) -> Float[Array, "n p"]:
        # Each block linearises anew, so nothing that a backward pass stores outlives its block.
        n, p = self.size, self.num_params

        def rows(start):
            vjp = jax.vjp(self, params)[1]
            return jax.vmap(lambda u: vjp(u)[0])(unit_rows(start, count, n, params.dtype))

        def columns(start):
            units = unit_rows(start, count, p, params.dtype)
            return jax.vmap(lambda v: jax.jvp(self, (params,), (v,))[1])(units)

        return map_blocks(rows, n, count) if n <= p else map_blocks(columns, p, count).T

    def assembly_products(self) -> int:
        return min(self.size, self.num_params)

    def sum_squared_rows(self, params: Float[Array, " p"]) -> None:
        return None

    def in_blocks(self, block_size: int, assemble: bool = True) -> "PlainResidual":
        return PlainResidual(
            function=_Checkpointed(self.function),
            params_spec=self.params_spec,
            size=self.size,
            block_size=block_size,
        )


class RowResidual(AbstractResidual):
    """Blocks of rows, each a function of one data point."""

    functions: tuple[Callable[..., Any], ...]
    datasets: tuple[PyTree, ...]
    params_spec: FlatSpec
    sizes: tuple[int, ...] = eqx.field(static=True)  # residuals of one point, for each function
    size: int = eqx.field(static=True)
    block_size: int | None = eqx.field(static=True, default=None)
    assemble: bool = eqx.field(static=True, default=True)

    def _point(self, function: Callable[..., Any]):
        def residual(params: Float[Array, " p"], x: PyTree) -> Float[Array, " m"]:
            return flatten_residual(function(self.params_spec.unflatten(params), x))

        return residual

    def __call__(self, params: Float[Array, " p"]) -> Float[Array, " n"]:
        blocks = []
        for function, data in zip(self.functions, self.datasets, strict=True):
            point = self._point(function)
            count = jax.tree.leaves(data)[0].shape[0]
            if self.block_size is None or count <= self.block_size:
                values = jax.vmap(point, in_axes=(None, 0))(params, data)
            else:
                remembered = jax.checkpoint(point)
                values = jax.lax.map(
                    lambda x, f=remembered: f(params, x), data, batch_size=self.block_size
                )
            blocks.append(values.reshape(-1))
        return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks)

    def value_and_jacobian(self, params: Float[Array, " p"]):
        values, rows = [], []
        for function, data, m in zip(self.functions, self.datasets, self.sizes, strict=True):
            linearised = _point_linearisation(self._point(function), m, self.num_params)
            batch = self.block_size or _POINTS_AT_A_TIME
            r, j = _assembled(lambda x, f=linearised: f(params, x), data, batch)
            values.append(r)
            rows.append(j)
        if len(rows) == 1:
            return values[0], rows[0]
        return jnp.concatenate(values), jnp.concatenate(rows)

    def sum_squared_rows(self, params: Float[Array, " p"]) -> Float[Array, " p"] | None:
        if not self.assemble:
            return None
        total = jnp.zeros_like(params)
        for function, data, m in zip(self.functions, self.datasets, self.sizes, strict=True):
            linearised = _point_linearisation(self._point(function), m, self.num_params)

            def add(accumulated, points, linearised=linearised):
                rows = jax.vmap(linearised, in_axes=(None, 0))(params, points)[1]
                return accumulated + column_sum_squares(rows.reshape(-1, self.num_params)), None

            batches, rest = _batches(data, self.block_size or _POINTS_AT_A_TIME)
            if batches is not None:
                total = jax.lax.scan(add, total, batches)[0]
            if rest is not None:
                total = add(total, rest)[0]
        return total

    def assembly_products(self) -> int:
        return max(min(m, self.num_params) for m in self.sizes)

    def rows_times(self, params: Float[Array, " p"], v: Float[Array, "k p"]) -> Float[Array, "k n"]:
        """`V Jᵀ`: rows of J are assembled a block at a time, and multiplied with all of V."""
        images = []
        for linearised, data, _ in self._point_linearisations():

            def multiply(points, linearised=linearised):
                rows = jax.vmap(linearised, in_axes=(None, 0))(params, points)[1]
                return times_transpose(v, rows.reshape(-1, self.num_params)).T

            batches, rest = _batches(data, self.block_size or _POINTS_AT_A_TIME)
            if batches is not None:
                images.append(jax.lax.map(multiply, batches).reshape(-1, v.shape[0]))
            if rest is not None:
                images.append(multiply(rest))
        return jnp.concatenate(images).T

    def times_rows(self, params: Float[Array, " p"], u: Float[Array, "k n"]) -> Float[Array, "k p"]:
        """`U J`, likewise."""
        total = jnp.zeros((u.shape[0], self.num_params), u.dtype)
        start = 0
        for linearised, data, m in self._point_linearisations():

            def add(accumulated, block, linearised=linearised):
                points, weights = block  # (count, …), (count, m, k)
                rows = jax.vmap(linearised, in_axes=(None, 0))(params, points)[1]
                flat = rows.reshape(-1, self.num_params)
                return accumulated + matmul(weights.reshape(-1, u.shape[0]).T, flat), None

            count = jax.tree.leaves(data)[0].shape[0]
            part = u[:, start : start + count * m].T.reshape(count, m, u.shape[0])
            start += count * m
            batches, rest = _batches((data, part), self.block_size or _POINTS_AT_A_TIME)
            if batches is not None:
                total = jax.lax.scan(add, total, batches)[0]
            if rest is not None:
                total = add(total, rest)[0]
        return total

    def _point_linearisations(self):
        for function, data, m in zip(self.functions, self.datasets, self.sizes, strict=True):
            yield _point_linearisation(self._point(function), m, self.num_params), data, m

    def in_blocks(self, block_size: int, assemble: bool = True) -> "RowResidual":
        return dataclasses.replace(self, block_size=block_size, assemble=assemble)

    def sample(self, count: int) -> "RowResidual":
        """The residual of the first `count` points of each data set."""
        datasets = tuple(jax.tree.map(lambda x: x[:count], data) for data in self.datasets)
        counts = [jax.tree.leaves(data)[0].shape[0] for data in datasets]
        size = sum(m * count for m, count in zip(self.sizes, counts, strict=True))
        return dataclasses.replace(self, datasets=datasets, size=size)


def _point_linearisation(point, m: int, p: int):
    """`(params, x) -> (residual (m,), rows (m, p))` for one data point."""

    def linearised(params, x):
        if m <= p:
            value, vjp = jax.vjp(lambda q: point(q, x), params)
            return value, jax.vmap(lambda u: vjp(u)[0])(jnp.eye(m, dtype=params.dtype))
        value, jvp = jax.linearize(lambda q: point(q, x), params)
        return value, jax.vmap(jvp, out_axes=1)(jnp.eye(p, dtype=params.dtype))

    return linearised


def _assembled(linearised, data: PyTree, batch: int):
    """The residual (n,) and the rows (n, p) of all points, `batch` of them at a time.

    Written into one array: stacked and reshaped blocks would be read, on a CPU, by loops where a
    matrix product is wanted. The last batch overlaps the one before it.
    """
    count = jax.tree.leaves(data)[0].shape[0]

    def block(points):
        values, rows = jax.vmap(linearised)(points)
        return values.reshape(-1), rows.reshape(-1, rows.shape[-1])

    if count <= batch:
        return block(data)
    first = jax.eval_shape(block, jax.tree.map(lambda x: x[:batch], data))
    m = first[0].shape[0] // batch

    def write(i, carry):
        start = jnp.minimum(i * batch, count - batch)
        points = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, batch), data)
        return jax.tree.map(
            lambda all_of_it, part: jax.lax.dynamic_update_slice_in_dim(
                all_of_it, part, m * start, axis=0
            ),
            carry,
            block(points),
        )

    room = jax.tree.map(lambda s: jnp.zeros((count * m, *s.shape[1:]), s.dtype), first)
    return jax.lax.fori_loop(0, -(-count // batch), write, room)


def _batches(data: PyTree, size: int) -> tuple[PyTree | None, PyTree | None]:
    """Full batches of `size` points, stacked, and the points that are left over."""
    count = jax.tree.leaves(data)[0].shape[0]
    full = count // size * size
    stacked = jax.tree.map(lambda x: x[:full].reshape(-1, size, *x.shape[1:]), data)
    rest = jax.tree.map(lambda x: x[full:], data)
    return (stacked if full else None), (rest if full < count else None)


def canonical(
    residual_fn: Callable[..., Any], params: PyTree, args: PyTree = None, has_aux: bool = False
) -> tuple[AbstractResidual, Float[Array, " p"]]:
    """The residual as a function of a flat vector, and the flat parameters.

    Raises `TypeError` or `ValueError`, naming the argument, for parameters or residuals that are
    not non-empty pytrees of real arrays of one floating dtype.
    """
    params_spec, flat = as_parameters(params)
    if isinstance(residual_fn, Rows):
        if has_aux:
            raise ValueError("`has_aux=True` does not go with `Rows`: its rows have no aux.")
        datasets = jax.tree.map(jnp.asarray, residual_fn.datasets(args))
        sizes = tuple(
            _point_size(function, data, params_spec, flat)
            for function, data in zip(residual_fn.functions, datasets, strict=True)
        )
        counts = [jax.tree.leaves(data)[0].shape[0] for data in datasets]
        size = sum(m * count for m, count in zip(sizes, counts, strict=True))
        rows = RowResidual(
            functions=residual_fn.functions,
            datasets=datasets,
            params_spec=params_spec,
            sizes=sizes,
            size=size,
        )
        return rows, flat
    function = _without_aux(residual_fn, args, has_aux)
    structure = _shape_of(function, params_spec, flat)
    plain = PlainResidual(function=function, params_spec=params_spec, size=structure.shape[0])
    return plain, flat


def bind_args(residual_fn: Callable[..., Any], args: PyTree) -> Callable[[PyTree], Any]:
    """`params -> residual_fn(params)` or `residual_fn(params, args)`, as its signature says."""
    if not callable(residual_fn):
        raise TypeError(
            f"`residual_fn` must be a function of `params`, or of `params` and `args`; got "
            f"{type(residual_fn).__name__}."
        )
    accepts = _accepts_args(residual_fn, args)
    if not accepts and args is not None:
        raise TypeError(
            "`args` was given, but `residual_fn` takes the parameters alone. Write it as "
            "`residual_fn(params, args)`, or leave `args` out."
        )
    return _Bound(residual_fn, args, accepts)


class _Bound(eqx.Module):
    """A residual function with its arguments; a module, so that arrays in it stay leaves."""

    function: Callable[..., Any]
    args: PyTree
    accepts: bool = eqx.field(static=True)

    def __call__(self, params: PyTree) -> Any:
        return self.function(params, self.args) if self.accepts else self.function(params)


class _Checkpointed(eqx.Module):
    """Recomputes a function in its backward pass instead of storing its intermediates."""

    function: Callable[[PyTree], Any]

    def __call__(self, params: PyTree) -> Any:
        return eqx.filter_checkpoint(self.function)(params)


class _FirstOutput(eqx.Module):
    """Drops the aux output of a residual function."""

    function: Callable[[PyTree], Any]

    def __call__(self, params: PyTree) -> Any:
        return split_aux(self.function(params))[0]


def split_aux(output: Any) -> tuple[Any, Any]:
    """The pair that a residual with `has_aux=True` returns, checked."""
    if not (isinstance(output, tuple) and len(output) == 2):
        raise TypeError(
            "With `has_aux=True`, `residual_fn` must return a pair `(residual, aux)`; got "
            f"{_describe(output)}."
        )
    return output


def _without_aux(residual_fn, args, has_aux: bool) -> Callable[[PyTree], Any]:
    bound = bind_args(residual_fn, args)
    return _FirstOutput(bound) if has_aux else bound


def _accepts_args(function: Callable[..., Any], args: PyTree) -> bool:
    """Whether to call `function(params, args)`. A default of its own is left alone without args."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins and the like have no signature
        return args is not None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return args is not None
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    if len(positional) < 2:
        return False
    return args is not None or positional[1].default is inspect.Parameter.empty


def _shape_of(function, params_spec: FlatSpec, flat) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the flat residual; says what is wrong with it if anything is."""

    def evaluate(vector):
        output = function(params_spec.unflatten(vector))
        if isinstance(output, jax.Array | np.generic | float | int) and jnp.ndim(output) == 0:
            raise ValueError(
                "`residual_fn` returned a scalar. It must return the residuals themselves, whose "
                "squares are summed here, not their sum; a single residual has the shape (1,)."
            )
        return flatten_residual(output)

    structure = jax.eval_shape(evaluate, flat)
    if structure.dtype != flat.dtype:
        raise TypeError(
            f"`residual_fn` returned {structure.dtype} residuals for {flat.dtype} parameters. "
            f"Cast the data or the parameters, so that both are of one dtype."
        )
    return structure


def _point_size(function, data, params_spec, flat) -> int:
    point = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)

    def evaluate(vector, x):
        return flatten_residual(function(params_spec.unflatten(vector), x))

    structure = jax.eval_shape(evaluate, flat, point)
    if structure.dtype != flat.dtype:
        raise TypeError(
            f"A function of `Rows` returned {structure.dtype} residuals for {flat.dtype} "
            "parameters. Cast the data or the parameters, so that both are of one dtype."
        )
    return structure.shape[0]


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


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}"
