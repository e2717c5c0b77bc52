"""Preconditioned conjugate gradients, with a preconditioner that outlives its Jacobian."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int, PyTree

from ..._core.checks import check_at_least, check_not_negative
from ..._core.reductions import all_finite
from ..._model.form import Form
from ..._model.linearisation import AbstractLinearisation
from ..._model.memory import AbstractMemoryPolicy
from ..._model.undamped import UndampedSystem
from ..._problem.residual.base import AbstractResidual
from ..algebra.directions import SearchDirections
from ..preconditioner.base import AbstractPreconditioner
from ..preconditioner.recycled_directions import RecycledDirections
from .base import AbstractGramSolver
from .pcg_system import PCGFactorisation, Recycled, Work


class PreconditionedCG(AbstractGramSolver):
    """Conjugate gradients on `(JM⁻¹Jᵀ + λI) w = b`, or in the normal form on `L⁻¹JᵀJL⁻ᵀ + λI`.

    It stores a preconditioner and search directions, where a Krylov basis would be too large to
    hold: for a spectrum that decays slowly, or very many residuals.

    The preconditioner approximates K, not `K + λI`, so that one approximation serves any λ, and
    the next Jacobians as well. It is built anew when the iterations beyond those of the
    Jacobian that it was built for have cost as many products as building it takes. So the
    first Jacobians are solved without, unless it is free.

    The first `num_directions` search directions of a Jacobian, and their images under K, are
    remembered: each further solve with it (the geodesic correction, another λ) starts from the best
    solution in their span, and `RecycledDirections` and `Nystrom` learn from them.

    Each solve ends when no more than the part η² of the decrease is missed, η its tolerance, or
    after `max_iterations`. Two products with J an iteration.

    !!! Example

        ```python
        import gramlm

        # For residuals that are sorted in space.
        linear = gramlm.PreconditionedCG(gramlm.BlockJacobi(32), num_directions=64)
        solver = gramlm.LevenbergMarquardt(linear_solver=linear)
        ```
    """

    preconditioner: AbstractPreconditioner = RecycledDirections()
    max_iterations: int = eqx.field(static=True, default=500)
    num_directions: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        if not isinstance(self.preconditioner, AbstractPreconditioner):
            raise TypeError(
                "`PreconditionedCG(preconditioner=…)` takes an `AbstractPreconditioner`; got "
                f"{self.preconditioner!r}. A lineax operator goes into `FixedPreconditioner`."
            )
        check_at_least(self.max_iterations, "max_iterations", 1)
        check_not_negative(self.num_directions, "num_directions")

    def init(
        self, residual: Float[Array, " n"], params: Float[Array, " p"], form: Form
    ) -> Recycled:
        dual = form.resolve(residual.size, params.size) is Form.dual
        none = jnp.zeros((), jnp.int32)
        return Recycled(
            state=self.preconditioner.init(residual if dual else params),
            reference=none,
            debt=none,
            damping=jnp.zeros((), residual.dtype),
            step=none,
        )

    def linearise(
        self, memory: AbstractMemoryPolicy, function: AbstractResidual, params: Float[Array, " p"]
    ) -> tuple[AbstractLinearisation, int]:
        return memory.linearise(function, params)

    def factorise(
        self,
        linearisation: AbstractLinearisation,
        metric: lx.AbstractLinearOperator,
        largest_eigenvalue: Float[Array, ""],
        form: Form,
        recycled: Recycled,
    ) -> "PCGFactorisation":
        system = UndampedSystem.of(linearisation, metric, largest_eigenvalue, form)
        price = self.preconditioner.price(system)
        # Solutions do not depend on what preconditions them: no derivatives of decompositions.
        fixed, damping = _without_derivatives((system, recycled.damping))

        def build(state: PyTree[Any]) -> tuple[PyTree[Any], Int[Array, ""]]:
            state, products = self.preconditioner.build(fixed, damping, recycled.step, state)
            return state, jnp.asarray(products, jnp.int32)

        def keep(state: PyTree[Any]) -> tuple[PyTree[Any], Int[Array, ""]]:
            return state, jnp.zeros((), jnp.int32)

        if price == 0:
            built = jnp.asarray(True)
            state, products = build(recycled.state)
        else:
            built = recycled.debt >= price
            state, products = jax.lax.cond(built, build, keep, recycled.state)
        # A Jacobian that is not finite must not be remembered.
        leaves = jax.tree.leaves(state)
        sound = jnp.all(jnp.asarray([all_finite(leaf) for leaf in leaves]))
        state = jax.tree.map(lambda new, old: jnp.where(sound, new, old), state, recycled.state)
        built = built & sound
        capacity = min(self.num_directions, system.size)
        none = jnp.zeros((), jnp.int32)
        return PCGFactorisation(
            preconditioner=self.preconditioner,
            max_iterations=self.max_iterations,
            system=system,
            state=state,
            built=built,
            recycled=recycled,
            rounding=jnp.finfo(system.dtype).eps * largest_eigenvalue,
            work=Work(
                directions=SearchDirections.empty(
                    capacity, jnp.zeros((system.size,), system.dtype)
                ),
                longest=none,
                debt=none,
                damping=recycled.damping,
                unreported=products,
            ),
        )


def _without_derivatives(tree: PyTree[Any]) -> PyTree[Any]:
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)
