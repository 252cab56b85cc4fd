"""Edits of the files of a stage, for tests of damaged files."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def final(stage: Path) -> Path:
    return sorted((stage / "checkpoints").glob("step-*"))[-1]


def weights(checkpoint: Path) -> Path:
    return next(checkpoint.glob("*.safetensors"))


def edit(file: Path, change: Callable[[Any], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def edit_lines(file: Path, change: Callable[[list[str]], object]) -> None:
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("".join(f"{line}\n" for line in lines))


def edit_event(stage: Path, kind: str, number: int, **values: object) -> None:
    """Edit an event of a kind, where `number` is 0 for the first and -1 for the last."""

    def change(lines: list[str]) -> None:
        index = [n for n, line in enumerate(lines) if json.loads(line)["event"] == kind][number]
        lines[index] = json.dumps({**json.loads(lines[index]), **values})

    edit_lines(stage / "metrics.jsonl", change)


def sign(checkpoint: Path) -> None:
    """Update the manifest to match the files."""
    files = [file for file in checkpoint.iterdir() if file.name != "manifest.json"]
    signed = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256(file.read_bytes()).hexdigest()} for file in files
    }
    (checkpoint / "manifest.json").write_text(json.dumps(signed))


def edit_state(checkpoint: Path, change: Callable[[Any], object]) -> None:
    edit(checkpoint / "state.json", change)
    sign(checkpoint)


def edit_tensors(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(weights(checkpoint))
    change(tensors)
    save_file(tensors, weights(checkpoint))
    sign(checkpoint)


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
