"""Every class is abstract or final: no method that does something is overridden."""

import abc
import importlib
import inspect
import pkgutil

import equinox as eqx
import pytest

import gramlm


def _classes() -> dict[str, type]:
    """The modules of Equinox that the package defines, by their dotted names."""
    found = {}
    for info in pkgutil.walk_packages(gramlm.__path__, "gramlm."):
        if info.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            ours = inspect.isclass(value) and value.__module__.startswith("gramlm")
            if ours and issubclass(value, eqx.Module):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def _methods(cls: type) -> dict[str, object]:
    def method(value: object) -> bool:
        plain = inspect.isfunction(getattr(value, "method", value))  # Equinox may wrap them
        return plain or isinstance(value, property | classmethod)

    # Each class of a family checks its own fields.
    names = [name for name in vars(cls) if not name.startswith("__")]
    return {name: vars(cls)[name] for name in names if method(vars(cls)[name])}


def overridden(cls: type) -> set[str]:
    """Methods that a class overrides though they do something."""
    found = set()
    for base in cls.__mro__[1:]:
        if base in (eqx.Module, object, abc.ABC):
            continue
        done = {
            name
            for name, value in _methods(base).items()
            if not getattr(value, "__isabstractmethod__", False)
        }
        found |= done & set(_methods(cls))
    return found


@pytest.mark.parametrize("name", sorted(_classes()))
def test_no_method_that_does_something_is_overridden(name):
    assert not overridden(_classes()[name])


@pytest.mark.parametrize("name", sorted(_classes()))
def test_nothing_inherits_from_a_final_class(name):
    for base in _classes()[name].__mro__[1:]:
        if base.__module__.startswith("gramlm") and issubclass(base, eqx.Module):
            assert base.__name__.lstrip("_").startswith("Abstract")


def test_an_override_is_seen():
    class AbstractShape(eqx.Module):
        @abc.abstractmethod
        def area(self):
            """To be written."""

        def twice(self):
            return 2 * self.area()

    class Square(AbstractShape):
        def area(self):
            return 1

    class Wrong(AbstractShape):
        def area(self):
            return 1

        def twice(self):
            return 3

    assert overridden(Square) == set()
    assert overridden(Wrong) == {"twice"}
