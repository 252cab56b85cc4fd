"""The beginning of a chain whose first model was trained elsewhere: an imported stage's weights in place of a training.

The stage of a plan that takes them over has its own folder and key. It is evaluated on the plan's text like any other,
and its cost is that of the tokens that the schedule says it has seen.
"""

import hashlib
import shutil
from pathlib import Path

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters, Totals
from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops
from tfscale.stage.growth_record import IMPORT_FILE, read_import, write_import
from tfscale.stage.result import read_result
from tfscale.stage.spec import CHECKPOINTS, StageSpec, read_spec


def cost_of(model: ModelConfig, tokens: int) -> Totals:
    """What training on so many tokens cost, as far as it can be known from outside: its seconds are 0."""
    return Totals(tokens=tokens, flops=tokens * flops(model).training)


def weights_digest(folder: Path) -> str:
    """A hash of the weights of an imported checkpoint: its files are one tensor each, with name and shape, so their
    hashes are the weights' own."""
    manifest = checkpoint.read_manifest(folder)
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
    folder = source / CHECKPOINTS / read_result(source).checkpoint
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
    record = read_import(source)
    if record is None:
        raise BrokenCheckpoint(f"{source / IMPORT_FILE}: not there")
    write_import(stage_dir, record)
