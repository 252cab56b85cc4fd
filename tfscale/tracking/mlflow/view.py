"""Description of an experiment on MLflow's page, and a view of it with perplexity over compute.

MLflow's page keeps shared views as JSON in the experiment's tags. This view opens with
`/#/experiments/ID/runs?viewStateShareKey=tfscale&compareRunsMode=CHART`.
"""

import json
from typing import Any

from tfscale.tracking.mlflow.metrics import CURVE, ENDPOINTS

SHARED = "tfscale"
NOTE = "mlflow.note.content"
"""Tag whose value is shown above a run or an experiment, as Markdown."""
_KIND = "mlflow.experimentKind"
"""Tag without which MLflow shows its page for language-model applications."""
_SECTION = "perplexity-over-compute"
_COLUMNS = ("tags.`tfscale.growth`", "metrics.`final/perplexity`", "metrics.`final/flops`", "metrics.`final/tokens`",
            "params.`parameters`")  # fmt: skip


def experiment_tags() -> dict[str, str]:
    """Return the tags that every experiment has."""
    note = (
        "One run for each arm, and below it one for each of its stages. In the charts "
        f"`{ENDPOINTS}` and `{CURVE}` the step is the model GFLOPs spent up to there, parents included: lower and "
        "further left is better. The run called comparison has the figure, the tables and the verdicts."
    )
    return {NOTE: note, _KIND: "custom_model_development", f"mlflow.sharedViewState.{SHARED}": json.dumps(_view())}


def view_url(page: str, experiment_id: str) -> str:
    """Return the URL of the view on a page such as http://127.0.0.1:5000."""
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
