"""Description of an experiment in MLflow's web interface, and a shared view with charts of perplexity over compute.

MLflow stores shared views as JSON in the tags of an experiment.
"""

import json
from typing import Any

from tfscale.tracking.mlflow.metrics import CURVE, ENDPOINTS

SHARED = "tfscale"
NOTE = "mlflow.note.content"
"""Tag whose value is shown as Markdown above a run or an experiment."""
_KIND = "mlflow.experimentKind"
"""Tag for the kind of an experiment. Without this tag, MLflow shows its page for language-model applications."""
_SECTION = "perplexity-over-compute"
_COLUMNS = ("tags.`tfscale.growth`", "metrics.`final/perplexity`", "metrics.`final/flops`", "metrics.`final/tokens`",
            "params.`parameters`")  # fmt: skip


def experiment_tags() -> dict[str, str]:
    """Return the MLflow tags that contain the description and the shared view of an experiment. They are the same for
    all experiments."""
    note = (
        "This experiment has one run for each seed of an arm, with a child run for each stage. In the charts "
        f"`{ENDPOINTS}` and `{CURVE}`, the step is the cumulative model GFLOPs, including those of parent stages. "
        "Lower and further left is better. The run of the comparison contains the figure, the tables and the verdicts."
    )
    return {NOTE: note, _KIND: "custom_model_development", f"mlflow.sharedViewState.{SHARED}": json.dumps(_view())}


def view_url(page: str, experiment_id: str) -> str:
    """Return the URL of the shared view of an experiment. `page` is the URL of the web interface, such as
    http://127.0.0.1:5000."""
    return f"{page}/#/experiments/{experiment_id}/runs?viewStateShareKey={SHARED}&compareRunsMode=CHART"


def _view() -> dict[str, Any]:
    section = {"uuid": _SECTION, "name": "Perplexity over compute", "display": True, "isReordered": True}
    return {
        "selectedColumns": list(_COLUMNS),
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "isAccordionReordered": True,
        "compareRunSections": [{**section, "deleted": False, "isGenerated": False, "columns": 2, "cardHeight": 430}],
        "compareRunCharts": [_chart(metric) for metric in (ENDPOINTS, CURVE)],
    }


def _chart(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "uuid": metric,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        "metricKey": metric,
        "xAxisKey": "step",
        "xAxisScaleType": "log",
        "scaleType": "linear",
        "useGlobalXaxisKey": False,
        "lineSmoothness": 0,
        "displayPoints": True,
        "range": {},
    }
