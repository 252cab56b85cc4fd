"""The beginning of a chain whose first model was trained elsewhere: an imported stage's weights in place of a training.

The stage of a plan that takes them over has its own folder and key. It is evaluated on the plan's text like any other,
and its cost is that of the tokens that the schedule says it has seen.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tfscale import checkpoint
from tfscale.checkpoint import MANIFEST_FILE, BrokenCheckpoint, Counters, Totals
from tfscale.files import write_json
from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops
from tfscale.stage.spec import CHECKPOINTS, StageSpec, read_spec
from tfscale.stage.status import IMPORT_FILE, read_done


def cost_of(model: ModelConfig, tokens: int) -> Totals:
    """What training on so many tokens cost, as far as it can be known from outside: its seconds are 0."""
    return Totals(tokens=tokens, flops=tokens * flops(model).training)


def weights_digest(folder: Path) -> str:
    """A hash of the weights of an imported checkpoint: its files are one tensor each, with name and shape, so their
    hashes are the weights' own."""
    manifest: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    files = [manifest[name]["sha256"] for name in sorted(manifest) if name.endswith(".safetensors")]
    return hashlib.sha256("".join(files).encode()).hexdigest()


def take_over(stage_dir: Path, spec: StageSpec) -> None:
    """Writes the stage's last checkpoint, out of the imported stage that its spec names, and import.json.

    Raises:
        ValueError: that is no imported stage, or one of other weights than when the plan was made.
        BrokenCheckpoint: its checkpoint is not whole.
        OSError: the checkpoint cannot be written.
    """
    assert spec.init_dir is not None
    source = Path(spec.init_dir)
    folder = source / CHECKPOINTS / read_done(source)["checkpoint"]
    checkpoint.verify(folder)
    config, _ = checkpoint.read_state(folder)
    if config != spec.model or weights_digest(folder) != spec.init_from or read_spec(source).init_from is None:
        raise ValueError(f"{source}: holds another model than when this stage was planned; run the schedule again")
    files = sorted(folder.glob("*.safetensors"))
    target = stage_dir / CHECKPOINTS / checkpoint.folder_name(spec.steps)
    checkpoint.check_room(target, sum(file.stat().st_size for file in files))

    def copy(aside: Path) -> checkpoint.Entries:
        return checkpoint.describe(shutil.copyfile(file, aside / file.name) for file in files)

    checkpoint.write_aside(target, config, Counters(spec.steps, totals=cost_of(config, spec.tokens)), copy)
    try:
        write_json(stage_dir / IMPORT_FILE, json.loads((source / IMPORT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BrokenCheckpoint(f"{source / IMPORT_FILE}: {error}") from error
