"""Damages to the files of finished runs, each with the file and the words that the finding must contain."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from edits import edit, edit_event, edit_lines, edit_state, edit_tensors, final, flip_bit, weights
from safetensors.torch import save_file

from tfscale.plan.plan import Plan
from tfscale.verify import verify_plan


@dataclass(frozen=True)
class Ledger:
    """Runs folder whose files can be damaged, with a copy of them."""

    plan: Plan
    unfinished: Plan
    """Plan whose last stage was stopped."""

    @property
    def kept(self) -> Path:
        return self.plan.runs.with_name("kept")

    @property
    def base(self) -> Path:
        return self.plan.chain.stages[0].path

    @property
    def child(self) -> Path:
        return self.plan.chain.stages[1].path

    @property
    def stopped(self) -> Path:
        return self.unfinished.chain.stages[-1].path

    @property
    def data(self) -> Path:
        return next((self.plan.runs / "data").glob("[!.]*"))

    def verify(self) -> list[str]:
        return [*verify_plan(self.plan), *verify_plan(self.unfinished)]


def resize(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.startswith("model/") and tensors[name].dim() == 2)
    tensors[name] = tensors[name][:-1].contiguous()


def shorten_shard(data: Path) -> None:
    shard = next(data.glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:-2])


def tear(lines: list[str]) -> None:
    index = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == "train")
    lines[index] = lines[index][:20]


def repeat(lines: list[str]) -> None:
    index = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == "train")
    lines.insert(index, lines[index])


def slow_down(end: dict[str, Any]) -> None:
    """Add seconds to the cost of the parents of a stage, and a different number to its own total."""
    end["before"]["seconds"] += 0.5
    end["totals"]["seconds"] += 1.0


DAMAGES: dict[str, tuple[Callable[[Ledger], object], str, str]] = {
    "stage.yaml is gone": (lambda it: (it.child / "stage.yaml").unlink(), "stage.yaml", "No such file"),
    "stage.yaml describes another stage": (
        lambda it: edit(it.child / "stage.yaml", lambda spec: spec.update(seed=7)),
        "stage.yaml",
        "describes the stage",
    ),
    "stage.yaml is half there": (
        lambda it: (it.child / "stage.yaml").write_text((it.child / "stage.yaml").read_text()[:99]),
        "stage.yaml",
        "not a valid stage of this version",
    ),
    "stage.yaml leads to another parent": (
        lambda it: edit(it.child / "stage.yaml", lambda spec: spec.update(parent_dir=f"../{it.child.name}")),
        "stage.yaml",
        "parent_dir leads to",
    ),
    "stage.yaml leads to no parent": (
        lambda it: edit(it.child / "stage.yaml", lambda spec: spec.update(parent_dir=None)),
        "stage.yaml",
        "must be set together",
    ),
    "stage.yaml leads to no corpus": (
        lambda it: edit(it.child / "stage.yaml", lambda spec: spec["run"].update(data_dir="../../nowhere")),
        "nowhere/manifest.json",
        "not a prepared corpus",
    ),
    "done.json has another key": (
        lambda it: edit(it.child / "done.json", lambda end: end.update(key="0" * 12)),
        "done.json",
        "key is 000000000000",
    ),
    "done.json has another step": (
        lambda it: edit(it.child / "done.json", lambda end: end.update(step=3)),
        "done.json",
        "step is 3",
    ),
    "done.json has other tokens": (
        lambda it: edit(it.child / "done.json", lambda end: end.update(tokens=3)),
        "done.json",
        "tokens is 3",
    ),
    "done.json lacks its totals": (
        lambda it: edit(it.child / "done.json", lambda end: end.pop("totals")),
        "done.json",
        "has no totals",
    ),
    "done.json has other FLOPs": (
        lambda it: edit(it.child / "done.json", lambda end: end["totals"].update(flops=1)),
        "done.json",
        "1 FLOPs",
    ),
    "done.json has other FLOPs of the optimizer": (
        lambda it: edit(it.child / "done.json", lambda end: end["totals"].update(optimizer_flops=1)),
        "done.json",
        "1 optimizer FLOPs",
    ),
    "done.json begins where its parent did not end": (
        lambda it: edit(it.child / "done.json", lambda end: end["before"].update(seconds=0.0)),
        "done.json",
        "the parent",
    ),
    "done.json's seconds do not add up": (
        lambda it: edit(it.plan.chain.stages[-1].path / "done.json", slow_down),
        "done.json",
        "4 stages up to here add up to",
    ),
    "done.json has another evaluation": (
        lambda it: edit(it.child / "done.json", lambda end: end["eval"].update(perplexity=1.0)),
        "metrics.jsonl",
        "perplexity of the last evaluation",
    ),
    "the parent's done.json is gone": (lambda it: (it.base / "done.json").unlink(), "done.json", "grows from"),
    "the parent is gone": (lambda it: shutil.rmtree(it.base), "stage.yaml", "grows from"),
    "the final checkpoint is gone": (lambda it: shutil.rmtree(final(it.child)), "step-000000000008", "missing"),
    "a checkpoint is cut short": (
        lambda it: weights(final(it.child)).write_bytes(weights(final(it.child)).read_bytes()[:-7]),
        ".safetensors",
        "bytes instead of",
    ),
    "a checkpoint has a flipped bit": (lambda it: flip_bit(weights(final(it.child))), ".safetensors", "SHA-256"),
    "an older checkpoint has a flipped bit": (
        lambda it: flip_bit(weights(it.child / "checkpoints" / "step-000000000004")),
        "step-000000000004",
        "SHA-256",
    ),
    "a checkpoint's manifest is gone": (
        lambda it: (final(it.child) / "manifest.json").unlink(),
        "manifest.json",
        "No such file",
    ),
    "a file that nobody wrote lies in a checkpoint": (
        lambda it: save_file({"model/x": torch.ones(1)}, final(it.child) / "zz.safetensors"),
        "zz.safetensors",
        "not in the manifest",
    ),
    "a checkpoint holds another model": (
        lambda it: edit_state(final(it.child), lambda state: state["model"].update(context=64)),
        "state.json",
        "context=64",
    ),
    "a checkpoint stands at another step": (
        lambda it: edit_state(final(it.child), lambda state: state["counters"].update(step=7)),
        "state.json",
        "step is 7",
    ),
    "a checkpoint has other totals": (
        lambda it: edit_state(final(it.child), lambda state: state["counters"]["totals"].update(seconds=1e9)),
        "state.json",
        "done.json says",
    ),
    "a checkpoint begins elsewhere": (
        lambda it: edit_state(final(it.child), lambda state: state["counters"]["before"].update(device_seconds=0.0)),
        "state.json",
        "the parents ended at",
    ),
    "a weight has another shape": (lambda it: edit_tensors(final(it.child), resize), "step-", "model/"),
    "a weight is missing": (
        lambda it: edit_tensors(final(it.child), lambda tensors: tensors.pop("model/blocks.0.attention.output.keys")),
        "step-",
        "model/blocks.0.attention.output.keys is missing",
    ),
    "metrics.jsonl is gone": (lambda it: (it.child / "metrics.jsonl").unlink(), "metrics.jsonl", "missing"),
    "metrics.jsonl is torn in the middle": (
        lambda it: edit_lines(it.child / "metrics.jsonl", tear),
        "metrics.jsonl",
        "is incomplete",
    ),
    "metrics.jsonl lacks its end": (
        lambda it: edit_lines(it.child / "metrics.jsonl", lambda lines: lines.pop()),
        "metrics.jsonl",
        "must be an end event",
    ),
    "metrics.jsonl has an event twice": (
        lambda it: edit_lines(it.child / "metrics.jsonl", repeat),
        "metrics.jsonl",
        "steps must increase",
    ),
    "an event has other tokens": (
        lambda it: edit_event(it.child, "train", 2, tokens=5),
        "metrics.jsonl",
        "train of step 3: 5 tokens",
    ),
    "an event has other total tokens": (
        lambda it: edit_event(it.child, "train", 2, total_tokens=10**6),
        "metrics.jsonl",
        "train of step 3: 1,000,000 tokens",
    ),
    "an event has other FLOPs": (
        lambda it: edit_event(it.child, "train", 2, total_flops=10**15),
        "metrics.jsonl",
        "1,000,000,000,000,000 FLOPs",
    ),
    "an event lacks an update's FLOPs": (
        lambda it: edit_event(it.child, "train", 2, total_optimizer_flops=0),
        "metrics.jsonl",
        "0 optimizer FLOPs",
    ),
    "an event goes back in time": (
        lambda it: edit_event(it.child, "train", 2, total_seconds=0.0),
        "metrics.jsonl",
        "less than the parents'",
    ),
    "an event's seconds jump": (
        lambda it: edit_event(it.child, "train", 2, total_seconds=1e9),
        "metrics.jsonl",
        "less than the previous",
    ),
    "an event has no step": (
        lambda it: edit_event(it.child, "eval", 0, step=None),
        "metrics.jsonl",
        "has no step",
    ),
    "growth.json is gone": (lambda it: (it.child / "growth.json").unlink(), "growth.json", "missing"),
    "growth.json has another parent": (
        lambda it: edit(it.child / "growth.json", lambda growth: growth.update(parent="0" * 12)),
        "growth.json",
        "parent is 000000000000",
    ),
    "growth.json has another recipe": (
        lambda it: edit(it.child / "growth.json", lambda growth: growth["recipe"].update(noise=1.0)),
        "growth.json",
        "recipe is",
    ),
    "growth.json has other shapes": (
        lambda it: edit(it.child / "growth.json", lambda growth: growth["tokens"]["qkv"].update(after=9)),
        "growth.json",
        "tokens is",
    ),
    "growth.json does not preserve": (
        lambda it: edit(it.child / "growth.json", lambda growth: growth["comparison"].update(max_logit_difference=1)),
        "growth.json",
        "changed the logits",
    ),
    "the corpus is gone": (lambda it: shutil.rmtree(it.data), "manifest.json", "not a prepared corpus"),
    "the corpus is another": (
        lambda it: edit(it.data / "manifest.json", lambda manifest: manifest.update(fingerprint="0" * 16)),
        "corpus 0000000000000000",
        "is required",
    ),
    "a shard is cut short": (lambda it: shorten_shard(it.data), "train-00000.safetensors", "the manifest says"),
    "a shard has a flipped bit": (
        lambda it: flip_bit(next(it.data.glob("heldout-*"))),
        "heldout-00000.safetensors",
        "SHA-256",
    ),
    "a shard is gone": (lambda it: next(it.data.glob("heldout-*")).unlink(), "heldout-00000.safetensors", "No such"),
    "the tokenizer has changed": (lambda it: flip_bit(it.data / "tokenizer.json"), "tokenizer.json", "SHA-256"),
    "a folder is called after another stage": (
        lambda it: shutil.copytree(it.child, it.child.with_name("tokenformer-1.0K-0123456789ab")),
        "tokenformer-1.0K-0123456789ab/stage.yaml",
        "the folder is named 0123456789ab",
    ),
    "a folder holds no stage": (
        lambda it: shutil.copytree(it.child / "checkpoints", it.child.parent / "mine"),
        "mine/stage.yaml",
        "No such file",
    ),
    "a stopped stage's newest checkpoint is gone": (
        lambda it: shutil.rmtree(final(it.stopped)),
        "step-000000000005",
        "it is the latest checkpoint",
    ),
    "a stopped stage's checkpoint has a flipped bit": (
        lambda it: flip_bit(weights(final(it.stopped))),
        "step-000000000005",
        "SHA-256",
    ),
    "a stopped stage's event has other tokens": (
        lambda it: edit_event(it.stopped, "train", -1, total_tokens=1),
        "metrics.jsonl",
        "1 tokens",
    ),
}
