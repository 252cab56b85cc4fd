"""What the documentation tells people to type works: every command is run, or at least read and composed; every block
of Python and every example is run."""

import contextlib
import functools
import json
import re
import runpy
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import documented
import pytest
import typer
from documented import Command
from finished import finished
from s3 import s3_server
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.plan.experiments import record
from tfscale.plan.plan import make_plan

EXAMPLES = documented.ROOT / "examples"

RUN = ("plan", "status", "list", "doctor", "generate", "eval", "export", "import", "grow", "advise", "data list")
"""Commands that are run, in the order of the pages, in a folder with a finished chain of tiny stages."""

ONLY_READ = {
    r"run\b": "trains; tests/test_schedule.py runs chains, and below are those with a store or another tracker",
    r"compare\b|report\b": "trains, or draws every figure; that of the small chain is run below",
    r"tune\b": "trains",
    r"advise\b.*--run-missing": "trains",
    r"bench\b": "takes minutes",
    r"doctor --device cuda": "needs a GPU",
    r"data prepare data=(hub|openwebtext|openwebtext2|fineweb_edu)\b": "needs the network",
    r"eval\b.*--tasks": "fetches the tasks' data; tests/test_interop_eval.py has local ones",
    r"import (CKPT|pytorch_model.bin)": "needs released weights; tests/test_interop_import.py makes some",
    r"sync\b": "needs a server; tests/test_tracking_sync.py and tests/test_tracking_server.py have some",
    r"store\b": "needs a store; run below with one",
    r"verify\b": "needs a comparison; that of the small chain is verified below",
    r"ui\b": "serves until it is stopped",
    r"status\b.*--watch": "shows until it is stopped",
}
"""Commands that are not run but read and composed, as patterns of what follows `tfscale`, each with its reason."""

TINY = {
    "schedule/progressive_tiny": """# @package _global_
defaults: [/model: tokenformer_tiny, /data: wiki, /optim: tiny, /growth: grouped]
model: {n_layer: 2, d_model: 16, n_head: 2, context: 256}
optim: {batch_tokens: 512}
launcher: {threads: 1}
schedule:
  name: progressive_tiny
  growth_tokens: 24K
  stages:
    stage1: {size: 5K, qkv: 4, tokens: 2048, transformer: {n_layer: 2, d_model: 16, n_head: 2, d_ff: 32}}
    stage2: {size: 8K, qkv: 8, transformer: {n_layer: 2, d_model: 16, n_head: 2, d_ff: 48}}
    stage3: {size: 10K, qkv: 12, transformer: {n_layer: 2, d_model: 16, n_head: 2, d_ff: 72}}
    stage4: {size: 12K, qkv: 16, transformer: {n_layer: 2, d_model: 16, n_head: 2, d_ff: 96}}
""",
    "schedule/progressive_tiny_adamw": """# @package _global_
defaults: [progressive_tiny, override /optim: tiny_adamw]
schedule: {name: progressive_tiny_adamw}
""",
    "schedule/progressive_tiny_trunk": """# @package _global_
defaults: [progressive_tiny]
optim: {lr_schedule: constant}
growth: {lr: continue}
schedule: {name: progressive_tiny_trunk, branches: {fraction: 0.2}}
""",
    "schedule/progressive_small": """# @package _global_
defaults: [progressive_tiny]
schedule: {name: progressive_small}
""",
    "schedule/progressive_small_adamw": """# @package _global_
defaults: [progressive_tiny, override /optim: tiny_adamw]
schedule: {name: progressive_small_adamw}
""",
    "data/wiki": "{source: text, path: my_texts, tokenizer: bpe, vocab_size: 300, validation_tokens: 1024}",
    "tracking/mlflow": "enabled: false",
}
"""What stands in conf/ of the folder, before the shipped files of these names."""


