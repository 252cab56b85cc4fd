"""Kind of arm that trains a model of the last size from scratch with a share of the chain's cost."""

from collections.abc import Iterator, Sequence

from tfscale.config.schema import Experiment
from tfscale.faults import Fault
from tfscale.models.counts import flops
from tfscale.plan.arm_kind import ARM_KINDS, ArmKind
from tfscale.plan.chain import Chain
from tfscale.plan.specs import tokenformer
from tfscale.stage.folder import Stage


@ARM_KINDS.register("share")
class Share(ArmKind):
    settings = ("options",)
    from_scratch = True

    def faults(self, key: str, experiment: Experiment) -> Iterator[Fault]:
        share = self.part.options.get("share")
        if not isinstance(share, float) or not 0 < share <= 1:
            yield Fault(f"{key}.options.share", share, "must be a fraction above 0", "0.5")

    def stages(self, chain: Chain) -> Sequence[Stage]:
        size, target = chain.sizes[-1]
        model = tokenformer(chain.experiment, size, chain.specs.corpus)
        tokens = int(self.part.options["share"] * chain.spent(target)) // flops(model).training
        return [chain.specs.stage(size.size, chain.specs.scratch(model, tokens, self.part.lr))]
