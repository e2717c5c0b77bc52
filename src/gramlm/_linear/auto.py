"""The plan of a solve: which linear solver and which memory policy, under a budget of bytes."""

import abc
import dataclasses
import math
from dataclasses import dataclass

import equinox as eqx

from .._core.costs import ProductCosts
from .._model.memory import AbstractMemoryPolicy, Keep, Materialise, Recompute, RowBlocks
from .product_costs import POINTS_OF_SPARSE_ROWS
from .solver.base import AbstractGramSolver
from .solver.dense import DenseSolver
from .solver.krylov import KrylovSolver
from .solver.pcg import PreconditionedCG

MIB = 2**20

# Recycled vectors cost a product each, and are more than a single-vector basis needs: on a kernel
# problem (n = 2048) 296 with recycling, in 6 passes, against 203 without it, one at a time.
_SHARING = 8

# A vector that joins a basis alone reads all of it eight times, from memory: to be projected out,
# twice, for its row of T, and for the solution and its residual. A basis that is worth its while
# has some hundreds of vectors; the number, and the speed of a CPU's memory, are arbitrary.
_BASIS_PASSES = 8
_TYPICAL_BASIS = 256
_BYTES_A_SECOND = 1e10  # an accelerator reads a basis in no time


@dataclass(frozen=True)
class ProblemSize:
    """What a plan is made from. Nothing in it depends on values, so that it holds for a program.

    **Attributes:**

    - `residuals` n, `params` p, `itemsize` in bytes, `memory_limit` in bytes;
    - `cheap_rows`: whether all rows of J come from one pass over the data (`gramlm.Rows`);
    - `accelerator`: whether it runs on a GPU or TPU; `bounded`: whether parameters have bounds;
    - `costs` of products with J, where they have been measured.
    """

    residuals: int
    params: int
    itemsize: int
    cheap_rows: bool
    accelerator: bool
    memory_limit: int
    bounded: bool = False
    costs: ProductCosts | None = None

    @property
    def order(self) -> int:
        """m = min(n, p), the order of the system that is solved."""
        return min(self.residuals, self.params)

    @property
    def assemble(self) -> bool:
        """Whether rows of J are formed for products with several vectors, unless found sparse."""
        return self.costs is None or self.costs.assemble

    @property
    def jacobian_bytes(self) -> int:
        """Bytes of J."""
        return self.residuals * self.params * self.itemsize


class AbstractSolverChoice(eqx.Module):
    """Chooses a linear solver for a problem of a given size."""

    @abc.abstractmethod
    def choose(self, size: ProblemSize) -> AbstractGramSolver:
        """The solver; called once, when a solve is compiled."""


class AbstractMemoryChoice(eqx.Module):
    """Chooses a memory policy for a problem of a given size."""

    @abc.abstractmethod
    def choose(self, size: ProblemSize) -> AbstractMemoryPolicy:
        """The policy; called once, when a solve is compiled."""


def wants_measurement(size: ProblemSize, solver: object, memory: object) -> bool:
    """Whether the cost of products should be measured: where the shapes do not tell.

    A matrix product with J, where J is stored, needs no measurement.
    """
    if not (isinstance(solver, AutoSolver) and isinstance(memory, AutoMemory)):
        return False
    stored = isinstance(memory.choose(size), Materialise)
    return not stored and not solver.dense_fits(size)


class AutoSolver(AbstractSolverChoice):
    """`DenseSolver` for small systems, `KrylovSolver` for others but for cheap, sparse J.

    Dense is chosen when J, its whitened copy and three m × m matrices, m = min(n, p), fit the
    memory limit, and either m is at most `dense_order`, or the rows of J are cheap and forming K
    takes at most `dense_operations`, 2·m²·max(n, p): a fraction of a second, less than the steps of
    a basis take beside their products (see the documentation, "Which solver", for measurements).
    Conjugate gradients are chosen where a product was found to take less time than a vector
    that joins a basis of 256, and several vectors to share nothing of it.
    """

    dense_order: int = eqx.field(static=True, default=512)
    dense_operations: float | int = eqx.field(static=True, default=1e10)

    def dense_fits(self, size: ProblemSize) -> bool:
        """Whether the dense solver is the cheaper one, and fits."""
        m = size.order
        operations = 2 * m * size.residuals * size.params
        cheap = size.cheap_rows and operations <= self.dense_operations
        return (m <= self.dense_order or cheap) and _gram_fits(size)

    def choose(self, size: ProblemSize) -> AbstractGramSolver:
        if self.dense_fits(size):
            return DenseSolver()
        if _many_faces(size):
            return KrylovSolver(capacity=basis_capacity(size), may_form=_gram_fits(size))
        if _products_are_cheap(size):
            return PreconditionedCG()
        return KrylovSolver(
            capacity=basis_capacity(size),
            block_size=lanczos_block(size),
            recycle_block=recycled_block(size),
            may_form=_gram_fits(size),
        )


