"""Tests of datasets and tokenizers of the hub, with a local server that implements its interface, and then offline."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tfscale.config.compose import compose
from tfscale.data.dataset_files import choose
from tfscale.data.errors import DataError
from tfscale.data.hub import FETCHED, fetched_tokenizer
from tfscale.data.hub_source import fetched
from tfscale.data.prepared import open_data
from tfscale.data.progress import silent
from tfscale.data.sources import CorpusSpec, fingerprint
from tfscale.data.tokenizer import Tokenizer, TokenizerSpec
from tfscale.plan.corpus import corpus_of, prepare_corpus

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DOCUMENTS = [f"Document {n} says {n * n}." for n in range(300)]
CARD = b"""---
license: mit
configs:
- config_name: few
  default: true
  data_files:
  - split: train
    path: plain/some-*
  - split: test
    path: plain/test-*
- config_name: many
  data_files: more/*.jsonl
---
# A data set
"""


def parquet(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink, row_group_size=20)
    return bytes(sink.getvalue())


DATASET = {
    "README.md": CARD,
    "script.py": b"raise SystemExit('code of a data set was run')",
    "plain/some-00000-of-00002.parquet": parquet(DOCUMENTS[:150]),
    "plain/some-00001-of-00002.parquet": parquet(DOCUMENTS[150:]),
    "plain/others.parquet": parquet(["of no split"]),
    "plain/test-00000-of-00001.parquet": parquet(["a test"]),
    "more/a.jsonl": b'{"text": "more"}\n',
}
TOKENIZER = {"tokenizer.json": Tokenizer.train(DOCUMENTS, 270).content}
REPOSITORIES = {"datasets/someone/corpus": DATASET, "someone/tokenizer": TOKENIZER}


class Hub(BaseHTTPRequestHandler):
    """Server with the part of the hub's interface that its client uses."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/(models/|datasets/)(\w+/\w+)(?:/revision/(?:main|v1))?", path):
            name = match[2] if match[1] == "models/" else f"datasets/{match[2]}"
            if name in REPOSITORIES:
                siblings = [{"rfilename": file} for file in REPOSITORIES[name]]
                information: dict[str, Any] = {"id": match[2], "sha": COMMIT, "siblings": siblings}
                if "README.md" in REPOSITORIES[name]:
                    information["cardData"] = yaml.safe_load(CARD.split(b"---")[1])
                return self._send(json.dumps(information).encode(), {})
        if match := re.fullmatch(rf"/((?:datasets/)?\w+/\w+)/resolve/(?:{COMMIT}|main)/(.+)", path):
            content = REPOSITORIES.get(match[1], {}).get(match[2])
            if content is not None:
                tag = f'"{hashlib.sha256(content).hexdigest()}"'
                return self._send(content, {"X-Repo-Commit": COMMIT, "ETag": tag})
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *values: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Address of the server, and its list of requests."""
    handler = type("Handler", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


NOBODY = "http://127.0.0.1:9"
CORPUS = [
    "data=hub",
    "data.dataset=someone/corpus",
    "data.validation=0.2",
    "data.validation_tokens=256",
    "data.tokenizer=hub",
    "data.tokenizer_name=someone/tokenizer",
    "model.vocab_size=512",
]


def tfscale(*words: str, cwd: Path, endpoint: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cwd / "cache"), **variables}
    command = [sys.executable, "-m", "tfscale.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=120)


def test_a_data_set_is_fetched_once_and_then_nobody_is_asked(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    done = tfscale("data", "prepare", *CORPUS, cwd=tmp_path, endpoint=address)
    assert done.returncode == 0, done.stderr
    assert sum("GET" in each and "resolve" in each for each in asked) == 3, "two files and the tokenizer"
    root = tmp_path / "runs" / "data"
    (folder,) = (path for path in root.iterdir() if path.name[0] != ".")
    data = open_data(folder)
    assert data.manifest.train.documents + data.manifest.heldout.documents == len(DOCUMENTS)
    assert data.manifest.tokenizer.sha256 == hashlib.sha256(TOKENIZER["tokenizer.json"]).hexdigest()
    assert (data.manifest.source["dataset"], data.manifest.source["commit"]) == ("someone/corpus", COMMIT)

    asked.clear()
    shutil.rmtree(tmp_path / "cache")
    again = tfscale("data", "prepare", *CORPUS, cwd=tmp_path, endpoint=NOBODY)
    assert again.returncode == 0, again.stderr
    assert folder.name in again.stdout
    corpus = corpus_of(compose([*CORPUS, f"runs={tmp_path / 'runs'}"]))
    assert (corpus.missing, corpus.prepared, corpus.fingerprint) == ((), True, folder.name)
    assert folder.name in tfscale("data", "list", cwd=tmp_path, endpoint=NOBODY).stdout

    local = tmp_path / "local"
    for name in ("plain/some-00000-of-00002.parquet", "plain/some-00001-of-00002.parquet"):
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(DATASET[name])
    (tmp_path / "t.json").write_bytes(TOKENIZER["tokenizer.json"])
    spec = CorpusSpec(
        "text", TokenizerSpec("file", path=str(tmp_path / "t.json")), path=str(local), heldout_fraction=0.2
    )
    assert fingerprint(spec) == folder.name, "the same local files have the same fingerprint"


def test_a_cache_that_was_filled_elsewhere_is_enough(tmp_path: Path) -> None:
    cached(tmp_path / "cache" / "hub" / "datasets--someone--corpus", DATASET)
    cached(tmp_path / "cache" / "hub" / "models--someone--tokenizer", TOKENIZER)
    done = tfscale("data", "prepare", *CORPUS, cwd=tmp_path, endpoint=NOBODY, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "training tokens" in done.stdout


def test_a_cache_with_some_of_the_files_is_not(tmp_path: Path) -> None:
    some = {name: content for name, content in DATASET.items() if "00001-of" not in name}
    cached(tmp_path / "cache" / "hub" / "datasets--someone--corpus", some)
    cached(tmp_path / "cache" / "hub" / "models--someone--tokenizer", TOKENIZER)
    done = tfscale("data", "prepare", *CORPUS, cwd=tmp_path, endpoint=NOBODY)
    assert done.returncode == 2
    assert "1 of 2 files plain/some-*-of-00002.parquet are available" in done.stderr


def cached(folder: Path, files: dict[str, bytes]) -> None:
    """Write files in the layout of the hub client's cache."""
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "blobs").mkdir()
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        link = folder / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)


def test_out_of_reach_both_faults_say_what_to_bring_and_where_to_put_it(tmp_path: Path) -> None:
    done = tfscale("data", "prepare", "data=openwebtext", cwd=tmp_path, endpoint=NOBODY)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for words in (
        "hf download Skylion007/openwebtext --repo-type dataset",
        "data.path=data/openwebtext",
        "hf download EleutherAI/gpt-neox-20b tokenizer.json --local-dir data/gpt_neox_20b",
        "data.tokenizer_path=data/gpt_neox_20b/tokenizer.json",
    ):
        assert words in done.stderr
    assert not list(tmp_path.glob("runs/**/*.json"))


