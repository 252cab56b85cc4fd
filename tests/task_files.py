"""Small files in the formats of the evaluation harness, under the names of the paper's tasks."""

import json
import random
from pathlib import Path
from typing import Any

from tfscale.interop.harness import PAPER

WORDS = "the a model grows from small to large by adding tokens to its keys".split()  # noqa: SIM905


def write_task(folder: Path, name: str, documents: list[dict[str, Any]], output_type: str, **settings: Any) -> None:
    """Writes a task with its documents."""
    data = folder / f"{name}.jsonl"
    data.write_text("\n".join(map(json.dumps, documents)))
    place = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    task = {"task": name, "output_type": output_type, **place, **settings}
    (folder / f"{name}.yaml").write_text(json.dumps(task))


def write_tasks(folder: Path) -> Path:
    """Write the tasks with their texts into the folder, and return it."""
    draw = random.Random(0)  # noqa: S311
    folder.mkdir()
    texts = [" ".join(draw.choices(WORDS, k=draw.choice([3, 8, 60]))) for _ in range(12)]  # some beyond the context
    documents = [{"text": text} for text in texts]
    write_task(
        folder, "lambada_openai", documents, "loglikelihood",
        doc_to_text="{{text.split(' ')[:-1]|join(' ')}}", doc_to_target="{{' '+text.split(' ')[-1]}}",
        metric_list=[{"metric": "perplexity", "aggregation": "perplexity"}, {"metric": "acc", "aggregation": "mean"}],
        metadata={"version": 1.0},
    )  # fmt: skip
    write_task(
        folder, "whole_text", documents, "loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=[{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    )  # fmt: skip
    for name in PAPER[1:]:
        choices = [
            {"start": " ".join(draw.choices(WORDS, k=5)), "label": draw.randrange(3),
             "ends": [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(3)]}
            for _ in range(8)
        ]  # fmt: skip
        write_task(
            folder, name, choices, "multiple_choice",
            doc_to_text="{{start}}", doc_to_target="label", doc_to_choice="{{ends}}",
            metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}], metadata={"version": 2.0},
        )  # fmt: skip
    return folder
