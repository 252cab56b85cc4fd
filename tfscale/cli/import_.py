"""The command `tfscale import`, which converts released or exported weights to a stage."""

from dataclasses import replace
from pathlib import Path

from tfscale.cli.common import Common
from tfscale.cli.console import answer, say
from tfscale.faults import UserFault, user_faults
from tfscale.growth.imported_weights import cost_of
from tfscale.interop.adopt import adopt
from tfscale.interop.exported import is_exported, read_exported
from tfscale.interop.official import read_official
from tfscale.models.counts import parameters
from tfscale.ranges import read_amount
from tfscale.text import count, scientific


def import_(
    common: Common, source: Path, to: Path, config: Path | None, tokenizer: Path | None, data: Path | None, tokens: str
) -> int:
    """Create the stage folder `to` from released weights or from an exported folder, and return the exit code."""
    with user_faults(about=f"--tokens {tokens}"):
        amount = int(read_amount(tokens)) if tokens else None
    if not source.exists():
        raise UserFault([f"{source}: does not exist; name the file or folder of the weights"])
    if config is None and not is_exported(source):
        raise UserFault(
            [f"{source}: was not written by `tfscale export`; add --config CONFIG.yml for weights of the official code"]
        )
    found = read_exported(source) if config is None else read_official(source, config)
    found = replace(
        found,
        totals=cost_of(found.model, amount) if amount is not None else found.totals,
        tokenizer=_tokenizer(tokenizer) or found.tokenizer,
    )
    with user_faults(OSError):
        spec = adopt(to, found, data)
    if common.as_json:
        size = {"parameters": parameters(spec.model), "weights": spec.init_from, "totals": found.totals}
        answer({"source": source, **size, "folder": to})
        return 0
    cost = "note: the training cost of the model is unknown and counts as 0; set it with, for example, --tokens 300B"
    if found.totals is not None:
        cost = f"trained on {count(found.totals.tokens)} tokens, {scientific(found.totals.flops)} FLOPs"
    say(
        f"{source}: {count(parameters(spec.model))} parameters, weights {spec.init_from}",
        cost,
        "note: only weights are imported; the optimizer state of a stage that grows from them starts empty",
        str(to),
    )
    return 0


def _tokenizer(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise UserFault([f"--tokenizer {path}: {what}; name a Hugging Face tokenizer.json"]) from error