def test_local_files_in_their_place_are_read_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "openwebtext").mkdir(parents=True)
    (tmp_path / "data" / "openwebtext" / "a.parquet").write_bytes(parquet(DOCUMENTS))
    (tmp_path / "data" / "gpt_neox_20b").mkdir()
    (tmp_path / "data" / "gpt_neox_20b" / "tokenizer.json").write_bytes(TOKENIZER["tokenizer.json"])
    small = ["data=openwebtext", "data.validation=0.2", "data.validation_tokens=256"]
    shown = tfscale("plan", *small, cwd=tmp_path, endpoint=NOBODY)
    assert "the corpus is not prepared" in shown.stdout, shown.stderr
    monkeypatch.chdir(tmp_path)
    experiment = compose(small)
    assert not corpus_of(experiment).prepared
    prepare_corpus(experiment, corpus_of(experiment), silent)
    assert corpus_of(experiment).prepared


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / FETCHED).mkdir()
    record = tmp_path / FETCHED / "someone--corpus++train+main.json"
    spec = CorpusSpec("hub", TokenizerSpec("bpe", 300), dataset="someone/corpus")
    assert fetched(spec, tmp_path) is None
    for content in ("{", "[]", '{"files": [{}]}', '{"files": 3}', '{"files": [], "dataset": 1}'):
        record.write_text(content)
        with pytest.raises(DataError, match=r"train\+main\.json: the file is damaged"):
            fetched(spec, tmp_path)
    assert fetched_tokenizer("gpt2", tmp_path) is None
    assert fetched_tokenizer("gpt2", None) is None


