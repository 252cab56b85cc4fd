"""The command `tfscale import`, which converts a model from elsewhere to a stage."""

from dataclasses import replace
from pathlib import Path

from tfscale.cli.common import Common
from tfscale.cli.console import answer, say
from tfscale.faults import UserFault, user_faults
from tfscale.ranges import read_amount
from tfscale.text import count, scientific


def import_(
    common: Common,
    source: Path,
    to: Path,
    config: Path | None,
    tokenizer: Path | None,
    data: Path | None,
    cost: str,
) -> int:
    """Create a stage folder from released weights or an exported folder; return the exit code."""
    from tfscale.growth.imported_weights import cost_of
    from tfscale.interop.adopt import adopt
    from tfscale.interop.exported import is_exported, read_exported
    from tfscale.interop.official import read_official
    from tfscale.models.counts import parameters

    amount = _amount(cost) if cost else None
    if not source.exists():
        raise UserFault([f"{source}: no such file or folder"])
    if config is None and not is_exported(source):
        raise UserFault(
            [f"{source}: no folder of `tfscale export`; the official code's weights need --config CONFIG.yml"]
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
    say(f"{source}: {count(parameters(spec.model))} parameters, weights {spec.init_from}")
    if found.totals is None:
        say("note: the training cost of the model is unknown and counts as 0; try --tokens 300B if it saw 300B tokens")
    else:
        say(f"trained on {count(found.totals.tokens)} tokens, {scientific(found.totals.flops)} FLOPs")
    say("note: weights alone are imported; in a stage that grows from them, all slots of its optimizer start empty")
    say(str(to))
    return 0


def _amount(text: str) -> int:
    try:
        return int(read_amount(text))
    except ValueError as error:
        raise UserFault([f"--tokens {text}: must be a number of tokens such as 300B, 1.5M or 65536"]) from error


def _tokenizer(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise UserFault([f"--tokenizer {path}: {error.strerror}; a Hugging Face tokenizer.json is needed"]) from error