class AutoMemory(AbstractMemoryChoice):
    """J where its rows are cheap and it fits; else products, and nothing larger than the limit.

    - a residual declared with `Rows`: `Materialise` if J takes at most half of the memory limit,
      otherwise `RowBlocks`, of as many points as 1/32 of it holds, or 4096
      where J was found to be sparse;
    - any other residual: `Keep` if J, the measure for what a linearisation stores, would take at
      most half of the limit, otherwise `Recompute`.
    """

    def choose(self, size: ProblemSize) -> AbstractMemoryPolicy:
        fits = size.jacobian_bytes <= size.memory_limit // 2
        if size.cheap_rows:
            points = size.memory_limit // 32 // (size.params * size.itemsize)
            points = _between(points, 8, 512) if size.assemble else POINTS_OF_SPARSE_ROWS
            return Materialise() if fits else RowBlocks(points, size.assemble)
        return Keep() if fits else Recompute()


def _gram_fits(size: ProblemSize) -> bool:
    """Whether J, a whitened copy, and three matrices of the order of the system fit the limit."""
    m = size.order
    return 2 * size.jacobian_bytes + 3 * m * m * size.itemsize <= size.memory_limit


def _many_faces(size: ProblemSize) -> bool:
    """Whether one J is solved with again and again, with other parameters on their bounds.

    Then a basis that is recycled is worth more than cheap products: positive weights of 700 × 1500
    bumps were at the optimum to seven digits after 25 steps, and to three by conjugate gradients;
    of 1200 × 2000 random columns after 38 s to nine digits, and after 73 s to two and a half.
    """
    return size.bounded and size.residuals < size.params


def _products_are_cheap(size: ProblemSize) -> bool:
    """Whether more is spent on a vector of a basis than on products with it.

    Conjugate gradients take some times as many products, 8 on the worst systems measured.
    """
    if size.costs is None or size.accelerator or _best_block(size) >= _SHARING:
        return False
    n, p = size.residuals, size.params
    held = _TYPICAL_BASIS * (n if n <= p else n + p) * size.itemsize
    return size.costs.seconds < _BASIS_PASSES * held / _BYTES_A_SECOND


def basis_capacity(size: ProblemSize) -> int:
    """Room for as many vectors as a quarter of the memory limit holds, 32 to 1024.

    No more than half of the order of the system, from 512 on: what they leave is conjugate
    gradients', and the projections are as large as the room.
    """
    # Z, K Z, what is recycled of them, and a copy while it is being recycled.
    vectors = size.memory_limit // 4 // (4 * size.order * size.itemsize)
    largest = min(1024, max(size.order // 2, 256))
    return min(_between(vectors, 32, largest), size.order)


def lanczos_block(size: ProblemSize) -> int:
    """About as many vectors as can join a product before it costs twice as much.

    With a product of b vectors costing a + s·b, k vectors of a basis cost k(s + a/b), and k grows
    with about the root of b: the best b is near a/s.
    """
    power = 2 ** round(math.log2(max(_best_block(size), 1.0)))
    return _between(_between(power, 1, 64), 1, max(_block_limit(size), 1))


def _best_block(size: ProblemSize) -> float:
    if size.costs is not None:
        # a + s = 1.
        slope = min(max(size.costs.vector, 1e-3), 1.0)
        return (1 - slope) / slope
    if size.cheap_rows and size.assemble:
        return 64.0 if size.accelerator or size.jacobian_bytes > size.memory_limit // 2 else 32.0
    return 32.0 if size.accelerator else 8.0


def recycled_block(size: ProblemSize) -> int:
    """Recycled vectors come all at once, so their blocks may be large.

    None where vectors share little: there a basis that starts from the residual alone is smaller.
    """
    block = lanczos_block(size)
    if block < _SHARING:
        return 0
    # The products of recycled vectors are shared among more, up to what a matrix product wants to
    # be efficient: 256 of them took a third of the time of four blocks of 64.
    wanted = 4 * block if size.costs is not None else 256
    return _between(min(wanted, _block_limit(size)), block, 256)


def _block_limit(size: ProblemSize) -> int:
    # A block of vectors in the larger space, and its products, in an eighth of the limit.
    return size.memory_limit // 8 // (4 * max(size.residuals, size.params) * size.itemsize)


def _between(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


@dataclass(frozen=True)
class Plan:
    """What was chosen for a problem; `str(plan)` says it in words."""

    size: ProblemSize
    linear_solver: AbstractGramSolver
    memory: AbstractMemoryPolicy

    def __str__(self) -> str:
        size = self.size
        jacobian = size.jacobian_bytes / MIB
        return (
            f"n = {size.residuals}, p = {size.params}: {_describe(self.linear_solver)}, "
            f"{_describe(self.memory)}; J would take {jacobian:.3g} MiB, "
            f"the memory limit is {size.memory_limit / MIB:.0f} MiB"
        )


def _describe(module: eqx.Module) -> str:
    values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return f"{type(module).__name__}({', '.join(f'{k}={v}' for k, v in values.items())})"
