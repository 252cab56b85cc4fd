"""Reader of configuration files that keeps the line number of each value, which Hydra does not."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from tfscale.config.aliases import KEYS

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C version if PyYAML was built with libyaml
_GLOBAL = re.compile(r"#\s*@package\s+_global_\b")


@dataclass(frozen=True)
class File:
    """Text of a configuration file, and the part of the configuration that it sets."""

    path: Path
    package: str
    """Part of the configuration that contains the keys, such as `optim`; empty for the root."""
    text: str
    named: bool = False
    """True if the root's defaults or the command line name the file, False if another file includes it."""

    @property
    def lines(self) -> dict[str, int]:
        """Line number of each key in the file, by full key, such as optim.lr."""
        node = yaml.compose(self.text, Loader=_LOADER)
        return dict(_lines(node, f"{self.package}." if self.package else ""))

    @property
    def about(self) -> str:
        """First sentence of the comment at the top of the file, or its beginning up to a colon or semicolon."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            if not _GLOBAL.match(line):
                lines.append(line.removeprefix("#").strip())
        whole = " ".join(lines)
        sentence = re.match(r"(.+?)(?:(?<![ .][a-z])[.](?=\s|$)|[:;](?=\s))", whole)
        return sentence[1] if sentence else whole


def read_file(path: Path, package: str = "", named: bool = False) -> File:
    """Return a configuration file with its text, or raise OSError if the file cannot be read."""
    return File(path, package, path.read_text(encoding="utf-8", errors="replace"), named)


def _lines(node: Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    if not isinstance(node, MappingNode):
        return
    for name, value in node.value:
        key = f"{prefix}{name.value}"
        if key == "defaults" or (key.endswith(".defaults") and isinstance(value, SequenceNode)):
            continue
        yield KEYS.get(key, key), name.start_mark.line + 1
        yield from _lines(value, f"{key}.")
