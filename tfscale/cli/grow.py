"""The command `tfscale grow`, which grows the checkpoint of one stage."""

from pathlib import Path

from tfscale.cli.common import Common
from tfscale.cli.console import answer, say
from tfscale.config.compose import runs_dir
from tfscale.faults import user_faults
from tfscale.growth.grow_checkpoint import OptimizerState
from tfscale.growth.grow_stage import grow_finished_stage
from tfscale.models.counts import parameters
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.stage.folder import find_stage
from tfscale.stage.spec import read_spec
from tfscale.text import count


def grow(common: Common, name: str, to: Path, tokens: tuple[int, int, int]) -> int:
    """Grow the checkpoint of a finished stage, write the grown checkpoint to the folder `to`, and return the exit code.
    The elements of `tokens` are the new numbers of parameter tokens of each query, key and value projection, of the
    output projection, and of the feed-forward layer."""
    experiment = common.compose()
    recipe = experiment.growth
    with user_faults():
        stage_dir = find_stage(runs_dir(experiment), name)
        model = read_spec(stage_dir).model
        if not isinstance(model, TokenFormerConfig):
            raise ValueError(
                f"{stage_dir.name} is a {model.family}, which has no parameter tokens; choose a TokenFormer"
            )
        config = recipe.grown_config(model, model.with_tokens(tokens))
        if to.exists():
            raise ValueError(f"--to {to}: must not exist yet; name another folder")
        result, state = grow_finished_stage(stage_dir, to, config, recipe, experiment.seed)
    if common.as_json:
        shape = {"parameters_before": parameters(model), "parameters": parameters(config), "recipe": recipe.name}
        answer({"stage": stage_dir.name, **shape, **vars(result), "optimizer": state, "folder": to})
    else:
        say(
            f"{stage_dir.name}: {count(parameters(model))} to {count(parameters(config))} parameters with "
            f"growth={recipe.name}",
            f"loss on {result.tokens} validation tokens: {result.loss_before:.6f} before, {result.loss_after:.6f} "
            f"after; largest logit difference {result.max_logit_difference:.3g} ({result.precision})",
            _state_words(state),
            str(to),
        )
    return 0


def _state_words(state: OptimizerState) -> str:
    if state.note:
        return f"note: {state.note}"
    origin = f"carried over, {state.updates:,} updates" if state.carried else "starts empty, as set by the recipe"
    return f"state of optimizer.name={state.child} ({', '.join(state.slots)}): {origin}"
