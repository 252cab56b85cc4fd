"""Training loop of a stage."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters
from tfscale.data.batches import Batches
from tfscale.data.prepared import PreparedData
from tfscale.faults import InvalidInput
from tfscale.models.counts import parameters
from tfscale.stage import events
from tfscale.stage.ending import parent_loss
from tfscale.stage.heldout import write_blocks
from tfscale.stage.layout import Layout, choose_layout, in_backward_faults, layout_of, nested_dropout_faults
from tfscale.stage.learning_rate import learning_rate
from tfscale.stage.result import FinalEvaluation, Result, StageSpeed, write_result
from tfscale.stage.spec import StageSpec, key_of
from tfscale.training.calendar import Calendar, groups_at
from tfscale.training.costs import Costs, EnergyMeter
from tfscale.training.device import Device, hardware_of
from tfscale.training.evaluation import evaluate
from tfscale.training.feed import Feed
from tfscale.training.journal import WINDOW, Journal
from tfscale.training.non_finite import BadStep, NonFinitePolicy
from tfscale.training.optimizer import GradientNorms
from tfscale.training.parallel import reducing_gradients
from tfscale.training.preemption import Preemption
from tfscale.training.probe import probe_micro_batch, warm_up
from tfscale.training.saver import Saver
from tfscale.training.state import StageState
from tfscale.training.update import build_update, reads_late
from tfscale.training.world import World, split_rows
from tfscale.untrusted import from_known


class _Started:
    """Training step whose results a CUDA device may still be computing. The copy of the results to the host is queued
    after the step, and `results` waits only for this copy, not for work that is queued later."""

    def __init__(self, rate: float, loss: Tensor, norms: GradientNorms) -> None:
        self.rate, self.names = rate, norms.names
        values = torch.cat([torch.stack([loss, norms.total.double()]), norms.each.double()])
        self._copy = values.to("cpu", non_blocking=True)  # in page-locked memory if it comes from CUDA
        self._copied = torch.cuda.Event() if values.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def results(self) -> list[float]:
        """Return the loss, the norm of all gradients over all ranks, and then the norm of each weight's gradient on
        this rank, as one list."""
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._copy.tolist()
        return values


class Trainer:
    """Trainer of one stage. Training starts from the newest checkpoint of the stage, if there is one, and continues to
    the end of the stage."""

    def __init__(
        self, stage_dir: Path, spec: StageSpec, data: PreparedData, device: Device, world: World, preempted: Preemption
    ) -> None:
        self.stage_dir, self.spec, self.data, self.device, self.preempted = stage_dir, spec, data, device, preempted
        self.world, self.rows = world, split_rows(spec.sequences, world)
        _check_settings(spec, device, world, self.rows)
        lanes = spec.run.lanes if device.kind == "cpu" and not device.compiled and world.size == 1 else 1
        layout = choose_layout(spec, hardware_of(device, world), _previous_layout(stage_dir, world), lanes)
        self.state = StageState(spec, device, world, layout)
        self.objective = self.state.objective
        self.layout = probe_micro_batch(self.objective, layout, self.rows, spec, device, world)
        compile_seconds = warm_up(self.objective, self.layout, self.rows, spec, device)
        self.late = reads_late(self.state, spec, device)
        self.update = build_update(self.state, spec, self.late)
        self.batches = Batches(data.train, spec.model.context, spec.data.order_seed)
        self.feed = Feed(self.batches, self.rows, spec.sequences, device)
        self.costs = Costs(spec, EnergyMeter(device), world)
        self.journal = Journal(stage_dir, spec, device, world)
        if device.compiled:
            self.journal.write("compiled", seconds=compile_seconds)
        self.saver = Saver(stage_dir, spec, self.journal, world, device.queues)
        self.evaluations: dict[int, FinalEvaluation] = {}
        self.calendar = Calendar(spec, parent_loss(spec, stage_dir))
        past = [event for event in events.read_events(stage_dir) if event["event"] == "non_finite"]
        self.non_finite = NonFinitePolicy(stage_dir.name, spec, world.share(past))
        self._under_way: _Started | None = None

    @property
    def step(self) -> int:
        """Number of steps of the stage so far, including a step whose results have not been read yet."""
        return self.state.counters.step + (self._under_way is not None)

    def run(self) -> bool:
        """Train the stage, and write its result when it is finished. Return True if the stage is finished, and False if
        training was stopped on request. In both cases, a checkpoint of the last step has been saved.

        Raises:
            NonFinite: a loss or a gradient is non-finite, and the policy does not allow training to continue. The
                message says whether weights were already updated.
            BrokenCheckpoint: the stage starts from existing weights but has no complete checkpoint, or the newest
                complete checkpoint does not match the spec of the stage.
            OSError: a checkpoint could not be written; the previous checkpoint is complete.
        """
        self._restore()
        while True:
            self.journal.beat()
            due = self.world.leads and self.saver.due(self.step, self.calendar.checkpoints(self.step))
            stop, save = self.world.any(self.preempted.after(self.step), due)
            evaluates, ends = self.calendar.evaluates(self.step, self.evaluations), self.step == self.calendar.steps
            if (stop or save or evaluates or ends) and not self._settle():
                continue
            if stop or (evaluates and not self._evaluate()):
                finished = False
                break
            if self.step == self.calendar.steps:
                finished = True
                break
            if save:
                self._save()
            self._train_step()
        if self.saver.step != self.step:
            self._save()
        self.saver.wait()
        if not finished:
            self.journal.write("end", step=self.step, reason="preempted")
        elif self.world.leads:
            self._write_result()
        self.world.barrier()  # the first rank that exits ends the other ranks
        return finished

    def _train_step(self) -> None:
        """Train on the next batch, or skip the batch if its step was non-finite before a rollback. If `self.late` is
        true, read the loss of the previous step while the device computes this step."""
        if self.non_finite.passes_over(self.step + 1):
            if self._settle():
                self.state.counters = self.costs.count(self.state.counters, updated=False, timed=False)
            return
        if self._under_way is None:
            self.costs.begin()
        started = self._start_step()
        if self._under_way is not None:
            if not self._settle():
                return  # the stage has been rolled back, so this step is discarded
            self.costs.begin()
        self._under_way = started
        if not self.late:
            self._settle()

    def _start_step(self) -> _Started:
        spec, step = self.spec, self.step
        tokens = self.calendar.steps * spec.batch_tokens
        rate = learning_rate(spec.lr_schedule, spec.optimizer.lr, step * spec.batch_tokens, tokens)
        self.state.optimizer.set_learning_rate(rate)
        self.update.row_rates.begin(step * spec.batch_tokens, step + 1, self.state.counters.optimizer_step + 1)
        first = spec.data.start // spec.model.context + step * spec.sequences + self.world.rank * self.rows
        inputs, targets = self.feed.batch(first)
        with self.state.model.using_first_groups(groups_at(spec, step)):
            loss = self.world.sum_of(self._gradients(inputs, targets))
        norms = self.update.finish(loss)
        return _Started(rate, loss, norms)

    def _settle(self) -> bool:
        """Wait for the results of the last step that was started, unless they have already been read, and record the
        step. Return False if the stage has been rolled back to a checkpoint. This is a collective call."""
        started, self._under_way = self._under_way, None
        if started is None:
            return True
        loss, norm, *norms = started.results()
        self.costs.end()
        good = math.isfinite(loss) and math.isfinite(norm)
        if not good:
            flags = self.world.any(*(not math.isfinite(each) for each in norms))
            where = tuple(name for name, flag in zip(started.names, flags, strict=True) if flag)
            bad = BadStep(self.step + 1, loss, norm, where)
            if self.non_finite.follow(bad, self.journal) == "rollback":
                self._restore()
                return False
        counters = self.costs.count(self.state.counters, updated=good)
        if good:
            if self.calendar.logs(counters.step):
                counters = self.costs.add_energy(counters)
                self.journal.trained(counters, loss, norm, started.rate)
            counters = replace(counters, recent_losses=(*counters.recent_losses, loss)[-WINDOW:])
        self.state.counters = counters
        return True

    def _gradients(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Accumulate the gradients of the mean loss over the whole batch, one micro-batch at a time. Return the
        contribution to the mean loss of this rank's sequences (`inputs` and `targets` [rows, context])."""
        total = torch.zeros((), device=self.device.kind)
        size = self.layout.micro_batch
        parts = list(zip(inputs.split(size), targets.split(size), strict=True))
        for number, (x, y) in enumerate(parts):
            with reducing_gradients(self.objective, last=number == len(parts) - 1):
                with self.device.autocast():
                    loss = self.objective(x, y) / self.spec.batch_tokens
                self.update.backward(loss * self.world.size)  # ranks average gradients, but the sum is needed
            total += loss.detach()
        return total

    def _evaluate(self) -> bool:
        def asked_to_stop() -> bool:
            self.journal.beat()
            return self.preempted()

        self.state.counters = self.costs.add_energy(self.state.counters)
        text, shape = self.spec.data, (self.layout.evaluation_batch, self.spec.model.context)
        result = evaluate(
            self.objective, self.data, text.heldout_tokens, shape, self.device, self.world, asked_to_stop,
            text.heldout_start, self.layout.lanes,
        )  # fmt: skip
        if result is None:
            return False
        self.evaluations[self.step] = result.figures
        decided = self.calendar.decide(self.evaluations, self.step)
        if self.step == self.calendar.steps and self.world.leads:
            # The blocks are written before the event, so that every recorded evaluation has blocks.
            write_blocks(self.stage_dir, self.step, result.block_tokens, result.block_losses)
        self.journal.evaluated(self.state.counters, result.figures)
        if decided:
            self.journal.write("ending", step=self.step, ends_at=self.calendar.steps * self.spec.batch_tokens)
        return True

    def _save(self) -> None:
        self.state.counters = self.costs.add_energy(self.state.counters)
        self.saver.save(self.state.counters, self.state.tensors())

    def _restore(self) -> None:
        """Load the newest complete checkpoint. If there is none, reset a stage that starts from scratch to its
        beginning, and raise BrokenCheckpoint for any other stage."""
        self.saver.wait()
        self.costs.drop_energy()
        name = self.world.share(self.saver.newest(self.step) if self.world.leads else None)
        if name is not None:
            self.state.load(self.saver.folder / name)
            self.saver.step = self.step
        elif not self.spec.inherits:
            self.state.reset()
        else:
            raise BrokenCheckpoint(
                f"{self.stage_dir}: the stage starts from {self.spec.parent or self.spec.init_from}, but has no "
                "complete checkpoint; use `tfscale run` to create the checkpoint again"
            )
        self.journal.started(self.state.counters, self.layout)
        past = [event for event in events.read_events(self.stage_dir) if event["event"] == "eval"]
        self.evaluations = {event["step"]: from_known(FinalEvaluation, event) for event in self.world.share(past)}
        self.calendar.decide(self.evaluations, self.step)

    def _write_result(self) -> None:
        self.saver.prune(keep=1)
        self.journal.write("end", step=self.step, reason="done")
        self.journal.close()
        evaluation = self.evaluations[self.step]
        write_result(
            self.stage_dir, _result(self.spec, self.state.counters, evaluation, self.non_finite.count, self.device)
        )


