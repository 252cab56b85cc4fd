"""Preparation of a folder that contains a corpus, the stages of a chain and packages, for a machine without internet.

The folder is a runs folder, so that `tfscale compare` can read the trained stages after they are copied back into it.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.checkout import ROOT
from tfscale import children
from tfscale.files import read_object, write_json

CONFIG = Path(__file__).parent / "conf"
"""Folder with the configuration of the chain."""
STAGES, PACKAGES = "order.json", "packages"
PYTHON, PLATFORMS = "3.12", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
"""Python version and platforms for which packages are downloaded."""
NEEDED = (
    "annotated-doc", "annotated-types", "antlr4-python3-runtime", "hydra-core", "markdown-it-py", "mdurl", "omegaconf",
    "packaging", "psutil", "pydantic", "pydantic-core", "pygments", "pyyaml", "rich", "shellingham", "tokenizers",
    "typer", "typing-extensions", "typing-inspection",
)  # fmt: skip
"""Packages that `tfscale run tracking=none` imports besides torch, numpy and safetensors."""


def prepare(folder: Path, overrides: Sequence[str]) -> None:
    """Prepare the corpus and the folders of the stages, and record the order of training.

    Args:
        overrides: settings that override those of the chain.
    """
    from tfscale.config.compose import compose
    from tfscale.data.prepare import prepare as prepare_tokens
    from tfscale.orchestrate.orchestrator import prepare_folder
    from tfscale.plan.plan import make_plan

    chosen = ["schedule=gpu_chain", "baseline=scratch", f"runs={folder}", *overrides]
    plan = make_plan(compose(chosen, CONFIG))
    prepare_tokens(plan.corpus.spec, plan.runs / "data")
    last = plan.chain.stages[-1].size
    arms = [(f"{arm.title}, {stage.size}", stage) for arm in plan.baselines for stage in arm.stages]
    of_chain = [(f"{plan.chain.title}, {stage.size}", stage) for stage in plan.chain.stages]
    first = [(title, stage) for title, stage in arms if stage.size == last]
    order: dict[str, str] = {}
    for title, stage in (*first, *of_chain, *arms):
        prepare_folder(stage)
        order.setdefault(stage.path.name, title)
    write_json(folder / STAGES, {"stages": order, "data": plan.corpus.fingerprint})


def read_order(folder: Path) -> tuple[dict[str, str], Path]:
    """Return the titles of the stages by folder name, in the order of training, and the folder of the corpus.

    Raises:
        FileNotFoundError: the folder was not prepared.
    """
    planned = read_object(folder / STAGES)
    return planned["stages"], folder / "data" / planned["data"]


def install_packages(folder: Path) -> None:
    """Install the locked versions of the packages in `NEEDED` into the folder.

    Raises:
        subprocess.CalledProcessError: pip failed, and wrote its message to standard error.
    """
    wanted = folder / "packages.txt"
    wanted.write_text("".join(_pinned((ROOT / "requirements" / "locked.txt").read_text("utf-8"))), "utf-8")
    target = ["--target", str(folder / PACKAGES), "--upgrade", "--no-deps", "--no-compile", "--require-hashes"]
    machine = ["--python-version", PYTHON, *(f"--platform={name}" for name in PLATFORMS)]
    command = children.python("pip", "install", "--quiet", "--disable-pip-version-check", *target, *machine)
    children.run([*command, "-r", str(wanted)], stdout=sys.stderr.fileno(), stderr=None, check=True)
    wanted.unlink()


def _pinned(locked: str) -> Iterator[str]:
    """Yield the entries of a lock file for the packages in `NEEDED`, with their hashes."""
    for entry in re.split(r"^(?=[\w.-]+==)", locked, flags=re.MULTILINE):
        name, _, _ = entry.partition("==")
        if name in NEEDED:
            yield "\n".join(line for line in entry.splitlines() if not line.lstrip().startswith("#")) + "\n"
