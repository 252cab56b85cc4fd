"""The loop of one stage."""

import math
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Totals
from tfscale.data.batches import Batches
from tfscale.data.prepared import PreparedData
from tfscale.faults import InvalidInput
from tfscale.models.counts import flops, parameters
from tfscale.stage import events
from tfscale.stage.ending import end_of, looks_at
from tfscale.stage.heldout import write_blocks
from tfscale.stage.layout import Layout, choose_layout, in_backward_faults, layout_of
from tfscale.stage.learning_rate import learning_rate
from tfscale.stage.result import FinalEvaluation, Result, StageSpeed, write_result
from tfscale.stage.spec import StageSpec, key_of, steps_of
from tfscale.training.device import Device, hardware_of
from tfscale.training.energy import EnergyMeter
from tfscale.training.evaluation import Evaluation, evaluate, evaluations_of
from tfscale.training.parallel import gathering
from tfscale.training.preemption import Preemption
from tfscale.training.probe import probe_micro_batch
from tfscale.training.saver import Saver
from tfscale.training.state import StageState
from tfscale.training.update import build_update
from tfscale.training.watch import CLOSE_WATCH_STEPS, WINDOW, BadNumber, Heartbeat, NonFinite, spike_score
from tfscale.training.world import World, split_rows


class Trainer:
    """Trains one stage from its newest checkpoint, or from its beginning, to its end."""

    def __init__(
        self, stage_dir: Path, spec: StageSpec, data: PreparedData, device: Device, world: World, preempted: Preemption
    ) -> None:
        self.stage_dir, self.spec, self.data, self.device, self.preempted = stage_dir, spec, data, device, preempted
        self.world, self.rows = world, split_rows(spec.sequences, world)
        if faults := list(in_backward_faults(spec.run, spec.optimizer, world.size, self.rows)):
            raise InvalidInput(*faults)
        lanes = spec.run.lanes if device.kind == "cpu" and not device.compiled and world.size == 1 else 1
        layout = choose_layout(spec, hardware_of(device, world), self._previous_layout(), lanes)
        self.state = StageState(spec, device, world, layout)
        self.objective = self.state.objective
        self.layout = probe_micro_batch(layout, self.objective, spec, device, world)
        self.update = build_update(self.state, world, spec)
        self.batches = Batches(data.train, spec.model.context, spec.data.order_seed)
        self.flops_per_token = flops(spec.model).training
        self.energy = EnergyMeter(device)
        self.energy_known = not world.any(not self.energy.works)[0]
        self.log = events.EventLog(stage_dir) if world.leads else events.NoLog()
        self.saver = Saver(stage_dir, spec, self.log, world, device.saves_beside_training)
        self.alive = Heartbeat(stage_dir)
        self.evaluations: dict[int, Evaluation] = {}
        self.bad_steps: set[int] = set()
        self.passed_over: set[int] = set()
        self.logged_at = (0, 0.0)  # step and seconds of the last training event
        self.steps = spec.steps  # of the whole stage, as far as is decided

    @property
    def step(self) -> int:
        """Steps of the stage that are done."""
        return self.state.counters.step

    def run(self) -> bool:
        """Trains; True when the stage is done, False when it was asked to stop and has saved what it had.

        Raises:
            NonFinite: a loss or a gradient is no number; the message says whether the weights were kept from it.
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
            if self.step == self.steps:
                self._finish()
                return True
            if save:
                self._save()
            self._train_step()
        if self.saver.step != self.step:
            self._save()
        self.saver.wait()
        self.log.write("end", step=self.step, reason="preempted", time=time.time())
        self.world.barrier()  # the first rank to exit ends the others
        return False

    def _previous_layout(self) -> Layout | None:
        """The layout of the last process of as many ranks that took up the stage."""
        starts = [event for event in events.read_events(self.stage_dir) if event["event"] == "start"]
        same = [event for event in starts if event["processes"] == self.world.size]
        return layout_of(self.world.share(same[-1] if same else {}))

    def _train_step(self) -> None:
        spec, step = self.spec, self.step
        if step + 1 in self.passed_over:
            self._count(0.0, 0.0, updated=False)
            return
        started, energy = time.perf_counter(), self.energy.joules()
        tokens = self.steps * spec.batch_tokens
        rate = learning_rate(spec.schedule, spec.optimizer.lr, step * spec.batch_tokens, tokens)
        self.state.optimizer.set_learning_rate(rate)
        self.update.apart.begin(step * spec.batch_tokens, step + 1, self.state.counters.optimizer_step + 1)
        first = spec.data.start // spec.model.context + step * spec.sequences + self.world.rank * self.rows
        [loss] = self.world.sum(self._gradients(*self.batches.sequences(first, self.rows)).item())
        norm = self.update.grad_norm()
        bad = None
        if math.isfinite(loss) and math.isfinite(norm):
            self.update.apply()
        else:
            bad = BadNumber(step + 1, loss, norm, self.update.bad_gradients())
        updated = self.update.clear()
        spent = time.perf_counter() - started, self.energy.joules() - energy
        if bad is not None:
            self._pass_over(bad, *spent, spoilt=updated)
            return
        self._count(*spent, updated)
        self._watch(loss, norm, rate)

    def _gradients(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Adds up the gradients of the whole batch's mean loss, a micro-batch at a time.

        Args:
            inputs, targets: [rows, context], this rank's share of the batch.

        Returns:
            This rank's share of that loss.
        """
        total = torch.zeros((), device=self.device.kind)
        size = self.layout.micro_batch
        parts = list(zip(inputs.split(size), targets.split(size), strict=True))
        for number, (x, y) in enumerate(parts):
            with gathering(self.objective, last=number == len(parts) - 1):
                with self.device.autocast():
                    loss = self.objective(x.to(self.device.kind), y.to(self.device.kind)) / self.spec.batch_tokens
                self.update.backward(loss * self.world.size)  # ranks average their gradients, and we want their sum
            total += loss.detach()
        return total

    def _pass_over(self, bad: BadNumber, seconds: float, joules: float, spoilt: bool) -> None:
        """Does what `run.non_finite` says about a step that would have spoilt the weights."""
        policy, cap = self.spec.run.non_finite, self.spec.run.non_finite_cap
        self.bad_steps.add(bad.step)
        values = {**asdict(bad), "loss": str(bad.loss), "grad_norm": str(bad.grad_norm)}
        self.log.write("non_finite", **values, policy=policy, count=len(self.bad_steps), time=time.time())
        kept = f"The weights of step {bad.step - 1} were kept"
        if spoilt:
            kept = "Some weights had their update already, so the stage goes on from its last checkpoint"
        mend = f"{kept}. Lower optim.lr, or warm up longer"
        if policy == "raise":
            other = "rollback" if self.spec.run.update == "in_backward" else "skip"
            raise NonFinite(f"{self.stage_dir.name}, {bad}. {mend}, or set launcher.non_finite={other}.")
        if len(self.bad_steps) > cap:
            raise NonFinite(f"{self.stage_dir.name}, {bad}. That is more than launcher.non_finite_cap={cap}. {mend}.")
        if policy == "skip":
            self._count(seconds, joules, updated=False)
        elif policy == "rollback":
            self.passed_over.add(bad.step)
            self._restore()
        else:
            assert_never(policy)

    def _count(self, seconds: float, joules: float, updated: bool) -> None:
        counters, tokens = self.state.counters, self.spec.batch_tokens
        before = counters.totals
        used = before.joules if before.tokens else 0.0  # a lineage begins with nothing used
        if self.energy_known and used is not None:
            used += self.world.sum(joules)[0]
        self.state.counters = replace(
            counters,
            step=counters.step + 1,
            optimizer_step=counters.optimizer_step + updated,
            totals=Totals(
                tokens=before.tokens + tokens,
                flops=before.flops + tokens * self.flops_per_token,
                seconds=before.seconds + seconds,
                device_seconds=before.device_seconds + seconds * self.world.size,
                joules=used if self.energy_known else None,
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
                peak_memory=self.device.peak_memory(),
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
        known = {name: value for name, value in asdict(self.state.counters.totals).items() if value is not None}
        tokens = self.step * self.spec.batch_tokens
        return {"step": self.step, "tokens": tokens, "time": time.time()} | {f"total_{k}": v for k, v in known.items()}

    def _evaluation_due(self, step: int) -> bool:
        if step in self.evaluations:
            return False
        if step == 0:
            return self.spec.parent is not None  # what growth did to the loss; an untrained model's is known
        parts = evaluations_of(self.spec)
        return step == self.steps or looks_at(self.spec, step) or self._due(step, self.spec.run.eval_tokens, parts)

    def _evaluate(self) -> bool:
        def asked_to_stop() -> bool:
            self.alive()
            return self.preempted()

        text, shape = self.spec.data, (self.layout.evaluation_batch, self.spec.model.context)
        result = evaluate(
            self.objective,
            self.data,
            text.heldout_tokens,
            shape,
            self.device,
            self.world,
            asked_to_stop,
            text.heldout_start,
            self.layout.lanes,
        )
        if result is None:
            return False
        self.evaluations[self.step] = result
        decided = self._decide()
        if self.step == self.steps and self.world.leads:
            # Before its event, so that an evaluation which is known of has them.
            write_blocks(self.stage_dir, self.step, result.block_tokens, result.block_losses)
        self.log.write("eval", **self._position(), **asdict(_final(result)))
        if decided:
            ends_at = self.steps * self.spec.batch_tokens
            self.log.write("ending", step=self.step, ends_at=ends_at, time=time.time())
        return True

    def _decide(self) -> bool:
        """Takes up the end that the evaluations so far decide; whether it is another one than before."""
        before = self.steps
        losses = {step: result.loss for step, result in self.evaluations.items() if step <= self.step}
        self.steps = end_of(self.spec, losses) or self.spec.steps
        return self.steps != before

    def _save(self) -> None:
        self.saver.save(self.state.counters, self.state.tensors())

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
        elif not self.spec.inherits:
            self.state.reset()
        else:
            raise BrokenCheckpoint(
                f"{self.stage_dir}: begins from {self.spec.parent or self.spec.init_from} and has no whole checkpoint; "
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
            processes=self.world.size,
            **asdict(self.layout),
        )
        past = [event for event in events.read_events(self.stage_dir) if event["event"] == "eval"]
        self.evaluations = {
            event["step"]: Evaluation(event["loss"], event["heldout_tokens"], event["heldout_bytes"])
            for event in self.world.share(past)
        }
        self._decide()

    def _report(self, message: str) -> None:
        self.log.write("broken_checkpoint", step=self.step, message=message, time=time.time())

    def _finish(self) -> None:
        if self.saver.step != self.step:
            self._save()
        self.saver.wait()
        if self.world.leads:
            self._conclude()
        self.world.barrier()  # the first rank to exit ends the others

    def _conclude(self) -> None:
        self.saver.prune()
        self.log.write("end", step=self.step, reason="done", time=time.time())
        self.log.close()
        counters = self.state.counters
        result = Result(
            key=key_of(self.spec),
            step=counters.step,
            tokens=self.steps * self.spec.batch_tokens,
            before=counters.before,
            totals=counters.totals,
            eval=_final(self.evaluations[counters.step]),
            checkpoint=checkpoint.folder_name(counters.step),
            non_finite=len(self.bad_steps),
            peak_memory=self.device.peak_memory(),
            reserved_memory=self.device.reserved_memory(),
            speed=StageSpeed(parameters(self.spec.model), self._flops_per_second()),
        )
        write_result(self.stage_dir, result)

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


def _final(result: Evaluation) -> FinalEvaluation:
    return FinalEvaluation(
        result.loss, result.perplexity, result.bits_per_byte, result.heldout_tokens, result.heldout_bytes
    )
