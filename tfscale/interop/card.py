"""Model card (README.md) of an exported folder: description, origin, cost and quality of the model.

The text is in templates/card.md.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tfscale.interop.finished import FinishedStage
from tfscale.interop.sources import release
from tfscale.models.counts import parameters
from tfscale.models.tokenformer import number_of_groups
from tfscale.stage.evaluations import read_evaluations


def model_card(stages: Sequence[FinishedStage]) -> str:
    """Return the model card of a stage as Markdown.

    Args:
        stages: the stage, preceded by its ancestors, oldest first.
    """
    stage = stages[-1]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701 (Markdown, not HTML)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md").render(
        stages=stages,
        stage=stage,
        model=stage.model,
        groups=number_of_groups(stage.spec.model),
        evaluation=stage.evaluation,
        entries=[] if stage.groups else read_evaluations(stage.folder),
        imported=any(each.spec.init_from is not None for each in stages),
        parameters=parameters,
        release=release(),
    )
