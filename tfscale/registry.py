"""Registries of classes that users select by name, such as growth operators, model families, optimizers and trackers.

Shipped classes are listed by module and imported on first use. An extension (`tfscale.extensions`) registers
classes during the import of the extension:

    @OPTIMIZERS.register("lion")
    class Lion: ...
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Generic, TypeVar

from tfscale.faults import Fault, InvalidInput

T = TypeVar("T", bound=type[Any])


class Registry(Generic[T]):
    """Registry of classes of one kind, such as optimizers.

    Args:
        key: configuration key, such as `optim.name`, that selects a class by name. Messages show this key.
        shipped: mapping from the name of each class to its location in this package, in the form `module:class`.
    """

    def __init__(self, key: str, shipped: Mapping[str, str]) -> None:
        self._key = key
        self._shipped = dict(shipped)
        self._registered: dict[str, T] = {}
        self._modules: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all classes, shipped classes first."""
        return (*self._shipped, *self._registered)

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers a class under a name. The decorator raises ValueError if the name is
        taken."""

        def decorate(cls: T) -> T:
            if name in self.names:
                raise ValueError(
                    f"{self._key}={name}: must be unique, but {self.get(name).__module__} uses it; try another name"
                )
            self._registered[name] = cls
            if _importing:
                self._modules[name] = _importing[-1]
            return cls

        return decorate

    def get(self, name: str) -> T:
        """Return the class registered under a name, or raise InvalidInput with a list of all names if the name is
        unknown."""
        if name in self._registered:
            return self._registered[name]
        if name in self._shipped:
            module, _, attribute = self._shipped[name].partition(":")
            cls: T = getattr(import_module(module), attribute)
            return cls
        near = get_close_matches(name, self.names, n=1)
        hint = near[0] if near else "extensions=[module] with the extension that registers this name"
        raise InvalidInput(Fault(self._key, name, f"must be one of {', '.join(self.names)}", hint))

    def extension_of(self, name: str) -> str | None:
        """Return the module of the extension that registered a name, or None if no extension registered the name."""
        return self._modules.get(name)


_importing: list[str] = []


@contextmanager
def registering(module: str) -> Iterator[None]:
    """Return a context manager that records `module` as the extension of all classes that are registered within the
    `with` statement."""
    _importing.append(module)
    try:
        yield
    finally:
        _importing.pop()