NAMES = [
    "README.md",
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "data/test-00000-of-00001.parquet",
    "en/x.train.jsonl.gz",
    "en/x.validation.jsonl.gz",
    "table.csv",
]


@pytest.mark.parametrize(
    ("configs", "subset", "split", "chosen"),
    [
        (None, None, "test", ["data/test-00000-of-00001.parquet"]),
        (None, "en", "train", ["en/x.train.jsonl.gz"]),
        (None, "en", "validation", ["en/x.validation.jsonl.gz"]),
        ([{"config_name": "a", "data_files": "data/train-*"}], None, "train", NAMES[1:3]),
        ([{"config_name": "a", "data_files": ["en/*.train.*", "data/test-*"]}], "a", "train", [NAMES[3], NAMES[4]]),
        ([{"config_name": "a", "data_files": [{"split": "x", "path": ["**/*.gz"]}]}], "a", "x", NAMES[4:6]),
        ([{"config_name": "a", "data_files": [{"split": "x", "path": "data/"}]}], "a", "x", sorted(NAMES[1:4])),
        ([{"config_name": "a", "data_files": {"x": "**/te?t-[0-9]*"}}], "a", "x", [NAMES[3]]),
        ([{"config_name": "a", "data_dir": "en"}], "a", "train", [NAMES[4]]),
        ([{"config_name": "default", "data_dir": "en"}, {"config_name": "b"}], None, "train", [NAMES[4]]),
    ],
)
def test_files_are_chosen_as_the_card_or_their_names_say(
    configs: Any, subset: str | None, split: str, chosen: list[str]
) -> None:
    assert choose(NAMES, {"configs": configs}, "d", subset, split) == chosen


@pytest.mark.parametrize(
    ("configs", "subset", "split", "fault"),
    [
        (None, "fr", "train", "data.subset=fr: must be a folder of the dataset d, which has the folders: data, en"),
        (None, None, "dev", r"subset=None, split=dev cannot be read \(found: no files\)"),
        ([{"config_name": "a"}, {"config_name": "b"}], None, "train", "data.subset=None: must be .*; try one of a, b"),
        ([{"config_name": "a"}, {"config_name": "b"}], "c", "train", "data.subset=c: must be .*; try one of a, b"),
        ([{"config_name": "a", "data_files": {"x": "*"}}], "a", "train", "data.split=train: must be .*; try one of x"),
        ([{"config_name": "a", "data_files": "*.csv"}], "a", "train", r"found: csv.*refs/convert/parquet"),
        ([{"config_name": "a", "data_files": "data/*-00000-*"}], "a", "train", r"1 of 2 files data/train-\*-of-00002"),
        ([{"config_name": "a", "data_files": "a**.csv"}], "a", "train", "which is not valid"),
    ],
)
def test_files_that_are_not_there_are_told_with_what_is(
    configs: Any, subset: str | None, split: str, fault: str
) -> None:
    with pytest.raises(DataError, match=fault):
        choose(NAMES, {"configs": configs}, "d", subset, split)
