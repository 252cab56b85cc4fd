"""Tests of `tfscale report` and `tfscale compare` from stage folders to files, and of the page in a real browser."""

import ctypes
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Browser, find_browser
from schemas import checked
from test_analysis_curves import reading, result, spent, write_seeds

from tfscale.analysis.comparison import compare_arms
from tfscale.analysis.documents import to_html
from tfscale.cli.common import Common
from tfscale.cli.compare import compare, plan_with, report
from tfscale.faults import UserFault
from tfscale.plan.experiments import comparison_folder
from tfscale.plan.plan import Plan
from tfscale.stage.environment import ENVIRONMENT_FILE
from tfscale.stage.events import EventLog
from tfscale.stage.folder import Stage
from tfscale.stage.result import write_result
from tfscale.stage.spec import STAGE_FILE, spec_to_dict


def fill(stage: Stage, before: int, perplexities: list[float]) -> None:
    """Write the folder of a finished stage, without its checkpoints."""
    stage.path.mkdir(parents=True)
    (stage.path / STAGE_FILE).write_text(json.dumps(spec_to_dict(stage.spec)))
    (stage.path / ENVIRONMENT_FILE).write_text(json.dumps({"python": "3.11.7", "packages": {"torch": "2.13"}}))
    log = EventLog(stage.path)
    log.write("start", step=0)
    steps = stage.spec.steps
    for index, perplexity in enumerate(perplexities):
        step = round(steps * index / (len(perplexities) - 1))
        totals = {f"total_{n}": v for n, v in vars(spent(before + step * stage.spec.batch_tokens)).items()}
        log.write("eval", step=step, tokens=step * stage.spec.batch_tokens, **reading(perplexity), **totals)
    log.close()
    total = spent(before + stage.spec.tokens)
    write_result(stage.path, result(stage.key, steps, stage.spec.tokens, total, perplexities[-1]))


@pytest.fixture
def finished(short: list[str]) -> tuple[list[str], Plan]:
    """Overrides of a small chain whose folders say that it and its baselines have been trained."""
    plan = plan_with(Common(short), "scratch")
    tokens = {stage.key: stage.spec.tokens for stage in plan.stages}
    total: dict[str, int] = {}
    for number, stage in enumerate(plan.stages):
        before = total.get(stage.spec.parent or "", 0)
        total[stage.key] = before + tokens[stage.key]
        last = 9 - 0.3 * number
        fill(stage, before, [last + 4, last + 1, last])
    return short, plan


