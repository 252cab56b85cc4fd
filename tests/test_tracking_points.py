"""Events as points, and points as MLflow metrics."""

from tfscale.stage.events import Event
from tfscale.tracking.mlflow.metrics import CURVE, key_and_step
from tfscale.tracking.points import FINAL_PERPLEXITY, PERPLEXITY, Point, curve_points, end_points, stage_points


def train(step: int, **values: float | None) -> Event:
    return {"event": "train", "step": step, "time": 10.0 + step, "loss": 2.0, **totals(step), **values}


def evaluation(step: int, perplexity: float, flops_a_step: float = 2e9) -> Event:
    measures = {"perplexity": perplexity, "heldout_tokens": 512, "heldout_bytes": 900}
    return {"event": "eval", "step": step, "time": 10.5 + step, **totals(step, flops_a_step), **measures}


def totals(step: int, flops_a_step: float = 2e9) -> dict[str, float]:
    return {"tokens": 100 * step, "total_tokens": 7000 + 100 * step, "total_flops": flops_a_step * step}


def test_measurements_stand_at_the_tokens_of_the_lineage_and_at_their_own_time() -> None:
    points = stage_points([train(3, lr=0.1)])
    assert Point("train/loss", "tokens", 7300, 2.0, 13_000) in points
    assert Point("train/lr", "tokens", 7300, 0.1, 13_000) in points
    assert Point("total/flops", "tokens", 7300, 6e9, 13_000) in points


def test_what_is_no_measurement_is_left_out() -> None:
    points = stage_points([train(3, tokens_per_second=None), evaluation(3, 9.0), {"event": "start", "time": 1.0}])
    names = {point.name for point in points}
    assert names == {"train/loss", "heldout/perplexity", "total/tokens", "total/flops"}


def test_totals_that_an_evaluation_shares_with_a_log_line_are_given_once() -> None:
    points = stage_points([train(3), evaluation(3, 9.0)])
    assert [point.time for point in points if point.name == "total/flops"] == [13_000]


def test_the_curve_is_over_model_flops() -> None:
    assert curve_points([train(1), evaluation(3, 9.0)]) == [Point(PERPLEXITY, "flops", 6e9, 9.0, 13_500)]


def test_in_mlflow_the_step_is_tokens_or_gflops() -> None:
    (point,) = curve_points([evaluation(3, 9.0)])
    assert key_and_step(point) == (CURVE, 6)
    assert key_and_step(point._replace(name="eval/my: text/acc", over="tokens")) == ("eval/my_ text/acc", 6_000_000_000)


def test_a_stage_ends_with_its_last_evaluation() -> None:
    last = Point(FINAL_PERPLEXITY, "flops", 4e9, 8.0, 12_500)
    assert list(end_points([evaluation(1, 9.0), evaluation(2, 8.0), train(2)], [])) == [last]
    assert not list(end_points([train(2)], []))
