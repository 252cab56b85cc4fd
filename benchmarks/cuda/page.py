"""Documentation page with the findings of a check on one device."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import harmonic_mean

from benchmarks.cuda.findings import KERNELS, MACHINE, Bounded, Failed, Finding, Measured, read
from benchmarks.cuda.steps import SEQUENCES, TRITON
from benchmarks.cuda.summary import table
from benchmarks.step import OFFICIAL
from tfscale.bench.trained import OURS, TRANSFORMER
from tfscale.config.folders import conf_dir
from tfscale.plan.devices import facts, peak
from tfscale.text import gigabytes

TITLES = {
    OURS.name: "TokenFormer",
    TRANSFORMER.name: "Transformer",
    TRITON.name: "TokenFormer, Triton kernels",
    OFFICIAL.name: "official order",
}
KERNELS_SHOWN = 8
PRECISION = "bf16"


def write_page(out: Path, folder: Path) -> Path:
    """Write FOLDER/cuda_<device>.md and return its path.

    Raises:
        ValueError: the findings are not from a check of the full sizes on a GPU.
    """
    findings = read(out)
    measured = {(each.part, each.name): each for each in findings if isinstance(each, Measured)}
    machine = next((each.figures for each in measured.values() if each.name == MACHINE), None)
    if machine is None or machine["sizes"] != "full" or machine["device"] == "cpu":
        raise ValueError(f"{out}: must contain the findings of `check` on a GPU in full sizes")
    device = str(machine["device"])
    steps = [
        (size, who, measured[f"step_{size}", who].figures)
        for size in SEQUENCES
        for who in TITLES
        if (f"step_{size}", who) in measured
    ]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("commit", "torch", "cuda", "cudnn", "python"))
    lines = [f"# {device}", "", f"Measured by `benchmarks/cuda_check.py` with {versions}.", ""]
    lines += [*_steps(device, steps), *_mfu(device, steps), *_chain(measured), *_faults(findings), *_kernels(steps)]
    path = folder / f"cuda_{re.sub(r'[^a-z0-9]+', '_', device.lower()).strip('_')}.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


Step = tuple[str, str, dict[str, float]]
"""Name of a size, name of an implementation, and the figures of a training step."""


def _steps(device: str, steps: Sequence[Step]) -> Iterator[str]:
    speed = {(size, who): figures.get("tokens_per_second") for size, who, figures in steps}
    rows = []
    for size, who, figures in steps:
        if "tokens_per_second" not in figures:
            rows.append([size, TITLES[who], "does not fit", "", "", "", ""])
            continue
        other = speed.get((size, TRANSFORMER.name))
        share = _mfu_of(device, figures)
        rows.append([
            size,
            TITLES[who],
            f"{figures['tokens_per_second']:,.0f}",
            f"{figures['tokens_per_second'] / other:.2f}" if other else "",
            f"{share:.1%}" if share else "unknown",
            gigabytes(figures["peak_bytes"]),
            gigabytes(figures["planned_bytes"]),
        ])  # fmt: skip
    head = ("size", "model", "tokens/s", "/ Transformer", "MFU", "peak memory", "planned")
    yield from table("Training steps", head, rows)


def _mfu_of(device: str, figures: dict[str, float]) -> float | None:
    top = peak(device, PRECISION)
    return 1e12 * figures["tflops"] / top if top else None


def _mfu(device: str, steps: Sequence[Step]) -> Iterator[str]:
    """Yield lines that state the MFU to set in conf/device. The stages of the published chain need similar numbers of
    FLOPs, so their total time follows from the harmonic mean of their MFU."""
    shares = [
        share
        for _, who, figures in steps
        if who == OURS.name and "tflops" in figures and (share := _mfu_of(device, figures))
    ]
    known = facts(device)
    if known is None or not shares:
        yield from (f"No file in conf/device names {device}. Add one with its peaks, and write this page again.", "")
        return
    files = (conf_dir() / "device").glob("*.yaml")
    file = next(file.name for file in files if device in file.read_text(encoding="utf-8"))
    yield f"Set `mfu: {harmonic_mean(shares):.2f}` in conf/device/{file}, which now has {known.mfu:g}. This is the"
    yield from ("harmonic mean of the TokenFormer's MFU above. Then recompute docs/full_size.md.", "")


def _chain(measured: dict[tuple[str, str], Measured]) -> Iterator[str]:
    rows = [
        [name, f"{each.figures['perplexity']:.3f}", f"{each.figures['flops_of_lineage']:.3g}",
         f"{each.figures['tokens_per_second']:,.0f}"]
        for (part, name), each in measured.items()
        if part == "compute"
    ]  # fmt: skip
    if rows:
        yield from table("A chain to 59M parameters", ("stage", "perplexity", "cumulative FLOPs", "tokens/s"), rows)


def _faults(findings: Sequence[Finding]) -> Iterator[str]:
    bounds = [each for each in findings if isinstance(each, Bounded)]
    rows = [[each.part, each.name, f"{each.value:.3g}, bound {each.bound:.3g}"] for each in bounds if not each.ok]
    rows += [[each.part, each.name, each.error] for each in findings if isinstance(each, Failed)]
    if rows:
        yield from table("Broken bounds and failures", ("part", "measurement", "result"), rows)
    yield from (f"{sum(each.ok for each in bounds)} of {len(bounds)} bounds are met.", "")


def _kernels(steps: Sequence[Step]) -> Iterator[str]:
    for size, who, figures in steps:
        kernels: Sequence[tuple[str, int, float]] = figures.get(KERNELS, ())  # type: ignore[assignment]
        if kernels:
            rows = [[str(calls), f"{time:.2f}", f"`{name}`"] for name, calls, time in kernels[:KERNELS_SHOWN]]
            yield from table(f"Longest kernels of a step: {TITLES[who]}, {size}", ("calls", "ms", "kernel"), rows)
