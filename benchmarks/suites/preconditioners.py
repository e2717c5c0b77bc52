"""`python -m benchmarks.suites.preconditioners`: iterations and products of each preconditioner.

First for one system `(K + λI) w = b` with a random b, in float64: two kernels at 2000 points with
λ = 1e-6·λmax(K), and 1000 badly scaled rows with 1e-8·λmax(K). Then for successive Jacobians of a
trainable RBF network of 1000 points, at 1e-6·λmax(K). A product is one with J or Jᵀ; `--size`
makes all of it smaller.
"""

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

import gramlm
from gramlm._linear.algebra.cg import preconditioned_cg

from ..problems.rbf_network import build

RANK = 128
TOLERANCES = (1e-2, 1e-6)
JACOBIANS = 3
MOST = 5000  # iterations

PRECONDITIONERS: dict[str, gramlm.extend.AbstractPreconditioner] = {
    "NoPreconditioner()": gramlm.NoPreconditioner(),
    "Jacobi()": gramlm.Jacobi(),
    "BlockJacobi(64)": gramlm.BlockJacobi(64),
    f"PivotedCholesky({RANK})": gramlm.PivotedCholesky(RANK),
    f"Nystrom({RANK})": gramlm.Nystrom(RANK),
    f"Nystrom({4 * RANK})": gramlm.Nystrom(4 * RANK),
    f"RecycledDirections({RANK})": gramlm.RecycledDirections(RANK),
}


class System(NamedTuple):
    """J, b and λ over λmax(K)."""

    jacobian: jax.Array
    b: jax.Array
    ratio: float


def points(size: int, rng: np.random.Generator) -> np.ndarray:
    """Random points of the unit square, in the order of the cells of a grid."""
    x = rng.uniform(size=(size, 2))
    cells = np.floor(8 * x)
    return x[np.lexsort((cells[:, 1], cells[:, 0]))]


def root(kernel: np.ndarray) -> np.ndarray:
    """J with `J Jᵀ` the kernel."""
    values, vectors = np.linalg.eigh(kernel)
    return vectors * np.sqrt(np.maximum(values, 0))


def systems(size: int) -> Iterator[tuple[str, System]]:
    rng = np.random.default_rng(0)
    b = rng.normal(size=size)
    x = points(size, rng)
    distance = np.sqrt(np.sum((x[:, None] - x) ** 2, axis=-1))
    scaled = np.sqrt(3) * distance / 0.1
    half = size // 2
    rows = 10.0 ** -rng.uniform(0, 3, size=(half, 1))
    jacobians = {
        "Gaussian kernel, width 0.1": (root(np.exp(-0.5 * (distance / 0.1) ** 2)), 1e-6),
        "Matérn-3/2 kernel, length 0.1": (root((1 + scaled) * np.exp(-scaled)), 1e-6),
        "rows scaled by 1 to 1e-3": (rows * rng.normal(size=(half, size)), 1e-8),
    }
    for name, (jacobian, ratio) in jacobians.items():
        yield name, System(jnp.asarray(jacobian), jnp.asarray(b[: len(jacobian)]), ratio)


def linearised(system: System) -> tuple[Any, Any, Any, Any]:
    at = gramlm.extend.MaterialisedLinearisation(system.b, system.jacobian)
    structure = jax.ShapeDtypeStruct((system.jacobian.shape[1],), system.b.dtype)
    largest = jnp.linalg.eigvalsh(system.jacobian @ system.jacobian.T)[-1]
    return at, lx.IdentityLinearOperator(structure), largest, system.ratio * largest


@eqx.filter_jit
def prepared(preconditioner: Any, system: System, largest: Any, damping: Any) -> tuple[Any, Any]:
    """The state of a preconditioner, and the products it took.

    What learns from solves has learnt from one with another right-hand side, whose products are
    not its own.
    """
    at, metric, *_ = linearised(system)
    undamped = gramlm.extend.UndampedSystem.of(at, metric, largest, gramlm.Form.dual)
    empty = preconditioner.init(system.b)
    state, products = preconditioner.build(undamped, damping, jnp.asarray(0), empty)
    if isinstance(preconditioner, gramlm.RecycledDirections):
        other = preconditioned_cg(
            undamped.multiply,
            lambda v: v,
            jax.random.normal(jax.random.key(1), system.b.shape),
            damping,
            largest_eigenvalue=largest,
            tolerance=TOLERANCES[0] ** 2,
            max_iterations=MOST,
            directions=gramlm.extend.SearchDirections.empty(RANK, system.b),
        )
        state = preconditioner.harvest(state, other.directions)
    return state, products


