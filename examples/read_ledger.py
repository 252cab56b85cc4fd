"""Print the costs of a finished chain and draw its curve: `python examples/read_ledger.py curve.png schedule=...`.

The script reads only the folders of the stages. After the name of the picture, pass the settings of `tfscale run`.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from tfscale.config.compose import compose
from tfscale.plan.plan import make_plan
from tfscale.stage.events import read_events
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import read_result


def main(picture: Path, overrides: list[str]) -> None:
    """Print the perplexity and cost of each finished stage, and draw validation perplexity over cumulative compute."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for stage in make_plan(compose(overrides)).chain.stages:
        if not (stage.path / "done.json").exists():
            continue
        result, growth = read_result(stage.path), read_growth(stage.path)
        cost = f"{result.totals.flops:.3g} FLOPs and {result.totals.device_seconds:.0f} device-seconds in total"
        print(f"{stage.size}: perplexity {result.evaluation.perplexity:.3f} at {cost}")
        if growth and growth["comparison"]:
            losses = growth["comparison"]
            print(f"  its growth: loss {losses['loss_before']:.4f} before, {losses['loss_after']:.4f} after")
        readings = [event for event in read_events(stage.path) if event["event"] == "eval"]
        axes.plot(
            [event["total_flops"] for event in readings],
            [event["perplexity"] for event in readings],
            marker=".",
            label=stage.size,
        )
    axes.set_xlabel("cumulative FLOPs including the base")
    axes.set_ylabel("validation perplexity")
    axes.legend()
    figure.savefig(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