def test_report_writes_one_page_beside_the_comparison(
    finished: tuple[list[str], Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, plan = finished
    assert report(Common(overrides, as_json=True), "scratch") == 0
    path = comparison_folder(plan) / "report.html"
    assert checked("report", capsys.readouterr().out) == {"report": str(path)}
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    assert "tfscale compare --baseline scratch --run-missing" in text
    assert "seed: 0" in text
    assert str(plan.runs) not in text, "the report does not name the runs folder"
    for stage in plan.stages:
        assert f'id="stage-{stage.key}"' in text


def test_compare_writes_figures_and_tables(
    finished: tuple[list[str], Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, plan = finished
    assert compare(Common(overrides), "scratch") == 0
    printed = capsys.readouterr().out
    folder = comparison_folder(plan)
    assert {"figure.png", "figure_time.svg", "costs.pdf", "table.tex"} <= {p.name for p in folder.iterdir()}
    for path in folder.iterdir():
        assert path.name in printed
    assert "One seed each" in printed


def test_nothing_trained_is_nothing_to_report(small: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="no stage of the chain is finished"):
        report(Common(small), "scratch")
    assert not (tmp_path / "runs" / "comparisons").exists()


def test_a_folder_that_cannot_be_read_is_told(finished: tuple[list[str], Plan]) -> None:
    overrides, plan = finished
    (plan.stages[0].path / ENVIRONMENT_FILE).write_text("[")
    with pytest.raises(UserFault, match=r"environment\.json: is not valid JSON"):
        report(Common(overrides), "scratch")


def in_folder(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_cannot_be_written_to_is_told_with_the_way_around_it(
    finished: tuple[list[str], Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, plan = finished
    (plan.runs / "comparisons").write_text("no folder")
    before = in_folder(plan.runs)
    told = rf"{plan.runs}/comparisons.* cannot be written to: .*; write to another folder with --out DIR"
    with pytest.raises(UserFault, match=told):
        compare(Common(overrides), "scratch")
    with pytest.raises(UserFault, match=told):
        report(Common(overrides), "scratch")
    out = tmp_path / "new" / "out"
    assert compare(Common(overrides), "scratch", out=out) == 0
    assert report(Common(overrides), "scratch", out=out) == 0
    assert {"figure.png", "table.csv", "report.html"} <= {path.name for path in out.iterdir()}
    assert str(out / "table.csv") in capsys.readouterr().out
    assert in_folder(plan.runs) == before
    with pytest.raises(UserFault, match=r"--out .*/table\.csv/more.* cannot be written to: "):
        report(Common(overrides), "scratch", out=out / "table.csv" / "more")


CAPABILITIES_VERSION = 0x20080522
OVERRIDING = 1 << 1 | 1 << 2
"""Capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, with which root ignores permissions."""


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Make permissions apply to this thread, even if it runs as root."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    held, fewer = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    fewer[:] = held[:]
    fewer[0] &= ~OVERRIDING
    assert libc.capset(header, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0


@contextmanager
def without_permissions(folder: Path) -> Iterator[None]:
    """Make a folder read-only, also for root."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with bound_by_permissions():
            yield
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_runs_folder_of_somebody_else_is_compared_and_reported_elsewhere(
    finished: tuple[list[str], Plan], tmp_path: Path
) -> None:
    overrides, plan = finished
    runs, out = tmp_path / "theirs", tmp_path / "out"
    shutil.copytree(plan.runs, runs, ignore=shutil.ignore_patterns("comparisons"))
    overrides = [f"runs={runs}" if text.startswith("runs=") else text for text in overrides]
    told = r"theirs/comparisons.* cannot be written to: Permission denied; write to another folder with --out DIR"
    with without_permissions(runs):
        with pytest.raises(UserFault, match=told):
            compare(Common(overrides), "scratch")
        with pytest.raises(UserFault, match=told):
            report(Common(overrides), "scratch")
        assert compare(Common(overrides), "scratch", out=out) == 0
        assert report(Common(overrides), "scratch", out=out) == 0
    assert {"figure.png", "table.csv", "report.html"} <= {path.name for path in out.iterdir()}


TITLE, ARM = "tiny <chain> & text", "from <b>scratch</b> & more"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of a chain and its scratch arm with three seeds, whose titles contain HTML characters."""
    folder = tmp_path_factory.mktemp("page")
    chain, scratch = write_seeds(folder / "runs")
    arms = [chain, replace(scratch, title=ARM)]
    path = folder / "report.html"
    path.write_text(to_html(compare_arms(arms, TITLE), arms, "tfscale compare", "seed: 0"), encoding="utf-8")
    return path


class Balanced(HTMLParser):
    """Parser that fails on elements closed in the wrong order, and collects all sources and links."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(made: Path) -> None:
    parser = Balanced()
    parser.feed(made.read_text(encoding="utf-8"))
    assert parser.open == []
    assert all(source.startswith(("data:", "#")) for source in parser.sources)
    anchors = {source[1:] for source in parser.sources if source.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', made.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def browser(made: Path) -> Iterator[Browser]:
    executable = find_browser()
    if executable is None:
        missing = "no Chromium: install chromium-headless-shell (Debian), or name one in TFSCALE_BROWSER"
        # With TFSCALE_REQUIRE_BROWSER, a missing browser is a failure; otherwise the test is skipped.
        (pytest.fail if os.environ.get("TFSCALE_REQUIRE_BROWSER") else pytest.skip)(missing)
    with Browser(executable) as opened:
        opened.open(made)
        yield opened


def column(browser: Browser, section: str, number: int) -> list[str]:
    script = f"[...document.querySelectorAll('#{section} tbody tr')].map((row) => row.cells[{number}].textContent)"
    cells: list[str] = browser.run(script)
    return cells


def sort_by(browser: Browser, section: str, number: int) -> str:
    head = f"document.querySelectorAll('#{section} th')[{number}]"
    browser.run(f"{head}.querySelector('button').click()")
    direction: str = browser.run(f"{head}.getAttribute('aria-sort')")
    return direction


def test_the_browser_shows_the_text_and_has_nothing_to_complain_of(browser: Browser) -> None:
    assert browser.run("document.title") == f"{TITLE}, 64 validation tokens"
    assert not browser.run("document.querySelector('chain, b')")
    text = browser.run("document.body.innerText")
    for expected in (TITLE, "Verdicts", "95% intervals over seeds", ARM, "How to reproduce each number"):
        assert expected in text
    assert browser.complaints() == []


def test_the_figures_are_drawn_and_lie_inside_the_page(browser: Browser) -> None:
    browser.screenshot(1200, 900)
    drawn = browser.run("[...document.images].map((image) => image.complete && image.naturalWidth > 0)")
    assert drawn == [True] * 4
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.screenshot(390, 800)  # size of a phone: wide tables scroll on their own
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_columns_sort_up_and_down_by_value(browser: Browser) -> None:
    before = [float(cell.split()[0]) for cell in column(browser, "results", 4)]
    assert before == pytest.approx([8, 9, 5, 6], abs=0.01)
    assert sort_by(browser, "results", 4) == "ascending"
    assert [float(cell.split()[0]) for cell in column(browser, "results", 4)] == sorted(before)
    assert sort_by(browser, "results", 4) == "descending"
    assert [float(cell.split()[0]) for cell in column(browser, "results", 4)] == sorted(before)[::-1]
    assert sort_by(browser, "results", 1) == "ascending"
    assert column(browser, "results", 1) == [ARM] * 2 + ["progressive"] * 2


def test_what_is_not_known_sorts_last_both_ways(browser: Browser) -> None:
    for _ in range(2):
        sort_by(browser, "results", 8)  # rows of the chain have no saving
        savings = column(browser, "results", 8)
        assert all(savings[:2])
        assert savings[2:] == ["", ""]


def test_a_stage_opens_with_its_environment(browser: Browser) -> None:
    key = browser.run("document.querySelector('#results tbody td:last-child a').hash.slice(1)")
    assert browser.run(f"document.getElementById('{key}').tagName") == "DETAILS"
    assert math.isclose(browser.run("document.querySelectorAll('#stages details').length"), 12)


def test_a_screenshot_shows_more_than_a_white_page(browser: Browser) -> None:
    shot = browser.screenshot(1000, 1200)
    assert shot.startswith(b"\x89PNG")
    assert len(shot) > 50_000
