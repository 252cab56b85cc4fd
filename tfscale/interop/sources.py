"""Generator of the model's code in an exported folder from this package's own code.

transformers loads it with `trust_remote_code`, without an installation of tfscale.
"""

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tfscale

MODELING = "modeling_tfscale"
"""Name of the module in the folder that transformers loads; it imports the others."""
_ENTRY = "tfscale.interop.hf_model"
_IMPORT = re.compile(r"^(\s*)from (tfscale(?:\.\w+)*) import\b", flags=re.MULTILINE)


def sources() -> dict[str, str]:
    """Return the modules of the model, with relative imports, as the content of each file by its name."""
    found: dict[str, str] = {}
    waiting = [_ENTRY]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        text = _path(module).read_text(encoding="utf-8")
        assert not re.search(r"^\s*import tfscale", text, flags=re.MULTILINE), f"{module}: import names, not modules"
        needed = [match[2] for match in _IMPORT.finditer(text)]
        assert all(_path(name).is_file() for name in needed), f"{module}: imports a package; import from its modules"
        found[module] = _IMPORT.sub(lambda match: f"{match[1]}from .{_name(match[2])} import", text)
        waiting += needed
    found[_ENTRY] += _imports(sorted(found.keys() - {_ENTRY}))
    return {f"{_name(module)}.py": _head(module) + text for module, text in sorted(found.items())}


def _imports(modules: Sequence[str]) -> str:
    lines = [f"from .{_name(module)} import __name__ as _{_name(module)}" for module in modules]
    return "\n".join(["\n# transformers 5.0 copies only the files that this one names.", *lines, ""])


def _path(module: str) -> Path:
    assert tfscale.__file__ is not None
    return Path(tfscale.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")


def _name(module: str) -> str:
    return MODELING if module == _ENTRY else module.replace(".", "_")


def _head(module: str) -> str:
    return f"# Made by `tfscale export` ({release()}) from {module.replace('.', '/')}.py. License: Apache-2.0.\n"


def release() -> str:
    """Return the name and version of tfscale."""
    try:
        return f"tfscale {version('tfscale')}"
    except PackageNotFoundError:
        return "tfscale from its source tree"
