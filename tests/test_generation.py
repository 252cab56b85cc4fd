"""Tests of sampling: the cache, the context window, and the random choices."""

from itertools import pairwise

import pytest
import torch

from tfscale.models.cache import Cache
from tfscale.models.config import ModelConfig
from tfscale.models.generation import Reader, Sampling, draw, generate
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig

SHAPE = {"n_layer": 3, "d_model": 32, "n_head": 4, "vocab_size": 96, "context": 24}
ONE, TWO = (TokenGroup(24, 4.9),), (TokenGroup(20, 4.0), TokenGroup(12, 3.0))
CONFIGS: list[ModelConfig] = [
    TokenFormerConfig(**SHAPE, qkv=ONE, out=ONE, ffn=TWO, rotary=0.5),
    TokenFormerConfig(**SHAPE, qkv=TWO, out=TWO, ffn=TWO, rotary=0.0),
    TransformerConfig(**SHAPE, d_ff=64),
]


def a_model(config: ModelConfig) -> LanguageModel:
    model = build_model(config, seed=1)
    with torch.no_grad():  # initial values are so small that any two models agree
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(3)
    return model


def tokens_of(count: int) -> list[int]:
    return torch.randint(SHAPE["vocab_size"], (count,), generator=torch.Generator().manual_seed(0)).tolist()


@torch.inference_mode()
@pytest.mark.parametrize("config", CONFIGS, ids=["tokenformer", "no positions", "transformer"])
def test_logits_with_kept_keys_and_values_are_those_of_a_full_recompute(config: ModelConfig) -> None:
    model, tokens = a_model(config), tokens_of(24)
    whole = model(torch.tensor([tokens]))[0]
    assert whole.abs().max() > 0.1
    cache, made = Cache(config), []
    for start, stop in ((0, 7), (7, 8), (8, 9), (9, 15), (15, 24)):
        hidden = model.hidden(torch.tensor([tokens[start:stop]]), cache)
        made.append((hidden @ model.embedding.T)[0])
    assert (torch.cat(made) - whole).abs().max() < 1e-5
    assert cache.length == 24


@torch.inference_mode()
@pytest.mark.parametrize("config", CONFIGS, ids=["tokenformer", "no positions", "transformer"])
def test_beyond_the_context_the_window_slides_and_logits_are_those_of_what_it_shows(config: ModelConfig) -> None:
    model, tokens = a_model(config), tokens_of(70)
    reader, lengths = Reader(model), []
    for number, new in enumerate([tokens[:10], *([token] for token in tokens[10:])]):
        logits = reader.read(new)
        shown = reader.window
        assert shown == tokens[: 10 + number][-len(shown) :], "the last tokens, without a gap"
        assert (logits - model(torch.tensor([shown]))[0, -1]).abs().max() < 1e-5
        lengths.append(len(shown))
    assert max(lengths) == 24
    assert sum(after < before for before, after in pairwise(lengths)) == 4, "the window slides four times"
    assert lengths[14:17] == [24, 12, 13], "half a context stays"


def test_a_prompt_longer_than_the_context_is_seen_from_its_end() -> None:
    reader, tokens = Reader(a_model(CONFIGS[0])), tokens_of(40)
    reader.read(tokens)
    assert reader.window == tokens[-24:]


def test_a_text_is_the_same_for_the_same_seed_and_greedy_takes_the_likeliest() -> None:
    model, prompt = a_model(CONFIGS[0]), tokens_of(5)
    texts = [list(generate(model, prompt, 40, Sampling(seed=seed))) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    reader, seen = Reader(model), [*prompt]
    for token in generate(model, prompt, 10, Sampling(temperature=0)):
        assert token == int(reader.read(seen if seen == prompt else seen[-1:]).argmax())
        seen.append(token)


def test_top_k_and_top_p_leave_the_likeliest_tokens_in_their_own_proportions() -> None:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()

    def shares(sampling: Sampling) -> list[float]:
        random = torch.Generator().manual_seed(0)
        drawn = torch.tensor([draw(logits.clone(), sampling, random) for _ in range(4000)])
        return [round((drawn == token).float().mean().item(), 1) for token in range(4)]

    assert shares(Sampling(temperature=1)) == [0.1, 0.4, 0.3, 0.2]
    assert shares(Sampling(temperature=1, top_k=2)) == [0.0, 0.6, 0.4, 0.0]
    assert shares(Sampling(temperature=1, top_p=0.69)) == [0.0, 0.6, 0.4, 0.0], "0.4 is too little, 0.7 is enough"
    assert shares(Sampling(temperature=1, top_p=0.01)) == [0.0, 1.0, 0.0, 0.0], "one always stays"
    assert shares(Sampling(temperature=1, top_k=3, top_p=0.5)) == [0.0, 0.6, 0.4, 0.0], "of the three that k leaves"


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0},
                                   {"top_p": 1.5}])  # fmt: skip
def test_settings_of_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
