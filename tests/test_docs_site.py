"""Tests that the documentation builds without warnings, needs no network, and contains the whole reference."""

import re
from pathlib import Path

import pytest
from documented import ROOT

pytest.importorskip("sphinx", reason="the site is built with the extra [docs]")

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sphinx.cmd.build import build_main

    folder = tmp_path_factory.mktemp("site")
    assert build_main(["-W", "--keep-going", "-q", "-E", str(ROOT / "docs"), str(folder)]) == 0
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//|@import|url\((?:https?:)?//"
    )
    for file in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert not loaded.search(file.read_text(encoding="utf-8")), file


def test_the_reference_has_every_key_and_command(site: Path) -> None:
    keys = (site / "reference" / "configuration.html").read_text(encoding="utf-8")
    for key in ("schedule.stages.NAME.transformer.d_ff", "growth.new_keys", "launcher.slurm.minutes", "optim.lr"):
        assert f">{key}<" in keys
    assert "Fraction of the documents used for validation" in keys
    commands = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for name in ("tfscale run", "tfscale grow", "tfscale data prepare", "--run-missing", "schemas/store_ls.json"):
        assert f">{name}<" in commands


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "runs/README.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(page: str) -> None:
    links = LINK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert links or page == "runs/README.md"
    for link in links:
        assert "://" in link or (ROOT / page).parent.joinpath(link).exists(), link
