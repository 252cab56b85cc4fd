"""Evaluation of the model of a stage with EleutherAI's lm-evaluation-harness, which the extra `eval` installs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from tfscale.data.tokenizer import Tokenizer
from tfscale.faults import UserFault
from tfscale.interop.perplexity import total_loss
from tfscale.models.generation import Sampling, generate
from tfscale.models.language_model import LanguageModel

PAPER = ("lambada_openai", "hellaswag", "piqa", "arc_easy", "arc_challenge", "winogrande")
"""Names of the six zero-shot tasks of arXiv 2410.23168, Table 1."""
_TOKENS = 16_384
"""Maximum number of tokens per forward pass."""
_SEED = 1234


@dataclass(frozen=True)
class TaskResult:
    """Results of one evaluation task."""

    name: str
    metrics: dict[str, float]
    """Values of the metrics by name, such as acc, acc_stderr and acc_norm."""
    samples: int
    version: str
    """Version of the task, as stated by the harness."""


def run_tasks(
    model: LanguageModel, tokenizer: Tokenizer, names: Sequence[str], task_path: Path | None, limit: int | None
) -> list[TaskResult]:
    """Run zero-shot evaluation tasks and return the results.

    Args:
        task_path: folder of task YAML files, which is searched before the tasks of the harness. The `!function`
            entries in these files are code, which is executed.
        limit: maximum number of samples per task, or None for all samples.

    Raises:
        UserFault: `task_path` is not a folder, a task is unknown, or the data of a task cannot be read.
    """
    manager = _manager(names, task_path)
    try:
        loaded = manager.load(list(names))
        for task in loaded["tasks"].values():
            task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=_SEED)
    except Exception as error:  # from the harness, datasets or the network
        raise UserFault([f"--tasks {','.join(names)}: the harness cannot load the tasks: {error}"]) from error
    found = evaluate(lm=HarnessModel(model, tokenizer), task_dict=loaded, limit=limit, log_samples=False)
    return [
        TaskResult(name, _metrics(values), found["n-samples"][name]["effective"], str(found["versions"].get(name)))
        for name, values in found["results"].items()
        if name in found["n-samples"]
    ]


def _manager(names: Sequence[str], task_path: Path | None) -> TaskManager:
    if task_path is not None:
        if not task_path.is_dir():
            raise UserFault([f"--task-path {task_path}: must be a folder of task YAML files"])
        own = TaskManager(include_path=str(task_path), include_defaults=False)
        if set(names) <= set(own.all_tasks):
            return own
    manager = TaskManager(include_path=str(task_path) if task_path else None)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise UserFault([f"--tasks {','.join(unknown)}: must be tasks of the harness; try {','.join(PAPER)}"])
    return manager


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    """Return the numeric results of a task by name, with `acc,none` shortened to `acc`."""
    return {name.removesuffix(",none"): value for name, value in values.items() if isinstance(value, int | float)}


class HarnessModel(TemplateLM):
    """Model of a stage with the interface that lm-evaluation-harness requires."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._model, self._tokens = model, tokenizer

    @property
    def eot_token_id(self) -> int:
        """ID of the end-of-text token. If a text has no context, this token is used as the context."""
        return self._tokens.end_of_text_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self._tokens.encode_batch([string])[0]

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Return, for each request, the log-probability of the continuation in nats, and True if every token of the
        continuation is the most probable token at its position. Texts longer than the context of the model are
        truncated at the beginning."""
        context = self._model.config.context
        texts = [([*before, *after][-context - 1 :], min(len(after), context)) for _, before, after in requests]
        answers: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number][0]))
        while order:
            longest = len(texts[order[0]][0])
            batch, order = order[: max(1, _TOKENS // longest)], order[max(1, _TOKENS // longest) :]
            answers |= zip(batch, self._score([texts[number] for number in batch], longest), strict=True)
        return [answers[number] for number in range(len(texts))]

    def _score(self, texts: Sequence[tuple[list[int], int]], longest: int) -> list[tuple[float, bool]]:
        rows = torch.zeros(len(texts), longest, dtype=torch.int64)
        for row, (tokens, _) in zip(rows, texts, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        rows = rows.to(self._model.embedding.device)
        hidden = self._model.hidden(rows[:, :-1])  # attention is causal, so padding on the right has no effect
        answers = []
        for states, row, (tokens, counted) in zip(hidden, rows, texts, strict=True):
            stop = len(tokens) - 1
            logits = (states[stop - counted : stop] @ self._model.embedding.T).float()
            targets = row[stop - counted + 1 : stop + 1]
            chosen = logits.log_softmax(-1).gather(-1, targets[:, None])
            answers.append((chosen.double().sum().item(), bool((logits.argmax(-1) == targets).all())))
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text in nats. Each text is divided into windows that do not overlap,
        except that the last window can begin within the previous one."""
        context = self._model.config.context
        texts = [np.array([self.eot_token_id, *self.tok_encode(request.args[0])]) for request in requests]
        return [-total_loss(self._model, text, context) for text in texts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return a generated continuation of each prompt. A continuation ends before the first stop string or
        end-of-text token, or after `max_gen_toks` tokens (256 by default)."""
        return [self._go_on(*request.args) for request in requests]

    def _go_on(self, prompt: str, settings: dict[str, Any]) -> str:
        ends = [settings["until"]] if isinstance(settings.get("until"), str) else list(settings.get("until") or [])
        sampling = Sampling(
            temperature=settings.get("temperature", 1.0) if settings.get("do_sample") else 0.0,
            top_k=settings.get("top_k", 0),
            top_p=settings.get("top_p", 1.0),
            seed=_SEED,
        )
        made: list[int] = []
        text = ""
        tokens = self.tok_encode(prompt) or [self.eot_token_id]
        for token in generate(self._model, tokens, settings.get("max_gen_toks", 256), sampling):
            if token == self.eot_token_id:
                break
            made.append(token)
            text = self._tokens.decode(made)
            if any(end in text for end in ends):
                break
        return text[: min([text.find(end) for end in ends if end in text], default=len(text))]
