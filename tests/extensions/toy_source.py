"""Corpus source of random sentences that are determined by a seed."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tfscale.data.sources import SOURCES, CorpusSpec, Source
from tfscale.faults import Fault

WORDS = "a an the cat dog bird sees hears finds small large red".split()  # noqa: SIM905


@dataclass(frozen=True)
class SentencePart:
    seed: int
    count: int

    @property
    def size(self) -> int:
        return 40 * self.count

    def documents(self) -> Iterator[str]:
        draw = random.Random(self.seed)  # noqa: S311
        return (" ".join(draw.choices(WORDS, k=8)) for _ in range(self.count))


@SOURCES.register("sentences")
@dataclass(frozen=True)
class Sentences(Source):
    parts_of: int
    count: int

    @classmethod
    def check(cls, spec: CorpusSpec) -> Iterable[Fault]:
        if not isinstance(count := spec.options.get("count"), int) or count < 1:
            yield Fault("data.options.count", count, "must be a number of sentences", "1000")

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> "Sentences":
        return cls(spec.options.get("parts", 2), spec.options["count"])

    def identity(self) -> dict[str, str]:
        return {"source": "sentences", "count": str(self.count), "parts": str(self.parts_of)}

    def parts(self) -> list[SentencePart]:
        return [SentencePart(seed, self.count) for seed in range(self.parts_of)]
