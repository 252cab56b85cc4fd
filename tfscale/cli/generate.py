"""The command `tfscale generate`, which generates text from finished stages."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tfscale.cli.common import Common
from tfscale.cli.console import answer, console, prose_width
from tfscale.faults import InvalidInput, UserFault, user_faults
from tfscale.interop.finished import FinishedStage, model_of, tokenizer_of, with_groups
from tfscale.models.counts import parameters
from tfscale.models.generation import Sampling
from tfscale.models.generation import generate as sample
from tfscale.stage.result import to_dict as result_dict
from tfscale.text import count


def generate(
    common: Common,
    names: str,
    prompt: str,
    tokens: int,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    groups: int | None,
) -> int:
    """Generate a continuation of a prompt with each stage, and return the exit code. The texts are printed while they
    are generated or, with --json, at the end."""
    try:
        sampling = Sampling(temperature, top_k, top_p, seed)
    except InvalidInput as error:
        raise UserFault(replace(each, key=f"--{each.key.replace('_', '-')}") for each in error.faults) from error
    stages = with_groups(common.finished_stages(names), groups)
    writers = [_Writer(stage, prompt, tokens, sampling) for stage in stages]
    if common.as_json:
        answer([_record(writer, prompt) for writer in writers])
    elif len(writers) == 1:
        _stream(writers[0], prompt)
    else:
        _side_by_side(writers, prompt)
    for writer in writers:
        if writer.beyond:
            print(f"note: {writer.beyond}", file=sys.stderr)
    return 0


class _Writer:
    """Text generator that continues a prompt with the model of one stage."""

    def __init__(self, stage: FinishedStage, prompt: str, count: int, sampling: Sampling) -> None:
        self.stage = stage
        self.beyond = ""
        """Note for the user if the text exceeds the model's context, otherwise an empty string. It is set when `pieces`
        has yielded the whole text."""
        self._count, self._sampling = count, sampling
        self._tokenizer = tokenizer_of(stage)
        with user_faults():
            self._prompt = self._tokenizer.encode_batch([prompt])[0] or [self._tokenizer.end_of_text_id]

    def pieces(self) -> Iterator[str]:
        """Yield the continuation of the prompt in pieces of complete characters."""
        model = model_of(self.stage)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        made: list[int] = []
        shown = ""
        for token in sample(model, self._prompt, self._count, self._sampling):
            if token == self._tokenizer.end_of_text_id:
                break
            made.append(token)
            text = self._tokenizer.decode(made)
            if not text.endswith("\ufffd"):  # a character may take several tokens
                yield text[len(shown) :]
                shown = text
        context = model.config.context
        if len(self._prompt) + len(made) > context:
            self.beyond = (
                f"the text exceeds the context of {self.stage.name}, {context} tokens; each time the context "
                f"was full, generation continued from its last {context // 2} tokens"
            )


def _record(writer: _Writer, prompt: str) -> dict[str, object]:
    stage = writer.stage
    evaluation = result_dict(stage.result)["eval"] if stage.evaluation else None
    size = {"parameters": parameters(stage.model), "evaluation": evaluation}
    return {**stage.record, **size, "prompt": prompt, "text": "".join(writer.pieces())}


def _stream(writer: _Writer, prompt: str) -> None:
    pieces = writer.pieces()
    first = next(pieces, "")  # faults of the model are reported before anything is printed
    sys.stdout.write(prompt)
    for piece in itertools.chain([first], pieces):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()


def _side_by_side(writers: Sequence[_Writer], prompt: str) -> None:
    rows = [(writer.stage, Text().append(prompt, "dim")) for writer in writers]
    with Live(_table(rows), console=console, refresh_per_second=8, vertical_overflow="visible") as live:
        for writer, (_, text) in zip(writers, rows, strict=True):
            for piece in writer.pieces():
                text.append(piece)
                live.update(_table(rows))


def _table(rows: Sequence[tuple[FinishedStage, Text]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_lines=True, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("text", overflow="fold", max_width=prose_width())
    for stage, text in rows:
        evaluation = stage.evaluation
        perplexity = f"perplexity {evaluation.perplexity:.2f}" if evaluation else ""
        table.add_row(f"{stage.name}\n{count(parameters(stage.model))} parameters\n{perplexity}", text)
    return table
