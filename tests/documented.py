"""Commands, Python blocks and files that the documentation asks users to type or write."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Command:
    """Line that begins with `tfscale` or `make`, without its comment."""

    page: str
    words: tuple[str, ...]
    named: bool
    """True if the command stands in the text with options only, and so is a name that is not meant to be typed as it
    is."""

    def __str__(self) -> str:
        return shlex.join(self.words)


def commands() -> list[Command]:
    """Return every command once, in the order of the pages, from blocks without a language and from code in the text.
    `...` stands for parts that do not matter or, at the beginning, for the command before it."""
    found: dict[tuple[str, ...], Command] = {}
    for page in PAGES:
        last: tuple[str, ...] = ()
        for line, in_text in _lines(page.read_text(encoding="utf-8")):
            words = _words(line)
            again = words[:1] == ("...",)
            if again:
                words = _again(last, words[1:])
            words = tuple(word for word in words if word != "...")
            if len(words) < 2 or words[0] not in ("tfscale", "make"):
                continue
            last = last if again else words
            told = words[3 if words[1] in ("data", "store") else 2 :]
            named = in_text and words[0] == "tfscale" and all(word.startswith("--") for word in told)
            if words not in found or (found[words].named and not named):
                found[words] = Command(str(page.relative_to(ROOT)), words, named)
    return list(found.values())


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the lines of blocks, with continued lines joined, and pieces of code outside blocks, each with True if it
    stands in the text."""
    place = 0
    for block in _FENCE.finditer(text):
        yield from ((code, True) for code in _CODE.findall(text[place : block.start()]))
        if block[1] in ("", "bash", "console"):
            yield from ((line, False) for line in block[2].replace("\\\n", " ").splitlines())
        place = block.end()
    yield from ((code, True) for code in _CODE.findall(text[place:]))


def _words(line: str) -> tuple[str, ...]:
    """Return the words of a command, or nothing for another line."""
    if not re.match(r"(\.venv/bin/)?(tfscale|make) |\.\.\. ", line):
        return ()
    first, *others = shlex.split(line, comments=True)
    return (first.rpartition("/")[2] if first != "..." else first, *others)


def _again(last: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the last command with these words added. They replace words with the same key."""
    keys = {word.partition("=")[0] for word in words}
    return (*(word for word in last if word.partition("=")[0] not in keys), *words)


def python() -> list[tuple[str, str]]:
    """Return every Python block with its page."""
    return [
        (str(page.relative_to(ROOT)), block[2])
        for page in PAGES
        for block in _FENCE.finditer(page.read_text(encoding="utf-8"))
        if block[1] == "python"
    ]


def files() -> dict[str, str]:
    """Return the files that readers are asked to write, from YAML blocks with a path in a comment."""
    blocks = [block for page in PAGES for block in _FENCE.findall(page.read_text(encoding="utf-8"))]
    found = {}
    for language, text in blocks:
        path = re.search(r"^# (conf/\S+\.yaml)$", text, re.MULTILINE)
        if language == "yaml" and path:
            found[path[1]] = text
    return found
