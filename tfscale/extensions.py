"""Import of extensions, which are modules outside of this package that register classes (`tfscale.registry`).

Extensions are named by entry points of installed packages and by `extensions=[module]` in the user's configuration. A
module is never imported only because a stage folder, which may be untrusted, names it.
"""

from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points, packages_distributions, version

from tfscale.faults import Fault, InvalidInput
from tfscale.registry import registering

GROUP = "tfscale.extensions"


@dataclass(frozen=True)
class Extension:
    """Extension that this process has imported."""

    module: str
    version: str
    """Version of the distribution that contains the module or, if there is none, the module's `__version__`."""

    def __str__(self) -> str:
        return f"{self.module}=={self.version}"


_loaded: dict[str, Extension] = {}


def installed_extensions() -> tuple[str, ...]:
    """Return the names of the modules that installed packages declare as extensions."""
    return tuple(sorted({point.module for point in entry_points(group=GROUP)}))


def load_extensions(modules: Iterable[str]) -> tuple[Extension, ...]:
    """Import the given extensions, and return all extensions that this process has imported. Raise InvalidInput if a
    module cannot be imported, has no version, or registers a name that is taken."""
    faults = []
    for module in modules:
        if module not in _loaded:
            try:
                _load(module)
            except Exception as error:
                rule = f"must be a module that can be imported as an extension: {error!r}"
                faults.append(Fault("extensions", module, rule))
    if faults:
        raise InvalidInput(*faults)
    return loaded_extensions()


def loaded_extensions() -> tuple[Extension, ...]:
    """Return the extensions that this process has imported, sorted by module name."""
    return tuple(_loaded[module] for module in sorted(_loaded))


def require_extensions(named: Iterable[str], same_version: bool = False) -> None:
    """Raise ValueError if any of the extensions that a stage needs, given as `module==version`, has not been imported.
    If `same_version` is True, also raise ValueError if the imported extension has another version. No extension is
    imported."""
    faults = []
    for name in named:
        module, _, version_then = name.partition("==")
        if module not in _loaded:
            faults.append(f"needs the extension {name}; install it and try extensions=[{module}]")
        elif same_version and name != str(_loaded[module]):
            fix = f"install version {version_then}"
            faults.append(f"needs the extension {name}, but {_loaded[module]} is loaded; {fix}")
    if faults:
        raise ValueError("; ".join(faults))


def extension_arguments() -> list[str]:
    """Return the arguments that make a child process import the extensions of this process."""
    return [f"--extension={extension.module}" for extension in loaded_extensions()]


def add_extension_argument(parser: ArgumentParser) -> None:
    """Add the option --extension to a parser. The attribute `extensions` of the parsed arguments is a list of modules
    for `load_extensions`."""
    parser.add_argument("--extension", action="append", default=[], dest="extensions", help="Import this module first")


def _load(module: str) -> None:
    with registering(module):
        imported = import_module(module)
    stated = getattr(imported, "__version__", None)
    for distribution in packages_distributions().get(module.partition(".")[0], ()):
        stated = version(distribution)
    if stated is None:
        raise ValueError("the module has no version; install it as a distribution or define __version__")
    _loaded[module] = Extension(module, str(stated))
