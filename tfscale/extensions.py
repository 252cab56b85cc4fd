"""Extensions: modules outside of this package that register classes of their own (`tfscale.registry`).

They are found through entry points of installed packages (group `tfscale.extensions`) and through `extensions=[module]`
in the user's own configuration. A stage's folder never names a module to import: it may come from someone else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points, packages_distributions, version

from tfscale.registry import registering

GROUP = "tfscale.extensions"


@dataclass(frozen=True)
class Extension:
    """A module that has been imported as an extension."""

    module: str
    version: str
    """Version of the distribution that it is part of, or its `__version__`."""

    def __str__(self) -> str:
        return f"{self.module}=={self.version}"


_loaded: dict[str, Extension] = {}


def installed_extensions() -> tuple[str, ...]:
    """Return the modules that installed packages announce as extensions."""
    return tuple(sorted({point.module for point in entry_points(group=GROUP)}))


def load_extensions(modules: Iterable[str]) -> tuple[Extension, ...]:
    """Import extensions that are not imported yet, and return all that are.

    Raises:
        ValueError: a module cannot be imported, has no version, or registers a name that is taken; every fault.
    """
    faults = []
    for module in modules:
        if module not in _loaded:
            try:
                _load(module)
            except Exception as error:
                faults.append(f"extensions={module}: must be a module that can be imported as an extension: {error!r}")
    if faults:
        raise ValueError("\n".join(faults))
    return loaded_extensions()


def loaded_extensions() -> tuple[Extension, ...]:
    """Return the extensions that this process has imported, by name."""
    return tuple(_loaded[module] for module in sorted(_loaded))


def _load(module: str) -> None:
    with registering(module):
        imported = import_module(module)
    stated = getattr(imported, "__version__", None)
    for distribution in packages_distributions().get(module.partition(".")[0], ()):
        stated = version(distribution)
    if stated is None:
        raise ValueError("it is part of no installed distribution and has no __version__; add one of them")
    _loaded[module] = Extension(module, str(stated))