def _result(
    spec: StageSpec, counters: Counters, evaluation: FinalEvaluation, non_finite: int, device: Device
) -> Result:
    spent = counters.totals - counters.before
    return Result(
        key=key_of(spec),
        step=counters.step,
        tokens=counters.step * spec.batch_tokens,
        before=counters.before,
        totals=counters.totals,
        eval=evaluation,
        checkpoint=checkpoint.folder_name(counters.step),
        non_finite=non_finite,
        peak_memory=device.peak_memory(),
        reserved_memory=device.reserved_memory(),
        speed=StageSpeed(parameters(spec.model), spent.flops / spent.seconds if spent.seconds > 0 else 0.0),
    )


def _check_settings(spec: StageSpec, device: Device, world: World, rows: int) -> None:
    faults = list(in_backward_faults(spec.run, spec.optimizer, world.size, rows))
    if spec.nested_dropout:
        faults += nested_dropout_faults(spec.run, device.kind)
    if faults:
        raise InvalidInput(*faults)


def _previous_layout(stage_dir: Path, world: World) -> Layout | None:
    """Return the layout that the stage last used with the current number of ranks, or None if no such layout is
    recorded."""
    starts = [event for event in events.read_events(stage_dir) if event["event"] == "start"]
    same = [event for event in starts if event["processes"] == world.size]
    return layout_of(world.share(same[-1] if same else {}))


def check_vocabulary(spec: StageSpec, data: PreparedData) -> None:
    """Raise ValueError if the vocabulary of the corpus is larger than the vocabulary of the model."""
    entries = data.manifest.tokenizer.vocab_size
    if entries > spec.model.vocab_size:
        known = spec.model.vocab_size
        raise ValueError(f"{data.folder}: the vocabulary has {entries} entries, but the model has only {known}")
