"""Take screenshots of MLflow's page for the documentation, with a real server and a real browser.

    python tests/mlflow_page.py [RUNS [FOLDER]]

RUNS contains finished experiments, such as those of `make reproduce-figure`. The pictures are written to docs/images or
FOLDER.
"""

import sys
import tempfile
from pathlib import Path

from browser import Browser, find_browser
from tracked import fetch, free_port, serving, sync, wait_for

from tfscale.plan.experiments import recorded
from tfscale.tracking.mlflow.tracker import MlflowTracker
from tfscale.tracking.mlflow.view import view_url

WIDTH, HEIGHT = 1280, 800
QUIET = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
"""Script that runs before the scripts of the page and keeps its assistant closed."""
CURVES = "document.querySelectorAll('.scatterlayer .trace').length"
IN_THE_WAY = ("Hide banner", "Toggle sidebar")
"""Labels of buttons that hide parts of the page to make room for the charts."""


def open_compute_chart(page: str, experiment_id: str, browser: Browser) -> None:
    """Open the page of an experiment, and wait until its chart of perplexity over compute is drawn."""
    browser.screenshot(WIDTH, HEIGHT)  # so that the page is laid out for this size
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=QUIET)
    browser.open(view_url(page, experiment_id))
    wait_for(lambda: browser.run(CURVES))


def picture_of(browser: Browser) -> bytes:
    """Return a PNG of the page, after hiding parts that cover the charts."""
    for label in IN_THE_WAY:
        browser.run(f"document.querySelector('button[aria-label=\"{label}\"]')?.click()")
    browser.run("new Promise(done => setTimeout(done, 3000))")  # the charts are redrawn for the new size
    wait_for(lambda: browser.run(CURVES))
    return browser.screenshot(WIDTH, HEIGHT)


def main(runs: Path, folder: Path) -> None:
    executable = find_browser()
    assert executable, "no browser was found; set TFSCALE_BROWSER"
    with tempfile.TemporaryDirectory() as scratch:
        store, port = MlflowTracker(runs, f"sqlite:///{scratch}/mlflow.db"), free_port()
        for experiment in recorded(runs):
            sync(store, experiment.name, experiment.arms, experiment.comparison)
        name = recorded(runs)[0].name
        found = store.client().get_experiment_by_name(name)
        assert found is not None
        with serving(store, port), Browser(executable) as browser:
            wait_for(lambda: fetch(port))
            open_compute_chart(f"http://127.0.0.1:{port}", found.experiment_id, browser)
            picture = picture_of(browser)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow_compute.png").write_bytes(picture)


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["runs"]), Path(*sys.argv[2:3] or ["docs/images"]))
