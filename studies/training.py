"""Training of stages in processes of the study, which therefore know the model families that the study registers."""

from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

import torch

from tfscale.config.compose import compose
from tfscale.data.prepared import open_data
from tfscale.data.progress import silent
from tfscale.growth.grow_stage import grow_stage
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.plan.arms import Arm
from tfscale.plan.corpus import prepare_corpus
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import read_result
from tfscale.training.device import resolve
from tfscale.training.loop import Trainer
from tfscale.training.preemption import Preemption
from tfscale.training.world import World


def planned(overrides: Iterable[str]) -> Plan:
    """Return the plan of a configuration without tracking."""
    return make_plan(compose(["tracking=none", *overrides]))


def prepare(plan: Plan) -> Plan:
    """Prepare the corpus of a plan, and return the plan."""
    prepare_corpus(plan.experiment, plan.corpus, silent)
    return plan


def arm_by_seed(plan: Plan, name: str) -> list[Arm]:
    """Return an arm of a plan once per seed, with the stages of that seed."""
    return [arm for replicate in plan.replicates for arm in replicate.arms if arm.name == name]


def train_all(chains: Iterable[Sequence[Stage]], processes: int = 2) -> None:
    """Train the unfinished stages of chains, with one thread per process. A stage starts when its parent is finished
    and a process is free. The parent of each stage must be in one of the chains or finished."""
    waiting = {stage.key: stage for chain in chains for stage in chain if not is_done(stage)}
    running: dict[Future[None], Stage] = {}
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        while waiting or running:
            unfinished = {*waiting, *(stage.key for stage in running.values())}
            for stage in [each for each in waiting.values() if each.spec.parent not in unfinished]:
                running[pool.submit(train, waiting.pop(stage.key))] = stage
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                ended.result()
                stage = running.pop(ended)
                print(f"{stage.path.name} is finished, {len(waiting) + len(running)} remaining", flush=True)


def train(stage: Stage) -> None:
    """Train one stage, whose parent is finished."""
    prepare_folder(stage)
    if stage.spec.parent is not None:
        grow_stage(stage.path)
    data = open_data(stage.path / stage.spec.run.data_dir, stage.spec.data.fingerprint)
    Trainer(stage.path, stage.spec, data, resolve(stage.spec.run), World(), Preemption()).run()


def loss_of(stage: Stage) -> float:
    """Return the last validation loss of a finished stage, in nats per token."""
    return read_result(stage.path).evaluation.loss