@pytest.fixture(scope="module")
def workplace(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The folder that commands are run in, with the files that the pages speak of; gives the stages that stand for
    those that they name."""
    folder = tmp_path_factory.mktemp("docs")
    for path, text in {**{f"conf/{name}.yaml": text for name, text in TINY.items()}, **documented.files()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    shutil.copytree(corpus, folder / "my_texts")
    for name in ("my_text.txt", "book.txt"):
        (folder / name).write_text("the model grows by adding tokens " * 20, encoding="utf-8")
    with contextlib.chdir(folder):
        record(plan := finished(["schedule=progressive_tiny"]))
        first, second, *_ = plan.chain.stages
        shutil.copytree(first.path, folder / "imported" / "354M")
        (folder / "data").symlink_to("runs/data")  # where a stage's folder looks for its corpus
        yield {"STAGE": second.key[:4], "179d,b893": f"{first.key[:4]},{second.key[:4]}"}


def tfscale() -> list[Command]:
    return [command for command in documented.commands() if command.words[0] == "tfscale"]


def only_read(command: Command) -> list[str]:
    said = " ".join(command.words[1:])
    return [pattern for pattern in ONLY_READ if re.match(pattern, said)]


def is_run(command: Command) -> bool:
    return not command.named and not only_read(command) and " ".join(command.words[1:]).startswith(RUN)


def test_every_command_is_run_or_has_its_reason_why_not() -> None:
    unclassed = [str(command) for command in tfscale() if not (command.named or only_read(command) or is_run(command))]
    assert not unclassed


def test_commands_that_the_text_names_have_the_options_that_it_names() -> None:
    for command in filter(lambda command: command.named, tfscale()):
        verb = [word for word in command.words[1:] if not word.startswith("--")]
        help_ = CliRunner().invoke(app, [*verb, "--help"], terminal_width=200)
        assert help_.exit_code == 0, command
        assert all(word in help_.output for word in command.words if word.startswith("--")), command


def test_what_is_not_run_is_read_and_composed(workplace: dict[str, str]) -> None:
    faults = {}
    for command in tfscale():
        if only_read(command) and not command.named:
            try:
                check(read(command))
            except (UserFault, ValueError) as fault:
                faults[str(command)] = fault
    assert not faults


def read(command: Command) -> dict[str, Any]:
    """The arguments that the command's function would be called with."""
    told: dict[str, Any] = {}
    answer = CliRunner().invoke(reader(app, told), command.words[1:])
    if answer.exit_code:
        raise ValueError(answer.output)
    return told


def reader(group: typer.Typer, told: dict[str, Any]) -> typer.Typer:
    """The same commands with the same arguments, which do nothing but say what they were told."""

    def instead(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(function)(lambda **arguments: told.update(arguments))

    copy = typer.Typer()
    for command in group.registered_commands:
        assert command.callback is not None
        copy.command(command.name)(instead(command.callback))
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        copy.add_typer(reader(inner.typer_instance, told), name=inner.name)
    return copy


def check(told: dict[str, Any]) -> None:
    """Composes what a command was told, and plans it where it says all that a plan needs."""
    baseline = [f"baseline=[{told['baseline']}]"] if "baseline" in told else []
    experiment = compose([*(told.get("overrides") or []), *baseline])
    if experiment.init_from is None and experiment.data.source != "hub":
        make_plan(experiment)


def test_what_is_cheap_is_run(workplace: dict[str, str]) -> None:
    faults = {}
    for command in filter(is_run, tfscale()):
        words = [workplace.get(word, word) for word in command.words]
        for option in {"--to", "--out"} & set(words):
            shutil.rmtree(words[words.index(option) + 1], ignore_errors=True)  # another page wrote it
        answer = CliRunner().invoke(app, words[1:])
        if answer.exit_code:
            faults[str(command)] = answer.exception if answer.exit_code == 1 else answer.output
    assert not faults


def test_of_a_chain_the_last_finished_stage_is_exported(workplace: dict[str, str], tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["export", "chain", "--out", str(tmp_path / "last")]).exit_code == 0
    lineage = json.loads((tmp_path / "last" / "lineage.json").read_text(encoding="utf-8"))
    assert [stage["key"][:4] for stage in lineage["stages"]] == workplace["179d,b893"].split(",")


def test_blocks_of_python_run(workplace: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for stage, folder in ((workplace["STAGE"], "my-model"), ("chain", "my_model")):
        shutil.rmtree(folder, ignore_errors=True)  # the commands before, where this process ran them, wrote it too
        assert CliRunner().invoke(app, ["export", stage, "--out", folder]).exit_code == 0
    capsys.readouterr()
    for page, block in documented.python():
        names: dict[str, Any] = {}
        exec(compile(block, page, "exec"), names)  # noqa: S102
        if page == "README.md" and "plot" in block:
            assert len(list(filter(None, block.splitlines()))) == 3
            assert len(names["evaluations"]) > 2
            assert Path("curve.png").read_bytes().startswith(b"\x89PNG")
        else:
            assert capsys.readouterr().out, page


def test_targets_of_make_and_extras_of_pip_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (documented.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((documented.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for command in documented.commands():
        assert command.words[0] == "tfscale" or command.words[1] in targets, command
    for page in documented.PAGES:
        for extras in re.findall(r"tfscale\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), page


def example(name: str, *arguments: str) -> None:
    """Runs a script as `python examples/NAME ARGUMENTS` does, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        patch.syspath_prepend(str(EXAMPLES))
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d\.\de[+-]\d+", text)]


def test_grow_in_python_keeps_the_logits_where_the_recipe_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    example("grow_in_python.py")
    exact, paper = numbers(capsys.readouterr().out)
    assert exact < 1e-12
    assert paper > 1e-2


def test_own_growth_is_short_keeps_the_logits_and_its_new_tokens_learn(capsys: pytest.CaptureFixture[str]) -> None:
    assert len((EXAMPLES / "own_growth.py").read_text(encoding="utf-8").splitlines()) < 40
    example("own_growth.py")
    difference, new, old = numbers(capsys.readouterr().out)
    assert difference < 1e-12
    assert new > 0.1 * old > 0


def test_read_ledger_tells_a_finished_chain_and_draws_it(
    workplace: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("read_ledger.py", str(tmp_path / "curve.png"), "schedule=progressive_tiny")
    told = capsys.readouterr().out
    assert [f"{size}: perplexity" in told for size in ("5K", "8K", "12K")] == [True, True, False]
    assert "its growth: loss" in told
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'example("{file.name}"' in here for file in EXAMPLES.glob("*.py"))


def run_with_a_store_and_trackers() -> None:
    """Run the commands of docs/store.md and docs/tracking.md on the finished chain, with a store at the pages' own URI.
    A server of MLflow is left to tests/test_tracking_server.py."""
    shared = r"store (ls|push|pull|verify|gc)\b|run .*\bstore=|run tracking=(none|wandb)$"
    said = [" ".join(command.words[1:]) for command in tfscale() if not command.named]
    chosen = [words for words in said if re.match(shared, words)]
    assert {words.split()[1] for words in chosen if words.startswith("store")} == {"ls", "push", "pull", "verify", "gc"}
    with s3_server("my-bucket"):
        for words in sorted(chosen):
            answer = CliRunner().invoke(app, words.split())
            assert answer.exit_code == 0, (words, answer.output, answer.exception)
        listed = CliRunner().invoke(app, ["store", "ls", "store=s3://my-bucket/tfscale", "--json"]).stdout
    assert {each["kind"] for each in json.loads(listed)["items"]} == {"stage", "corpus"}
    assert list(Path("runs/wandb").glob("offline-run-*/*.wandb"))


def test_the_small_chains_comparison_is_trained_drawn_and_reported(workplace: dict[str, str]) -> None:
    # The last test here: the others expect a chain that is half done.
    said = ("compare --baseline scratch --run-missing", "compare --baseline scratch --submit my_results",
            "verify my_results", "report")  # fmt: skip
    assert set(said) <= {" ".join(command.words[1:]) for command in tfscale()}
    for words in said:
        answer = CliRunner().invoke(app, words.split())
        assert answer.exit_code == 0, (words, answer.output, answer.exception)
    run_with_a_store_and_trackers()
    (folder,) = Path("runs/comparisons").iterdir()
    assert (folder / "figure.png").stat().st_size > 10_000
    assert "12K" in (folder / "report.html").read_text(encoding="utf-8")
    cells = json.loads((EXAMPLES / "analysis.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102
    assert not names["results"].verdicts.empty
