"""Ablations that attribute the difference between a TokenFormer and a Transformer of the same size.

    python -m studies.attribution docs/measurements/attribution [KEY=VALUE ...]

Models of every size of `progressive_tiny` are trained from scratch with as many tokens as the TokenFormer of that size.
Each row after the first two changes one thing: block norms with gains; a fixed scale in place of the L2 norm across the
parameter tokens; the initial scale of the embedding; projections of rank n >= d_model at the first size; or the width
of the residual stream, which is 32 in every TokenFormer of the schedule, whereas the Transformers have up to 96. The
study takes a quarter of an hour on two cores; finished models are not trained again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studies.tables import page, run_study, table
from studies.training import loss_of, planned, prepare, train_all
from tfscale.models.block import Block
from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.models.families import FAMILIES
from tfscale.models.matrices import is_block_matrix
from tfscale.models.parameter_tokens import total
from tfscale.models.pattention import Pattention, QKVPattention
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig
from tfscale.plan.plan import Plan
from tfscale.plan.specs import Specs
from tfscale.stage.folder import Stage


@FAMILIES.register("tokenformer_gains")
@dataclass(frozen=True)
class WithGains(TokenFormerConfig):
    """TokenFormer whose block norms have gains."""

    family: ClassVar[str] = "tokenformer_gains"
    title: ClassVar[str] = "TokenFormer, block norms with gains"

    def build_block(self) -> nn.Module:
        block = super().build_block()
        assert isinstance(block, Block)
        return Block(self.d_model, self.n_head, block.attention.qkv, block.attention.output, block.ffn, norm_gains=True)

    @property
    def block_vectors(self) -> int:
        return 2 * self.d_model


@FAMILIES.register("tokenformer_fixed_scale")
@dataclass(frozen=True)
class WithFixedScale(TokenFormerConfig):
    """TokenFormer without the L2 norm across parameter tokens. Scores are divided by their RMS at initialisation."""

    family: ClassVar[str] = "tokenformer_fixed_scale"
    title: ClassVar[str] = "TokenFormer, fixed scale instead of the L2 norm"

    def build_block(self) -> nn.Module:
        block = super().build_block()
        assert isinstance(block, Block)
        scale = 1 / (self.init_std("keys.keys") * self.d_model**0.5)
        qkv, output, ffn = block.attention.qkv, block.attention.output, block.ffn
        assert isinstance(qkv, QKVPattention)
        parts = [FixedScale(part, scale) for part in (qkv.query, qkv.key, qkv.value, output, ffn)]
        return Block(self.d_model, self.n_head, Stacked(*parts[:3]), parts[3], parts[4], norm_gains=False)


@FAMILIES.register("tokenformer_large_embedding")
@dataclass(frozen=True)
class WithLargeEmbedding(TokenFormerConfig):
    """TokenFormer whose embedding has the initial scale of the Transformer's embedding instead of 0.02."""

    family: ClassVar[str] = "tokenformer_large_embedding"
    title: ClassVar[str] = "TokenFormer, embedding initialised as the Transformer's"

    def init_std(self, name: str) -> float:
        return super().init_std(name) if is_block_matrix(name, 2) else (2 / (5 * self.d_model)) ** 0.5


class FixedScale(nn.Module):
    """Pattention with the weights GELU(scale * x K^T) in place of Eq. 4 of the paper."""

    def __init__(self, part: nn.Module, scale: float) -> None:
        super().__init__()
        assert isinstance(part, Pattention)
        self.scale, self.keys, self.values = scale, part.keys, part.values

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.scale * (x @ self.keys.T)) @ self.values


class Stacked(nn.Module):
    """Query, key and value projections, whose outputs are stacked [..., 3, d_model]."""

    def __init__(self, query: nn.Module, key: nn.Module, value: nn.Module) -> None:
        super().__init__()
        self.query, self.key, self.value = query, key, value

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.query(x), self.key(x), self.value(x)], dim=-2)


def variants(plan: Plan) -> Iterator[tuple[str, Stage]]:
    """Yield the title and the stage of each model to train, at the learning rate of the scratch arm of its family."""
    arms = {arm.name: arm.stages for arm in plan.arms}
    for place in range(len(arms["tokenformer_scratch"])):
        token, linear = arms["tokenformer_scratch"][place], arms["transformer_scratch"][place]
        ours, theirs = token.spec.model, linear.spec.model
        assert isinstance(ours, TokenFormerConfig)
        assert isinstance(theirs, TransformerConfig)
        linear = _changed(plan, linear, theirs, token.spec.tokens)
        yield "Transformer", linear
        yield "TokenFormer", token
        yield WithGains.title, _changed(plan, token, _as(ours, WithGains))
        yield WithFixedScale.title, _changed(plan, token, _as(ours, WithFixedScale))
        yield WithLargeEmbedding.title, _changed(plan, token, _as(ours, WithLargeEmbedding))
        if total(ours.qkv) < ours.d_model:
            full = ours.with_tokens((ours.d_model, ours.d_model, ours.tokens[2]))
            yield f"TokenFormer, {ours.d_model} tokens per attention projection", _changed(plan, token, full)
        if theirs.d_model > ours.d_model:
            d = ours.d_model
            d_ff = round((ours.block_matrices - 4 * d * d) / (2 * d))
            narrow = replace(theirs, d_model=d, n_head=ours.n_head, d_ff=d_ff)
            yield f"Transformer, width {d} and feed-forward width {d_ff}", _changed(plan, linear, narrow)
            n = round(theirs.block_matrices / (16 * theirs.d_model))
            wide = replace(ours, d_model=theirs.d_model, n_head=theirs.n_head).with_tokens((n, n, 4 * n))
            yield f"TokenFormer, width {theirs.d_model} and {n} tokens", _changed(plan, token, wide)


def _as(config: TokenFormerConfig, kind: type[TokenFormerConfig]) -> TokenFormerConfig:
    return kind(**vars(config))


def _changed(plan: Plan, stage: Stage, model: ModelConfig, tokens: int | None = None) -> Stage:
    spec = replace(stage.spec, model=model, label=model.family)
    return Specs(plan.experiment, plan.corpus).stage(stage.size, replace(spec, tokens=tokens or spec.tokens))


def study(overrides: list[str]) -> str:
    """Train all variants, and return their losses as a page."""
    plan = prepare(planned(["schedule=progressive_tiny", "baseline=scratch", *overrides]))
    stages = list(variants(plan))
    train_all([(stage,) for _, stage in stages])
    transformers = {stage.size: loss_of(stage) for title, stage in stages if title == "Transformer"}
    rows = [
        (
            stage.size,
            title,
            f"{parameters(stage.spec.model):,}",
            f"{loss_of(stage):.4f}",
            f"{loss_of(stage) - transformers[stage.size]:+.3f}",
        )
        for title, stage in stages
    ]
    note = (
        "Validation loss in nats per token at equal tokens, at the learning rate of the schedule. One seed; "
        "differences below about 0.02 are noise."
    )
    head = ["Size", "Model", "Parameters", "Loss", "Minus the Transformer"]
    return page("TokenFormer and Transformer, one difference at a time", table("llr", head, rows), note)


if __name__ == "__main__":
    run_study(study)
