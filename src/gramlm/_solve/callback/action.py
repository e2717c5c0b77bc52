"""What a callback may ask for."""

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx


class Steering(NamedTuple):
    """What all callbacks together ask for: the reason to stop, and λ, each None if nobody does."""

    stop: str | None = None
    damping: float | None = None


class AbstractAction(eqx.Module):
    """What a callback returns when it wants something."""

    @abc.abstractmethod
    def onto(self, steering: Steering) -> Steering:
        """What is asked for with this action as well."""


class Stop(AbstractAction):
    """Ends the solve after this step; its result is `RESULTS.stopped`, which raises nothing.

    `reason` is found again as `solution.reason`.
    """

    reason: str = ""

    def __check_init__(self):
        if not isinstance(self.reason, str):
            raise TypeError(f"`Stop(reason=…)` must be a string; got {self.reason!r}.")

    def onto(self, steering: Steering) -> Steering:
        return steering if steering.stop is not None else steering._replace(stop=self.reason)


def _as_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`SetDamping(value)` takes a number; got {value!r}.") from error


class SetDamping(AbstractAction):
    """The next trial is made at λ = `value`, in units of K, as is `info.damping`.

    From there on the damping rule goes its own way. λ is raised to the floor of the driver, and
    a rule that starts anew, because the residual had to be divided by another `scale`, forgets it.
    """

    value: float = eqx.field(converter=_as_number)

    def __check_init__(self):
        if not 0 < self.value < math.inf:
            raise ValueError(
                f"`SetDamping(value)` takes a positive, finite number, λ in units of K; got "
                f"{self.value}."
            )

    def onto(self, steering: Steering) -> Steering:
        return steering._replace(damping=self.value)


def heeded(steering: Steering, answer: Any, callback: Any) -> Steering:
    """`steering` with what a callback answered: None, an action, or several."""
    if answer is None:
        return steering
    actions = answer if isinstance(answer, list | tuple) else (answer,)
    for action in actions:
        if not isinstance(action, AbstractAction):
            raise TypeError(
                f"The callback {callback!r} returned {answer!r}. It may return None, to go on, or "
                "`gramlm.Stop(…)`, `gramlm.SetDamping(…)`, or a list of such actions."
            )
        steering = action.onto(steering)
    return steering
