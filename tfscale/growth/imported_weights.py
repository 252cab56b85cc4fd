"""Import of weights for the first stage of a chain. The import replaces the training of the stage. The cost of the
stage is then computed from its scheduled number of training tokens."""

import hashlib
import shutil
from pathlib import Path

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters
from tfscale.checkpoint.slots import kinds, slots_in
from tfscale.files import read_object, write_json
from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops
from tfscale.stage.growth_record import IMPORT_FILE
from tfscale.stage.result import read_result
from tfscale.stage.spec import CHECKPOINTS, StageSpec, read_spec
from tfscale.totals import Totals


def cost_of(model: ModelConfig, tokens: int) -> Totals:
    """Return the cost of training an imported model on `tokens` tokens, in tokens and FLOPs. The training time is
    unknown and counts as 0."""
    return Totals(tokens=tokens, flops=tokens * flops(model).training)


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 hash of all weights in an imported checkpoint, as 64 hexadecimal digits. Each safetensors
    file contains one tensor with its name and shape, so the hash depends only on the weights."""
    manifest = checkpoint.read_manifest(folder)
    files = [manifest[name]["sha256"] for name in sorted(manifest) if name.endswith(".safetensors")]
    return hashlib.sha256("".join(files).encode()).hexdigest()


def take_over(stage_dir: Path, spec: StageSpec) -> None:
    """Copy import.json and the tensors of the final checkpoint from the imported stage `spec.init_dir` to the stage in
    `stage_dir`.

    Raises:
        ValueError: the source is not an imported stage, its model or weights have changed since planning, or it
            contains optimizer state.
        BrokenCheckpoint: the source's checkpoint is damaged or its import.json is missing.
        OSError: the checkpoint cannot be written.
    """
    assert spec.init_dir is not None
    source = Path(spec.init_dir)
    folder = source / CHECKPOINTS / read_result(source).checkpoint
    checkpoint.verify(folder)
    config, _ = checkpoint.read_state(folder)
    if config != spec.model or weights_digest(folder) != spec.init_from or read_spec(source).init_from is None:
        raise ValueError(
            f"{source}: its model or weights have changed since this stage was planned; run the same command again"
        )
    if slots := slots_in(checkpoint.shapes(folder)):
        raise ValueError(
            f"{source}: must contain only weights, but it contains the optimizer state {', '.join(kinds(slots))}; "
            "create the stage with `tfscale import`"
        )
    files = sorted(folder.glob("*.safetensors"))
    target = stage_dir / CHECKPOINTS / checkpoint.folder_name(spec.steps)
    checkpoint.check_room(target, sum(file.stat().st_size for file in files))

    def copy(aside: Path) -> checkpoint.Entries:
        return checkpoint.describe(shutil.copyfile(file, aside / file.name) for file in files)

    checkpoint.write_aside(target, config, Counters(spec.steps, totals=cost_of(config, spec.tokens)), copy)
    if not (source / IMPORT_FILE).exists():
        raise BrokenCheckpoint(f"{source / IMPORT_FILE}: the file does not exist")
    write_json(stage_dir / IMPORT_FILE, read_object(source / IMPORT_FILE))
