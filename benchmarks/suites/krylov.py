"""The cases where a solver lives by products with J: kernels never stored, large networks.

The settings of the peers come from short trials that counted products rather than time:

- nlls-gram sketches its preconditioner anew every 5 steps, and its damping decreases by 0.5. On
  the smallest kernel problem that took 168 inner iterations to a relative cost of 1e-6 in float32;
  a decrease of 0.1 outruns the sketch, and took 539 with a new one at every step, or did not get
  there. On the easy network of 512 points it took 172 to 1e-4, and a decrease of 0.1 took 2500.
- Its geodesic acceleration, a second solve a step, is left out: with and without it a relative
  cost of 1e-2 of the small Poisson problem took 5520 and 3552 products, and 1e-4 of the network of
  4096 points 1614 and 896. (On the network of 512 points it was worth its products.) The residual
  of a kernel is a sine of a linear function.
- Its damping starts at its default of 1e-3, but at 1 on the large networks, where `J Jᵀ` has
  eigenvalues up to 9e3 and 4e4: from 1e-3 the first solve took all of its 500 iterations.
- Its dense solver is left out from 8192 points on, where J and its copies are 1 GB each in float32
  and a factorisation outlasts the time. At 16384 points only float32 fits: a product took 0.5 s,
  and in float64 3 to 4 s.
- Optimistix's LSMR ends after 50 iterations, or its first steps would be its last.
"""

from typing import Any

from ..harness.case import NLLS, OPTX, OURS, SCIPY, Case

Settings = dict[str, Any]

_CG: Settings = {"linear": "cg", "tol": 1e-3, "maxiter": 500}
_NYSTROM: Settings = {**_CG, "linear": "nystrom", "refresh": 5}
_LSMR: Settings = {"linear": "lsmr", "maxiter": 50}
_PLAIN: Settings = {"geodesic": False}


def _ours(**common: Any) -> list[Case]:
    return [
        Case(solver="gramlm", adapter=OURS, **common),
        Case(solver="gramlm rows", adapter=OURS, settings={"rows": True}, **common),
    ]


def _nlls(name: str, settings: Settings, **common: Any) -> Case:
    return Case(solver=f"nlls-gram {name}", adapter=NLLS, settings=settings, **common)


def _iterative(settings: Settings, nystrom: Settings, **common: Any) -> list[Case]:
    """The matrix-free peers, SciPy's in float64 alone; `settings` are for nlls-gram."""
    cases = [
        _nlls("GramCG", {**_CG, **_PLAIN, **settings}, **common),
        _nlls("GramCG Nyström", {**_NYSTROM, **_PLAIN, **settings, **nystrom}, **common),
        Case(solver="Optimistix LSMR", adapter=OPTX, settings=_LSMR, **common),
    ]
    if common["dtype"] == "float64":
        dense = {"dense": False}
        cases.append(Case(solver="SciPy trf lsmr", adapter=SCIPY, settings=dense, **common))
    return cases


def _interpolation() -> list[Case]:
    """The problem in one dimension of the spine, with a sketch of rank 64 beside its solvers."""
    cases = []
    for dtype in ("float32", "float64"):
        common: Settings = {
            "problem": "interpolation",
            "dtype": dtype,
            "jacobians": 30,
            "seconds": 25.0,
            "cost": 3e-8 if dtype == "float64" else 3.3e-8,
        }
        settings = {**_NYSTROM, **_PLAIN, "decrease": 0.1, "refresh": 1, "rank": 64}
        cases += [*_ours(**common), _nlls("GramCG Nyström 64", settings, **common)]
    return cases


def _kernels() -> list[Case]:
    cases = []
    for problem in ("kernel-2d-2048", "kernel-3d-2048"):
        for dtype in ("float32", "float64"):
            common: Settings = {
                "problem": problem,
                "dtype": dtype,
                "seconds": 30.0,
                "relative": 1e-8,
            }
            cases += [
                *_ours(**common),
                _nlls("Cholesky ×0.1", {"decrease": 0.1, **_PLAIN}, **common),
                *_iterative({}, {"rank": 512}, **common),
            ]
    for dtype in ("float32", "float64"):
        common = {
            "problem": "kernel-2d-8192",
            "dtype": dtype,
            "seconds": 45.0,
            "relative": 1e-8,
            "warm_up": False,
        }
        iterative = _iterative({}, {"rank": 512}, **common)
        # In float64 a solve of 500 unpreconditioned iterations takes six minutes.
        cases += [*_ours(**common), *(iterative[1:3] if dtype == "float64" else iterative)]
    common = {
        "problem": "kernel-2d-16384",
        "dtype": "float32",
        "seconds": 90.0,
        "relative": 1e-8,
        "warm_up": False,
    }
    return [*cases, *_ours(**common), *_iterative({}, {"rank": 512}, **common)[1:2]]


def _networks() -> list[Case]:
    """Sketches of 128 columns, multiplied one by one."""
    bounded: Settings = {"damping": 1.0, "maxiter": 200}
    nystrom: Settings = {"rank": 128, "block": False}
    cases = []
    for dtype in ("float32", "float64"):
        common: Settings = {
            "problem": "rbf-network-4096",
            "dtype": dtype,
            "seconds": 35.0,
            "relative": 1e-8,
            "warm_up": False,
        }
        iterative = _iterative(bounded, nystrom, **common)
        cases += [
            *_ours(**common),
            _nlls("Cholesky ×0.1", {"decrease": 0.1, "damping": 1.0}, **common),
            *(iterative if dtype == "float32" else iterative[1:]),
        ]
    for dtype in ("float32", "float64"):
        common = {
            "problem": "rbf-network-8192",
            "dtype": dtype,
            "seconds": 45.0,
            "relative": 1e-8,
            "warm_up": False,
        }
        iterative = _iterative(bounded, nystrom, **common)
        cases += [*_ours(**common), *(iterative[1:] if dtype == "float32" else iterative[1:2])]
    return cases


def _huge() -> list[Case]:
    """Its spectrum is nearly flat: a sketch helps little, and a solve must be bounded."""
    common: Settings = {
        "problem": "kernel-huge",
        "dtype": "float32",
        "seconds": 45.0,
        "relative": 1e-8,
        "warm_up": False,
    }
    return [*_ours(**common), *_iterative({"maxiter": 200}, {"rank": 64}, **common)]


def _poisson(problem: str, seconds: float, metric: float) -> list[Case]:
    common: Settings = {
        "problem": problem,
        "dtype": "float64",
        "jacobians": 1000,
        "seconds": seconds,
        "metric": metric,
    }
    return [
        *_ours(**common),
        _nlls("Cholesky", {}, **common),
        *_iterative({}, {"rank": 128}, **common),
    ]


# The limits add up to 47 minutes without compilation; many cases end before theirs.
KRYLOV: list[Case] = [
    *_interpolation(),
    *_kernels(),
    *_huge(),
    *_networks(),
    *_poisson("poisson-5d-small", 35.0, 3e-3),
]
# The full problem of five dimensions, on whatever device JAX takes: a GPU, else hours.
DEVICE: list[Case] = _poisson("poisson-5d", 60.0, 1e-3)
