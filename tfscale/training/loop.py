"""The loop of one stage."""

import math
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Totals
from tfscale.data.batches import Batches
from tfscale.data.prepared import PreparedData
from tfscale.models.counts import flops, parameters
from tfscale.training import events
from tfscale.training.device import Device, fitting_sequences
from tfscale.training.evaluation import Evaluation, evaluate
from tfscale.training.files import write_json
from tfscale.training.learning_rate import learning_rate
from tfscale.training.preemption import Preemption
from tfscale.training.saver import Saver
from tfscale.training.spec import StageSpec, key_of, steps_of
from tfscale.training.state import StageState
from tfscale.training.watch import (
    CLOSE_WATCH_STEPS,
    WINDOW,
    BadNumber,
    Heartbeat,
    NonFinite,
    find_bad_number,
    spike_score,
)
from tfscale.training.world import World, parallelize, split_rows


class Trainer:
    """Trains one stage from its newest checkpoint, or from its beginning, to its end."""

    def __init__(
        self, stage_dir: Path, spec: StageSpec, data: PreparedData, device: Device, world: World, preempted: Preemption
    ) -> None:
        self.stage_dir, self.spec, self.data, self.device, self.preempted = stage_dir, spec, data, device, preempted
        self.world, self.rows = world, split_rows(spec.sequences, world)
        self.state = StageState(spec, device)
        self.objective = parallelize(self.state.model, world, device.compiled)
        self.batches = Batches(data.train, spec.model.context, spec.data.order_seed)
        self.flops_per_token = flops(spec.model).training
        self.micro_batch = min(self.rows, spec.run.micro_batch or self._used_before() or self._fitting())
        self.log = events.EventLog(stage_dir) if world.leads else events.NoLog()
        self.saver = Saver(stage_dir, spec, self.log, device.saves_beside_training)
        self.alive = Heartbeat(stage_dir)
        self.evaluations: dict[int, Evaluation] = {}
        self.bad_steps: set[int] = set()
        self.passed_over: set[int] = set()
        self.logged_at = (0, 0.0)  # step and seconds of the last training event

    @property
    def step(self) -> int:
        """Steps of the stage that are done."""
        return self.state.counters.step

    def run(self) -> bool:
        """Trains; True when the stage is done, False when it was asked to stop and has saved what it had.

        Raises:
            NonFinite: before the update that would have spoilt the weights.
            BrokenCheckpoint: the stage has a parent and no checkpoint to begin from.
            OSError: a checkpoint could not be written; the one before it is whole.
        """
        self._resume()
        while True:
            self.alive()
            run = self.spec.run
            by_tokens = any(
                self._due(self.step, tokens, parts=0) for tokens in (run.checkpoint_tokens, run.keep_tokens)
            )
            due = self.world.leads and self.saver.due(self.step, by_tokens)
            stop, save = self.world.any(self.preempted(), due)
            if stop or (self._evaluation_due(self.step) and not self._evaluate()):
                break
            if self.step == self.spec.steps:
                self._finish()
                return True
            if save:
                self._save()
            self._train_step()
        if self.saver.step != self.step:
            self._save()
        self.saver.wait()
        self.log.write("end", step=self.step, reason="preempted", time=time.time())
        return False

    def _used_before(self) -> int | None:
        """Sequences that the same number of ranks held at once before a resume: the same sums in the same order."""
        starts = [event for event in events.read_events(self.stage_dir) if event["event"] == "start"]
        same = [event["micro_batch"] for event in starts if event["processes"] == self.world.size]
        return int(same[-1]) if same else None

    def _fitting(self) -> int:
        return fitting_sequences(self.device, self.spec.model, self.rows)

    def _train_step(self) -> None:
        spec, step = self.spec, self.step
        started = time.perf_counter()
        if step + 1 in self.passed_over:
            self._count(0.0, updated=False)
            return
        rate = learning_rate(spec.schedule, spec.optimizer.lr, step * spec.batch_tokens, spec.tokens)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        first = spec.data.start // spec.model.context + step * spec.sequences + self.world.rank * self.rows
        [loss] = self.world.sum(self._gradients(*self.batches.sequences(first, self.rows)).item())
        norm = self._clip().item()
        bad = find_bad_number(step + 1, loss, norm, self.state.model)
        if bad is None:
            self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        if bad is not None:
            self._pass_over(bad, time.perf_counter() - started)
            return
        self._count(time.perf_counter() - started, updated=True)
        self._watch(loss, norm, rate)

    def _gradients(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Adds up the gradients of the whole batch's mean loss, a micro-batch at a time.

        Args:
            inputs, targets: [rows, context], this rank's share of the batch.

        Returns:
            This rank's share of that loss.
        """
        total = torch.zeros((), device=self.device.kind)
        parts = list(zip(inputs.split(self.micro_batch), targets.split(self.micro_batch), strict=True))
        for number, (x, y) in enumerate(parts):
            with self._averaging(number == len(parts) - 1):
                with self.device.autocast():
                    loss = self.objective(x.to(self.device.kind), y.to(self.device.kind)) / self.spec.batch_tokens
                (loss * self.world.size).backward()  # ranks average their gradients, and we want their sum
            total += loss.detach()
        return total

    def _averaging(self, last: bool) -> AbstractContextManager[Any]:
        """Ranks average gradients once a batch, in the backward pass of its last micro-batch."""
        parallel = self.objective
        return nullcontext() if last or not isinstance(parallel, DistributedDataParallel) else parallel.no_sync()

    def _clip(self) -> Tensor:
        limit = self.spec.optimizer.clip or math.inf
        return torch.nn.utils.clip_grad_norm_(self.state.model.parameters(), limit, foreach=True)

    def _pass_over(self, bad: BadNumber, seconds: float) -> None:
        """Does what `run.non_finite` says about a step that would have spoilt the weights."""
        policy, cap = self.spec.run.non_finite, self.spec.run.non_finite_cap
        self.bad_steps.add(bad.step)
        values = {**asdict(bad), "loss": str(bad.loss), "grad_norm": str(bad.grad_norm)}
        self.log.write("non_finite", **values, policy=policy, count=len(self.bad_steps), time=time.time())
        mend = f"The weights of step {bad.step - 1} were kept. Lower optim.lr, or warm up longer"
        if policy == "raise":
            raise NonFinite(f"{self.stage_dir.name}, {bad}. {mend}, or set launcher.non_finite=skip.")
        if len(self.bad_steps) > cap:
            raise NonFinite(f"{self.stage_dir.name}, {bad}. That is more than launcher.non_finite_cap={cap}. {mend}.")
        if policy == "skip":
            self._count(seconds, updated=False)
        else:
            self.passed_over.add(bad.step)
            self._restore()

    def _count(self, seconds: float, updated: bool) -> None:
        counters, tokens = self.state.counters, self.spec.batch_tokens
        before = counters.totals
        self.state.counters = replace(
            counters,
            step=counters.step + 1,
            optimizer_step=counters.optimizer_step + updated,
            totals=Totals(
                tokens=before.tokens + tokens,
                flops=before.flops + tokens * self.flops_per_token,
                seconds=before.seconds + seconds,
                device_seconds=before.device_seconds + seconds * self.world.size,
            ),
        )

    def _watch(self, loss: float, norm: float, rate: float) -> None:
        counters = self.state.counters
        just_grown = self.spec.parent is not None and counters.step <= CLOSE_WATCH_STEPS
        if just_grown or self._due(counters.step, self.spec.run.log_tokens, parts=100):
            self.log.write(
                "train",
                **self._position(),
                loss=loss,
                lr=rate,
                grad_norm=norm,
                spike=spike_score(loss, counters.recent_losses),
                tokens_per_second=self._speed(),
            )
        self.state.counters = replace(counters, recent_losses=(*counters.recent_losses, loss)[-WINDOW:])

    def _speed(self) -> float | None:
        """Tokens a second since the last training event."""
        seconds = self.state.counters.totals.seconds
        steps, since = self.step - self.logged_at[0], seconds - self.logged_at[1]
        self.logged_at = (self.step, seconds)
        return steps * self.spec.batch_tokens / since if since > 0 else None

    def _due(self, step: int, tokens: int, parts: int) -> bool:
        """Whether something happens after `step` that is due every `tokens` tokens or, for 0, `parts` times a stage."""
        if step == 0:
            return False
        if tokens:
            return step % steps_of(tokens, self.spec) == 0
        return step * parts // self.spec.steps > (step - 1) * parts // self.spec.steps

    def _position(self) -> dict[str, Any]:
        totals = asdict(self.state.counters.totals)
        tokens = self.step * self.spec.batch_tokens
        return {"step": self.step, "tokens": tokens, "time": time.time()} | {f"total_{k}": v for k, v in totals.items()}

    def _evaluation_due(self, step: int) -> bool:
        if step in self.evaluations:
            return False
        if step == 0:
            return self.spec.parent is not None  # what growth did to the loss; an untrained model's is known
        return step == self.spec.steps or self._due(step, self.spec.run.eval_tokens, parts=10)

    def _evaluate(self) -> bool:
        def asked_to_stop() -> bool:
            self.alive()
            return self.preempted()

        tokens = self.spec.data.heldout_tokens
        result = evaluate(self.state.model, self.data, tokens, self.device, self.world, asked_to_stop)
        if result is None:
            return False
        self.evaluations[self.step] = result
        self.log.write("eval", **self._position(), **_measures(result))
        return True

    def _save(self) -> None:
        if self.world.leads:
            self.saver.save(self.state.counters, self.state.tensors())
        self.saver.step = self.step

    def _resume(self) -> None:
        past = [event for event in events.read_events(self.stage_dir) if event["event"] == "non_finite"]
        past = self.world.share(past)
        self.bad_steps = {event["step"] for event in past}
        self.passed_over = {event["step"] for event in past if event["policy"] == "rollback"}
        self._restore()

    def _restore(self) -> None:
        """Takes up the newest whole checkpoint, or the stage's beginning."""
        self.saver.wait()
        newest = None
        if self.world.leads:
            checkpoint.sweep(self.saver.folder)
            newest = checkpoint.latest(self.saver.folder, self._report)
        name = self.world.share(newest.name if newest else None)
        if name is not None:
            self.state.load(self.saver.folder / name)
            self.saver.step = self.step
        elif self.spec.parent is None:
            self.state.reset()
        else:
            raise BrokenCheckpoint(
                f"{self.stage_dir}: grows out of {self.spec.parent} and has no whole checkpoint to begin from; "
                "`tfscale run` makes it again"
            )
        self.logged_at = (self.step, self.state.counters.totals.seconds)
        self.log.write(
            "start",
            step=self.step,
            time=time.time(),
            host=os.uname().nodename,
            pid=os.getpid(),
            device=self.device.kind,
            micro_batch=self.micro_batch,
            processes=self.world.size,
        )
        past = [event for event in events.read_events(self.stage_dir) if event["event"] == "eval"]
        self.evaluations = {
            event["step"]: Evaluation(event["loss"], event["heldout_tokens"], event["heldout_bytes"])
            for event in self.world.share(past)
        }

    def _report(self, message: str) -> None:
        self.log.write("broken_checkpoint", step=self.step, message=message, time=time.time())

    def _finish(self) -> None:
        if self.saver.step != self.step:
            self._save()
        if self.world.leads:
            self._conclude()
        self.world.barrier()

    def _conclude(self) -> None:
        self.saver.finish()
        self.log.write("end", step=self.step, reason="done", time=time.time())
        self.log.close()
        counters = self.state.counters
        done = {
            "key": key_of(self.spec),
            "step": counters.step,
            "tokens": self.spec.tokens,
            "before": asdict(counters.before),
            "totals": asdict(counters.totals),
            "eval": _measures(self.evaluations[counters.step]),
            "checkpoint": checkpoint.folder_name(counters.step),
            "non_finite": len(self.bad_steps),
            "peak_memory": self.device.peak_memory(),
            "speed": {"parameters": parameters(self.spec.model), "flops_per_second": self._flops_per_second()},
        }
        write_json(self.stage_dir / events.DONE_FILE, done)

    def _flops_per_second(self) -> float:
        totals, before = self.state.counters.totals, self.state.counters.before
        seconds = totals.seconds - before.seconds
        return (totals.flops - before.flops) / seconds if seconds > 0 else 0.0


def check_vocabulary(spec: StageSpec, data: PreparedData) -> None:
    """Makes sure that every token of the corpus has a row in the model's embedding.

    Raises:
        ValueError: some have not.
    """
    entries = data.manifest.tokenizer.vocab_size
    if entries > spec.model.vocab_size:
        raise ValueError(f"{data.folder}: has {entries} kinds of token, the stage's model {spec.model.vocab_size}")


def _measures(result: Evaluation) -> dict[str, float]:
    return {
        "loss": result.loss,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "heldout_tokens": result.heldout_tokens,
        "heldout_bytes": result.heldout_bytes,
    }
