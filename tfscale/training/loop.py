"""The loop of one stage."""

import json
import math
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters, Totals
from tfscale.data.batches import Batches
from tfscale.data.prepared import PreparedData
from tfscale.models.counts import flops, parameters
from tfscale.models.init import build_model
from tfscale.training import events
from tfscale.training.device import Device, fitting_sequences
from tfscale.training.evaluation import Evaluation, evaluate
from tfscale.training.learning_rate import learning_rate
from tfscale.training.optimizer import build_optimizer, moments, start_moments
from tfscale.training.preemption import Preemption
from tfscale.training.spec import CHECKPOINTS, StageSpec, key_of


class NonFinite(Exception):
    """A loss or a gradient is not a number; the weights are still those of the step before."""


class Trainer:
    """Trains one stage from its newest checkpoint, or from its beginning, to its end."""

    def __init__(
        self, stage_dir: Path, spec: StageSpec, data: PreparedData, device: Device, preempted: Preemption
    ) -> None:
        self.stage_dir, self.spec, self.data, self.device, self.preempted = stage_dir, spec, data, device, preempted
        self.model = build_model(spec.model, spec.seed, device.kind)
        self.loss = torch.compile(self.model.loss) if device.compiled else self.model.loss
        self.optimizer = build_optimizer(self.model, spec.optimizer)
        self.batches = Batches(data.train, spec.model.context, spec.data.order_seed)
        self.flops_per_token = flops(spec.model).training
        self.counters = Counters()
        self.micro_batch = spec.run.micro_batch or fitting_sequences(device, spec.model, spec.sequences)
        self.checkpoints = stage_dir / CHECKPOINTS
        self.log = events.EventLog(stage_dir)
        self.evaluations: dict[int, Evaluation] = {}
        self.saved_step: int | None = None
        self.saved_at = time.monotonic()
        self.logged_at = (0, 0.0)  # step and seconds of the last training event

    def run(self) -> bool:
        """Trains; True when the stage is done, False when it was asked to stop and has saved what it had.

        Raises:
            NonFinite: before the update that would have spoilt the weights.
            BrokenCheckpoint: the stage has a parent and no checkpoint to begin from.
        """
        self._resume()
        while not self.preempted():
            step = self.counters.step
            if self._evaluation_due(step) and not self._evaluate():
                break
            if step == self.spec.steps:
                self._finish()
                return True
            if self._checkpoint_due(step):
                self._save()
            self._train_step()
        if self.saved_step != self.counters.step:
            self._save()
        self.log.write("end", step=self.counters.step, reason="preempted", time=time.time())
        return False

    def _train_step(self) -> None:
        spec, step = self.spec, self.counters.step
        started = time.perf_counter()
        rate = learning_rate(spec.schedule, spec.optimizer.lr, step * spec.batch_tokens, spec.tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        first = spec.data.start // spec.model.context + step * spec.sequences
        loss = self._gradients(*self.batches.sequences(first, spec.sequences))
        norm = self._clip()
        self._check_finite(loss, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss_value, norm_value = loss.item(), norm.item()
        self._count(time.perf_counter() - started)
        if self._due(self.counters.step, spec.run.log_tokens, parts=100):
            self._log_step(loss_value, norm_value, rate)

    def _gradients(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Adds up the gradients of the batch's mean loss, a micro-batch at a time; returns that loss."""
        size = self.micro_batch
        total = torch.zeros((), device=self.device.kind)
        for x, y in zip(inputs.split(size), targets.split(size), strict=True):
            with self.device.autocast():
                loss = self.loss(x.to(self.device.kind), y.to(self.device.kind), reduction="sum") / targets.numel()
            loss.backward()
            total += loss.detach()
        return total

    def _clip(self) -> Tensor:
        limit = self.spec.optimizer.clip or math.inf
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True)

    def _check_finite(self, loss: Tensor, norm: Tensor) -> None:
        if torch.isfinite(loss) and torch.isfinite(norm):
            return
        spoilt = [
            name
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
        ]
        where = f"gradients of {', '.join(spoilt[:3])}{' and others' if len(spoilt) > 3 else ''}" if spoilt else "none"
        raise NonFinite(
            f"step {self.counters.step + 1} of {self.stage_dir.name}: loss {loss.item()}, gradient norm {norm.item()}; "
            f"not finite: {where}. The weights of step {self.counters.step} were kept. Lower optim.lr, or warm up "
            "longer."
        )

    def _count(self, seconds: float) -> None:
        tokens, before = self.spec.batch_tokens, self.counters.totals
        totals = Totals(
            tokens=before.tokens + tokens,
            flops=before.flops + tokens * self.flops_per_token,
            seconds=before.seconds + seconds,
            device_seconds=before.device_seconds + seconds,
        )
        self.counters = replace(
            self.counters,
            step=self.counters.step + 1,
            optimizer_step=self.counters.optimizer_step + 1,
            totals=totals,
        )

    def _due(self, step: int, tokens: int, parts: int) -> bool:
        """Whether something happens after `step` that is due every `tokens` tokens or, for 0, `parts` times a stage."""
        if step == 0:
            return False
        if tokens:
            return step % max(1, round(tokens / self.spec.batch_tokens)) == 0
        return step * parts // self.spec.steps > (step - 1) * parts // self.spec.steps

    def _log_step(self, loss: float, norm: float, rate: float) -> None:
        seconds = self.counters.totals.seconds
        steps, since = self.counters.step - self.logged_at[0], seconds - self.logged_at[1]
        self.logged_at = (self.counters.step, seconds)
        self.log.write(
            "train",
            **self._position(),
            loss=loss,
            lr=rate,
            grad_norm=norm,
            tokens_per_second=steps * self.spec.batch_tokens / since if since else None,
        )

    def _flops_per_second(self) -> float:
        totals, before = self.counters.totals, self.counters.before
        return (totals.flops - before.flops) / (totals.seconds - before.seconds)

    def _position(self) -> dict[str, Any]:
        step, totals = self.counters.step, asdict(self.counters.totals)
        tokens = step * self.spec.batch_tokens
        return {"step": step, "tokens": tokens, "time": time.time()} | {f"total_{k}": v for k, v in totals.items()}

    def _evaluation_due(self, step: int) -> bool:
        if step in self.evaluations:
            return False
        if step == 0:
            return self.spec.parent is not None  # what growth did to the loss; an untrained model's is known
        return step == self.spec.steps or self._due(step, self.spec.run.eval_tokens, parts=10)

    def _evaluate(self) -> bool:
        result = evaluate(self.model, self.data, self.spec.data.heldout_tokens, self.device, self.preempted)
        if result is None:
            return False
        self.evaluations[self.counters.step] = result
        self.log.write("eval", **self._position(), **_measures(result))
        return True

    def _checkpoint_due(self, step: int) -> bool:
        if step == self.saved_step:
            return False
        run = self.spec.run
        if run.checkpoint_tokens and self._due(step, run.checkpoint_tokens, parts=1):
            return True
        return time.monotonic() - self.saved_at >= 60 * run.checkpoint_minutes

    def _save(self) -> None:
        started = time.perf_counter()
        self.log.sync()
        weights = {f"model/{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        tensors = weights | moments(self.model, self.optimizer) | checkpoint.rng_tensors()
        folder = self.checkpoints / checkpoint.folder_name(self.counters.step)
        checkpoint.write(folder, self.spec.model, self.counters, tensors)
        checkpoint.prune(self.checkpoints, self.spec.run.keep)
        self.saved_step, self.saved_at = self.counters.step, time.monotonic()
        self.log.write(
            "checkpoint", step=self.counters.step, name=folder.name, seconds=time.perf_counter() - started,
            time=time.time(),
        )  # fmt: skip

    def _resume(self) -> None:
        folder = checkpoint.latest(self.checkpoints, self._report)
        if folder is not None:
            self._load(folder)
        elif self.spec.parent is not None:
            raise BrokenCheckpoint(
                f"{self.stage_dir}: grows out of {self.spec.parent} and has no whole checkpoint to begin from; "
                "`tfscale run` makes it again"
            )
        step = self.counters.step
        self.logged_at = (step, self.counters.totals.seconds)
        self.log.write(
            "start",
            step=step,
            time=time.time(),
            host=os.uname().nodename,
            pid=os.getpid(),
            device=self.device.kind,
            micro_batch=self.micro_batch,
        )
        for event in events.read_events(self.stage_dir):
            if event["event"] == "eval":
                self.evaluations[event["step"]] = Evaluation(
                    event["loss"], event["heldout_tokens"], event["heldout_bytes"]
                )

    def _load(self, folder: Path) -> None:
        config, self.counters = checkpoint.read_state(folder)
        assert config == self.spec.model, f"{folder} holds another model than its stage"
        weights = {f"model/{name}": parameter.data for name, parameter in self.model.named_parameters()}
        checkpoint.read(folder, weights)
        if self.counters.optimizer_step:
            start_moments(self.model, self.optimizer, self.counters.optimizer_step)
            checkpoint.read(folder, moments(self.model, self.optimizer))
        random = {name: state for name, state in checkpoint.rng_tensors().items() if name in checkpoint.shapes(folder)}
        if random:  # growth writes none: the child's first step starts from its seed
            checkpoint.read(folder, random)
            checkpoint.set_rng(random)
        self.saved_step = self.counters.step

    def _report(self, message: str) -> None:
        self.log.write("broken_checkpoint", step=0, message=message, time=time.time())

    def _finish(self) -> None:
        if self.saved_step != self.counters.step:
            self._save()
        checkpoint.prune(self.checkpoints, keep=1)
        self.log.write("end", step=self.counters.step, reason="done", time=time.time())
        self.log.close()
        done = {
            "key": key_of(self.spec),
            "step": self.counters.step,
            "tokens": self.spec.tokens,
            "before": asdict(self.counters.before),
            "totals": asdict(self.counters.totals),
            "eval": _measures(self.evaluations[self.counters.step]),
            "checkpoint": checkpoint.folder_name(self.counters.step),
            "peak_memory": self.device.peak_memory(),
            "speed": {"parameters": parameters(self.spec.model), "flops_per_second": self._flops_per_second()},
        }
        write_json(self.stage_dir / events.DONE_FILE, done)


def _measures(result: Evaluation) -> dict[str, float]:
    return {
        "loss": result.loss,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "heldout_tokens": result.heldout_tokens,
        "heldout_bytes": result.heldout_bytes,
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a JSON file that is whole or not there."""
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(values, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
