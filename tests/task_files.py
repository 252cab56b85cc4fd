"""Small files in the formats of the evaluation harness, under the names of the paper's tasks."""

import json
import random
from pathlib import Path

from tfscale.interop.harness import PAPER

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{start}}}}"
doc_to_target: label
doc_to_choice: "{{{{ends}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: 2.0}}
"""
LAST_WORD = """
task: lambada_openai
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/lambada_openai.jsonl}}}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{text.split(' ')[:-1]|join(' ')}}}}"
doc_to_target: "{{{{' '+text.split(' ')[-1]}}}}"
metric_list: [{{metric: perplexity, aggregation: perplexity}}, {{metric: acc, aggregation: mean}}]
metadata: {{version: 1.0}}
"""
WHOLE = """
task: whole_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/lambada_openai.jsonl}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
"""
WRITTEN = """
task: written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/written.jsonl}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{made}}}}"
generation_kwargs: {{until: [" "], max_gen_toks: 12}}
metric_list: [{{metric: exact_match}}]
"""
WORDS = "the a model grows from small to large by adding tokens to its keys".split()  # noqa: SIM905


def write_tasks(folder: Path) -> Path:
    """Write the tasks with their texts into the folder, and return it."""
    draw = random.Random(0)  # noqa: S311
    folder.mkdir()
    texts = [" ".join(draw.choices(WORDS, k=draw.choice([3, 8, 60]))) for _ in range(12)]  # some beyond the context
    (folder / "lambada_openai.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (folder / "lambada_openai.yaml").write_text(LAST_WORD.format(folder=folder))
    (folder / "whole_text.yaml").write_text(WHOLE.format(folder=folder))
    for name in PAPER[1:]:
        lines = [
            {"start": " ".join(draw.choices(WORDS, k=5)), "label": draw.randrange(3),
             "ends": [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(3)]}
            for _ in range(8)
        ]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (folder / f"{name}.yaml").write_text(CHOICE.format(name=name, folder=folder))
    return folder
