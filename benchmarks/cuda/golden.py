"""Part `golden`, which computes logits and gradients in every precision and compares them with stored values of the
official code."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.cuda.check import ROOT, Check
from tfscale.doctor.agreement import GRADIENTS, OUTPUTS, gradients, relative, worst
from tfscale.interop.official import official_name
from tfscale.models.generation import Reader
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.stage.run_options import Precision

GOLDEN = ROOT / "tests" / "golden" / "official_tiny"
PROMPT, CONTINUATION = 9, 4
"""Number of prompt tokens, which the model reads at once, and of following tokens, which it reads one by one."""


@dataclass(frozen=True)
class Case:
    """Precision and mode in which the stored values are recomputed."""

    precision: Precision
    compiled: bool = False
    grown: bool = False
    """True for the official model after a growth, for which only logits are stored."""

    def __str__(self) -> str:
        return f"{'grown ' * self.grown}{self.precision} {'compiled' if self.compiled else 'eager'}"


CASES = (
    Case("fp32"),
    Case("bf16"),
    Case("bf16", compiled=True),
    Case("fp32", compiled=True),
    Case("tf32"),
    Case("fp32", grown=True),
)


def golden(check: Check) -> None:
    """Compare results on the device with the stored values."""
    for case in CASES:
        found = check.record.attempt(str(case), partial(_errors, check, case))
        if found:
            check.record.bounded(f"{case}: logits", found["logits"], OUTPUTS[case.precision])
        if "gradients" in found:
            check.record.bounded(f"{case}: gradients", found["gradients"], GRADIENTS[case.precision])
    found = check.record.attempt("generation", partial(_generation, check))
    if found:
        check.record.bounded("generation: logits with a cache", found["logits"], OUTPUTS["fp32"])


def _errors(check: Check, case: Case) -> Mapping[str, Any]:
    check.reset()
    model = _official_model(check, case.grown)
    if case.compiled:
        check.compile_parts(model)
    torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
    inputs = load_file(GOLDEN / "expected.safetensors")["input_ids"].long().to(check.device)
    expected = load_file(GOLDEN / f"{'grown_' * case.grown}expected.safetensors")
    with torch.no_grad(), check.autocast(case.precision == "bf16"):
        logits = relative(model(inputs), expected["logits"])
    if case.grown:
        return {"logits": logits}
    with check.autocast(case.precision == "bf16"):
        loss = model.loss(inputs, expected["targets"].long().to(check.device))
    loss.backward()
    found = gradients(model)
    error, where = worst(found, {name: expected[f"grad.{official_name(name, model.config)}"] for name in found})
    check.confirm(case.compiled, case.precision == "bf16", error)
    off = abs(loss.item() - expected["loss"].item())
    return {"logits": logits, "loss_error": off, "gradients": error, "worst_gradient": where}


def _official_model(check: Check, grown: bool) -> LanguageModel:
    tokens = (112, 104, 448) if grown else (48, 40, 160)
    qkv, out, ffn = ((TokenGroup(n, default_tau("l2_norm_gelu", n)),) for n in tokens)
    config = TokenFormerConfig(n_layer=2, d_model=64, n_head=4, vocab_size=512, context=64, qkv=qkv, out=out, ffn=ffn)
    weights = torch.load(GOLDEN / f"{'grown_' * grown}pytorch_model.bin", weights_only=True)
    model = build_model(config, device=check.device)
    names = {official_name(name, config): name for name, _ in model.named_parameters()}
    model.load_state_dict({names[name]: tensor.float() for name, tensor in weights.items()})
    return model


def _generation(check: Check) -> Mapping[str, Any]:
    """Compare logits computed token by token with a cache to those of one forward pass."""
    torch.set_float32_matmul_precision("highest")
    model = _official_model(check, grown=False)
    tokens = [*range(PROMPT + CONTINUATION)]
    reader = Reader(model)
    logits = reader.read(tokens[:PROMPT])
    for token in tokens[PROMPT:]:
        logits = reader.read([token])
    with torch.no_grad():
        expected = model(torch.tensor([tokens], device=check.device))[0, -1]
    return {"logits": relative(logits, expected)}
