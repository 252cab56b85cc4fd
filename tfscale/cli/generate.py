"""tfscale generate: text from a finished stage."""

import math
import sys
from pathlib import Path

from tfscale.faults import UserFault
from tfscale.schedule.ledger import find_stage, read_done
from tfscale.training.spec import CHECKPOINTS, read_spec


def generate(name: str, prompt: str, count: int, temperature: float, top_k: int, seed: int, runs: Path) -> int:
    """Prints the prompt and what the stage makes of it, as it is made; returns the exit code."""
    from tfscale.checkpoint import BrokenCheckpoint, load_model
    from tfscale.data.tokenizer import load_tokenizer
    from tfscale.models.generation import generate as sample

    if not math.isfinite(temperature):
        raise UserFault([f"--temperature {temperature}: must be a finite number"])
    try:
        stage_dir = find_stage(runs.absolute(), name)
        spec, done = read_spec(stage_dir), read_done(stage_dir)
        tokenizer = load_tokenizer(stage_dir / spec.run.data_dir / "tokenizer.json")
        model = load_model(stage_dir / CHECKPOINTS / done["checkpoint"])
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(f"{stage_dir.name}: its tokenizer has {tokenizer.vocab_size} entries, its model fewer")
        tokens = tokenizer.encode_batch([prompt])[0] or [tokenizer.end_of_text_id]
    except (ValueError, BrokenCheckpoint) as error:
        raise UserFault([str(error)]) from error
    shown = ""
    made: list[int] = []
    print(prompt, end="", flush=True)
    for token in sample(model, tokens, count, temperature, top_k, seed):
        if token == tokenizer.end_of_text_id:
            break
        made.append(token)
        text = tokenizer.decode(made)
        if not text.endswith("\ufffd"):  # a character may take several tokens
            sys.stdout.write(text[len(shown) :])
            sys.stdout.flush()
            shown = text
    print()
    return 0