@eqx.filter_jit
def by_cg(preconditioner: Any, state: Any, system: System, largest: Any, damping: Any, eta: Any):
    at, metric, *_ = linearised(system)
    undamped = gramlm.extend.UndampedSystem.of(at, metric, largest, gramlm.Form.dual)
    return preconditioned_cg(
        undamped.multiply,
        preconditioner.at(undamped, damping, state),
        system.b,
        damping,
        largest_eigenvalue=largest,
        tolerance=eta**2,
        max_iterations=MOST,
    )


@eqx.filter_jit
def by_basis(solver: Any, system: System, largest: Any, damping: Any, eta: Any):
    at, metric, *_ = linearised(system)
    nothing = solver.init(system.b, jnp.zeros(at.num_params), gramlm.Form.dual)
    factors = solver.factorise(at, metric, largest, gramlm.Form.dual, nothing)
    return factors.at(damping).solve(system.b, factors.work, eta)


def table_of(system: System) -> Iterator[tuple[str, ...]]:
    """Rows: the set-up, and iterations and all products for each tolerance."""
    *_, largest, damping = linearised(system)
    for name, preconditioner in PRECONDITIONERS.items():
        state, products = prepared(preconditioner, system, largest, damping)
        row = [name, str(int(products))]
        for eta in TOLERANCES:
            found = by_cg(preconditioner, state, system, largest, damping, jnp.asarray(eta))
            over = "" if found.converged else "> "
            total = 2 * int(found.products) + int(products)
            row += [f"{over}{int(found.iterations)}", f"{over}{total}"]
        yield tuple(row)
    for block in (1, 32):
        solver = gramlm.KrylovSolver(capacity=len(system.b), block_size=block)
        row = [f"KrylovSolver(block_size={block})", "0"]
        for eta in TOLERANCES:
            step = by_basis(solver, system, largest, damping, jnp.asarray(eta))
            row += [str(int(step.iterations)), str(int(step.products))]
        yield tuple(row)


def successive(size: int, count: int) -> list[System]:
    """Jacobians along a dense Levenberg–Marquardt solve of a trainable network, from its tenth."""
    instance = build(jnp.float64, count=size, width=0.1)
    assert instance.rows is not None
    (row,), data = instance.rows
    residual = gramlm.Rows(row)
    solver = gramlm.LevenbergMarquardt(
        linear_solver=gramlm.DenseSolver(), memory=gramlm.Materialise()
    )
    params, state = instance.params, solver.init(residual, instance.params, data)
    step, found = eqx.filter_jit(solver.step), []
    for number in range(9 + count):
        if number >= 9:
            at: Any = gramlm.linearise(residual, params, data, memory=gramlm.Materialise())
            found.append(System(at.jacobian, at.residual, 1e-6))
        params, state, _ = step(residual, params, state, data)
    return found


@eqx.filter_jit
def next_step(solver: Any, system: System, eta: Any, recycled: Any):
    at, metric, largest, damping = linearised(system)
    factors = solver.factorise(at, metric, largest, gramlm.Form.dual, recycled)
    step = factors.at(damping).solve(system.b, factors.work, eta)
    return step.iterations, step.products, factors.recycle(step.work)


def sequence_of(sequence: list[System]) -> Iterator[tuple[str, ...]]:
    """Rows: iterations and products with each Jacobian, set-up included, and the sum of these."""
    solvers: dict[str, Any] = {
        name: gramlm.PreconditionedCG(preconditioner, max_iterations=MOST)
        for name, preconditioner in PRECONDITIONERS.items()
    }
    for block in (1, 32):
        name = f"KrylovSolver(block_size={block})"
        solvers[name] = gramlm.KrylovSolver(capacity=1024, block_size=block)
    for name, solver in solvers.items():
        first = sequence[0]
        start = jnp.zeros(first.jacobian.shape[1])
        recycled = solver.init(first.b, start, gramlm.Form.dual)
        row, total = [name], 0
        for system in sequence:
            count, products, recycled = next_step(
                solver, system, jnp.asarray(TOLERANCES[0]), recycled
            )
            row += [str(int(count)), str(int(products))]
            total += int(products)
        yield (*row, str(total))


def show(title: str, heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(heads) + " |")
    print("| --- |" + " ---: |" * (len(heads) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suites.preconditioners", description=__doc__
    )
    parser.add_argument("--size", type=int, default=2000, help="points of the kernels")
    parser.add_argument("--jacobians", type=int, default=JACOBIANS)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    counted = ("iterations", "products")
    heads = tuple(f"{what}, η = {eta:g}" for eta in TOLERANCES for what in counted)
    for title, system in systems(options.size):
        show(title, ("", "set-up", *heads), table_of(system))
    sequence = successive(options.size // 2, options.jacobians)
    numbers = range(1, options.jacobians + 1)
    heads = tuple(f"{what} {number}" for number in numbers for what in counted)
    show("successive Jacobians of a network", ("", *heads, "sum"), sequence_of(sequence))


if __name__ == "__main__":
    main()
