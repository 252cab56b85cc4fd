"""README.md of an exported folder: what the model is, where it comes from, what it cost, how good it is."""

from collections.abc import Sequence
from typing import Any

from tfscale.interop.finished import Finished
from tfscale.interop.sources import release
from tfscale.models.counts import parameters
from tfscale.stage.evaluations import read_evaluations

_HEAD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [tfscale, {family}]
---
"""

_USE = """\
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
tokens = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=50)[0]))
```

With tfscale installed, `import tfscale.interop.hf` takes the place of `trust_remote_code`, and `tfscale import` makes a
stage of this folder again.
"""


def model_card(stages: Sequence[Finished]) -> str:
    """The card of the last of `stages`, the others its ancestors, oldest first."""
    stage = stages[-1]
    parts = [_HEAD.format(family=stage.spec.model.family), _what(stage), _evaluation(stage), _lineage(stages), _USE]
    return "\n".join([*parts, f"Written by {release()}.\n"])


def _what(stage: Finished) -> str:
    model = stage.spec.model
    shape = f"{model.n_layer} layers of {model.d_model}, {model.n_head} heads, context {model.context}, "
    shape += model.details
    count = f"{parameters(model):,} parameters, {model.vocab_size:,} entries of the vocabulary"
    return f"# {stage.folder.resolve().name}\n\nA {model.title}: {shape}; {count}.\n"


def _evaluation(stage: Finished) -> str:
    lines = ["## Evaluation", ""]
    found = stage.result.eval
    if found:
        measured = f"{found.heldout_tokens:,} held-out tokens" if found.heldout_tokens else "held-out tokens"
        lines += [
            f"Perplexity {found.perplexity:.3f} a token, {found.bits_per_byte:.4f} bits a byte, on {measured} of "
            f"corpus {stage.spec.data.fingerprint}, in windows of {stage.spec.model.context} that do not overlap.",
            "",
        ]
    entries = read_evaluations(stage.folder)
    if entries:
        lines += ["| measured on | result | how |", "|---|---|---|", *map(_measured, entries), ""]
    if not found and not entries:
        lines += ["Not evaluated yet.", ""]
    return "\n".join(lines)


def _measured(entry: dict[str, Any]) -> str:
    if entry["kind"] == "text":
        result = f"perplexity {entry['perplexity']:.3f}, {entry['bits_per_byte']:.4f} bits a byte"
        how = f"{entry['tokens']:,} tokens, windows of {entry['context']} every {entry['stride']}"
    else:
        values = {name: value for name, value in entry["metrics"].items() if not name.endswith("_stderr")}
        result = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        how = f"{entry['samples']:,} samples, {entry['shots']} shots, lm-evaluation-harness {entry['harness']}"
    return f"| {entry['name']} | {result} | {how} |"


def _lineage(stages: Sequence[Finished]) -> str:
    lines = [
        "## Lineage and cost",
        "",
        "Costs of a stage alone, and cumulative with all that it grew out of. FLOPs are those of the model's forward",
        "and backward passes; device-seconds are those of training steps.",
        "",
        "| stage | parameters | begins from | tokens | FLOPs | FLOPs, cumulative | device-seconds, cumulative |"
        " perplexity |",
        "|---|---|---|---|---|---|---|---|",
        *map(_row, stages),
    ]
    if any(stage.spec.init_from is not None for stage in stages):
        lines += ["", "What was taken over was trained elsewhere: its FLOPs follow from the tokens that it was said to",
                  "have seen, and its seconds are not known."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(stage: Finished) -> str:
    spec, totals = stage.spec, stage.result.totals
    alone = totals - stage.result.before
    if spec.init_from is not None:
        begins = f"weights {spec.init_from[:12]}, taken over"
    elif spec.growth is not None:
        begins = f"{spec.parent}, growth `{spec.growth.get('name')}`"
    else:
        begins = "first values"
    evaluation = stage.result.eval
    perplexity = f"{evaluation.perplexity:.3f}" if evaluation else "-"
    return (
        f"| {stage.folder.resolve().name} | {parameters(spec.model):,} | {begins} | "
        f"{alone.tokens:,} | {alone.flops:.3e} | {totals.flops:.3e} | "
        f"{totals.device_seconds:,.0f} | {perplexity} |"
    )
