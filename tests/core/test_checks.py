"""Checks of numbers name the argument, what came, and what was wanted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gramlm._core import checks

GOOD_AND_BAD = {
    "positive": (
        lambda x: checks.check_positive(x, "size", ", in metres"),
        [1, 0.5, np.inf, np.ones(3), jnp.ones(())],
        {0: "must be positive, in metres; got 0.", np.nan: "got nan.", 1j: "got 1j."},
    ),
    "positive and finite": (
        lambda x: checks.check_positive(x, "size", finite=True),
        [1, 1e300],
        {-1.0: "must be positive and finite; got -1.0.", np.inf: "got inf."},
    ),
    "not negative": (
        lambda x: checks.check_not_negative(x, "size"),
        [0, 2.0, np.inf],
        {-1: "must not be negative; got -1.", np.nan: "got nan."},
    ),
    "finite and not negative": (
        lambda x: checks.check_not_negative(x, "size", finite=True),
        [0, 2.0],
        {-1: "must be finite and not negative; got -1.", np.inf: "got inf."},
    ),
    "at least": (
        lambda x: checks.check_at_least(x, "size", 2),
        [2, 3.0],
        {1: "must be at least 2; got 1."},
    ),
    "above": (
        lambda x: checks.check_above(x, "size", 1.0),
        [1.5],
        {1.0: r"must be above 1.0; got 1.0."},
    ),
    "between": (
        lambda x: checks.check_between(x, "size", 0, 1, closed="both"),
        [0, 0.5, 1],
        {-0.1: "must be between 0 and 1; got -0.1.", 1.1: "got 1.1."},
    ),
    "between, without the higher": (
        lambda x: checks.check_between(x, "size", 0, 1, closed="low"),
        [0, 0.5],
        {1: "must be at least 0 and below 1; got 1.", -1: "got -1."},
    ),
    "between, without the lower": (
        lambda x: checks.check_between(x, "size", 0, 1, closed="high"),
        [0.5, 1],
        {0: "must be positive and at most 1; got 0.", 2: "got 2."},
    ),
    "between, without 2": (
        lambda x: checks.check_between(x, "size", 2, 4, closed="high"),
        [3, 4],
        {2: "must be above 2 and at most 4; got 2."},
    ),
    "within": (
        lambda x: checks.check_between(x, "size", 0, 1, ", such as 0.9", closed="neither"),
        [0.5],
        {0: "must be positive and below 1, such as 0.9; got 0.", 1: "got 1."},
    ),
}


@pytest.mark.parametrize("name", GOOD_AND_BAD)
def test_numbers_are_taken_or_refused(name):
    check, good, bad = GOOD_AND_BAD[name]
    for value in good:
        check(value)
    for value, message in bad.items():
        with pytest.raises(ValueError, match="`size` must") as caught:
            check(value)
        assert message in str(caught.value)


def test_of_an_array_the_first_wrong_entry_is_named():
    with pytest.raises(ValueError, match=r"must be positive; got -2\.0"):
        checks.check_positive(np.asarray([[1.0, -2.0], [-3.0, 1.0]]), "sizes")


def test_what_is_traced_passes():
    def program(x):
        checks.check_positive(x, "x")
        checks.check_in_order(x, "x", 0.0, "y")
        return x

    assert jax.jit(program)(-1.0) == -1.0


def test_two_numbers_are_in_order():
    checks.check_in_order(1, "low", 1.0, "high")
    with pytest.raises(ValueError, match="`low` must not exceed `high`; got 2 and 1"):
        checks.check_in_order(2, "low", 1, "high")
