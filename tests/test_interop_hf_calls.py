"""Tests of an exported model as transformers and its users call it: caches, padding, packing, beams, outputs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from finished import finished, overrides_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

import tfscale.interop.hf as hf
from tfscale.interop.export import export
from tfscale.interop.finished import model_of, open_finished
from tfscale.interop.hf_model import CACHE_NAME
from tfscale.models.language_model import LanguageModel
from tfscale.models.rotary import rotary_table

CACHE_NAMES = ("cache", "past_key_values")
CLOSE = 1e-5


@pytest.fixture(scope="module", params=["tokenformer", "transformer"])
def models(
    request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LanguageModel, hf.TfscaleForCausalLM]:
    """A grown TokenFormer and a Transformer, each as our model and as loaded by transformers from its exported
    folder."""
    torch.set_num_threads(1)
    plan = finished(overrides_of(corpus, tmp_path_factory.mktemp("runs")))
    which = plan.chain.stages[1] if request.param == "tokenformer" else plan.baselines[0].stages[0]
    stage = open_finished(which.path)
    out = tmp_path_factory.mktemp("out") / "exported"
    export(stage, out)
    return model_of(stage), AutoModelForCausalLM.from_pretrained(out)


@pytest.fixture(scope="module")
def ours(models: tuple[LanguageModel, hf.TfscaleForCausalLM]) -> LanguageModel:
    return models[0]


@pytest.fixture(scope="module")
def theirs(models: tuple[LanguageModel, hf.TfscaleForCausalLM]) -> hf.TfscaleForCausalLM:
    return models[1]


def some_tokens(batch: int, time: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(1, 300, (batch, time), generator=torch.Generator().manual_seed(seed))


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def padded(rows: list[torch.Tensor], width: int, left: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows as one batch, each after `left` tokens of padding, and the mask of the batch."""
    tokens, mask = torch.zeros(len(rows), width, dtype=torch.int64), torch.zeros(len(rows), width, dtype=torch.int64)
    for number, (row, start) in enumerate(zip(rows, left, strict=True)):
        tokens[number, start : start + len(row)] = row
        mask[number, start : start + len(row)] = 1
    return tokens, mask


def test_logits_and_loss_are_ours(ours: LanguageModel, theirs: hf.TfscaleForCausalLM) -> None:
    tokens = some_tokens(3, 32)
    with torch.inference_mode():
        logits, answer = ours(tokens), theirs(tokens, labels=tokens)
        assert apart(answer.logits, logits) < CLOSE
        assert answer.loss.item() == pytest.approx(ours.loss(tokens[:, :-1], tokens[:, 1:]).item(), abs=CLOSE)
        assert apart(theirs(tokens, logits_to_keep=2).logits, logits[:, -2:]) < CLOSE
        assert apart(theirs(tokens, logits_to_keep=torch.tensor([3, 30])).logits, logits[:, [3, 30]]) < CLOSE
        halves = theirs(tokens, labels=tokens, num_items_in_batch=2 * 3 * 31).loss
        assert halves.item() == pytest.approx(answer.loss.item() / 2, abs=CLOSE)
        hidden = tokens.clone()
        hidden[:, :16] = -100
        late = cross_entropy(logits[:, 15:-1].flatten(0, 1), tokens[:, 16:].flatten())
        assert theirs(tokens, labels=hidden).loss.item() == pytest.approx(late.item(), abs=CLOSE)


@pytest.mark.parametrize("name", CACHE_NAMES)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@given(cuts=st.lists(st.integers(1, 23), max_size=4, unique=True))
@settings(max_examples=8)
def test_a_text_that_is_read_in_parts_through_either_name_of_the_cache_is_the_text_read_at_once(
    theirs: hf.TfscaleForCausalLM, name: str, kind: str, cuts: list[int]
) -> None:
    tokens = some_tokens(2, 24)
    cache = DynamicCache() if kind == "dynamic" else StaticCache(config=theirs.config, max_cache_len=30)
    ends, logits = [*sorted(cuts), 24], []
    with torch.inference_mode():
        for start, end in zip([0, *ends], ends, strict=False):
            answer = theirs(tokens[:, start:end], **{name: cache})
            assert answer[CACHE_NAME] is cache, "the cache has the name of the installed transformers"
            logits.append(answer.logits)
        assert apart(torch.cat(logits, dim=1), theirs(tokens, use_cache=False).logits) < CLOSE


def test_a_model_makes_a_cache_of_its_own_unless_told_not_to_or_in_training(theirs: hf.TfscaleForCausalLM) -> None:
    tokens = some_tokens(1, 5)
    assert theirs(tokens)[CACHE_NAME].get_seq_length() == 5
    assert CACHE_NAME not in theirs(tokens, use_cache=False)
    theirs.train()
    try:
        assert CACHE_NAME not in theirs(tokens)
    finally:
        theirs.eval()


@pytest.mark.parametrize(
    "unknown", ["past", "caches", "past_key_value", "head_mask", "token_type_ids", "attention_masks", "use_caches"]
)
def test_an_unknown_argument_is_refused_by_name(theirs: hf.TfscaleForCausalLM, unknown: str) -> None:
    with pytest.raises(
        TypeError, match=rf"unexpected arguments: {unknown}; allowed: input_ids, .*\bcache, past_key_values,.*"
    ):
        theirs(some_tokens(1, 5), **{unknown: torch.ones(1, 5)})
    with pytest.raises((TypeError, ValueError), match=unknown):
        theirs.generate(some_tokens(1, 5), max_new_tokens=2, **{unknown: torch.ones(1, 5)})


def test_arguments_that_contradict_each_other_or_the_model_are_refused(theirs: hf.TfscaleForCausalLM) -> None:
    tokens = some_tokens(2, 5)
    with pytest.raises(TypeError, match="two names of one argument"):
        theirs(tokens, cache=DynamicCache(), past_key_values=DynamicCache())
    with pytest.raises(ValueError, match="inputs_embeds"):
        theirs(tokens, inputs_embeds=torch.zeros(2, 5, 16))
    with pytest.raises(ValueError, match="output_attentions"):
        theirs(tokens, output_attentions=True)
    cache = theirs(tokens)[CACHE_NAME]
    for mask in (torch.ones(2, 4), torch.ones(1, 5), torch.ones(2, 6)):
        with pytest.raises(ValueError, match=r"attention_mask: must have shape \[2, 5\], for 0 cached and 5 new"):
            theirs(tokens, attention_mask=mask)
    with pytest.raises(ValueError, match=r"attention_mask: must have shape \[2, 6\], for 5 cached and 1 new"):
        theirs(tokens[:, :1], attention_mask=torch.ones(2, 1), **{CACHE_NAME: cache})


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        {"do_sample": True, "top_k": 20, "temperature": 1.3},
        {"do_sample": False, "num_beams": 3},
        {"do_sample": True, "num_beams": 2},
        {"do_sample": False, "num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
        {"do_sample": False, "cache_implementation": "static"},
    ],
    ids=str,
)
@pytest.mark.parametrize("pads", [False, True], ids=["whole", "padded"])
def test_generation_with_a_cache_is_generation_with_a_full_recompute(
    theirs: hf.TfscaleForCausalLM, how: dict[str, Any], pads: bool
) -> None:
    tokens = some_tokens(2, 9)
    mask = torch.ones_like(tokens)
    if pads:
        tokens, mask = padded([tokens[0], tokens[1, :4]], 9, [0, 5])
    answers = []
    for cached in (True, False):
        each = how if cached else {name: how[name] for name in how if name != "cache_implementation"}
        torch.manual_seed(0)
        answers.append(theirs.generate(tokens, attention_mask=mask, max_new_tokens=16, use_cache=cached, **each))
    assert torch.equal(*answers)
    assert answers[0].shape[1] == tokens.shape[1] + 16


def test_speculation_from_the_prompt_writes_what_is_written_without_it(theirs: hf.TfscaleForCausalLM) -> None:
    """Speculative decoding crops the cache after a wrong guess."""
    for seed in range(4):
        tokens = some_tokens(1, 4, seed).repeat(1, 3)
        plain = theirs.generate(tokens, max_new_tokens=17, do_sample=False, use_cache=False)
        made = theirs.generate(tokens, max_new_tokens=16, do_sample=False, prompt_lookup_num_tokens=3)
        assert abs(made.shape[1] - (12 + 16)) <= 1, "transformers 5.0 may stop one token early or late"
        assert torch.equal(made, plain[:, : made.shape[1]])


def test_the_logits_of_generation_are_those_of_a_full_recompute(theirs: hf.TfscaleForCausalLM) -> None:
    how = {"max_new_tokens": 20, "output_logits": True, "return_dict_in_generate": True, "do_sample": False}
    fast, slow = (theirs.generate(some_tokens(2, 9), use_cache=cached, **how) for cached in (True, False))
    assert torch.equal(fast.sequences, slow.sequences)
    for a, b in zip(fast.logits, slow.logits, strict=True):
        assert apart(a, b) < CLOSE


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    lefts=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    cached=st.booleans(),
    positions=st.booleans(),
    new=st.integers(0, 3),
)
@settings(max_examples=25)
def test_padding_on_any_side_changes_no_real_tokens_logits(
    theirs: hf.TfscaleForCausalLM, lengths: list[int], lefts: list[int], cached: bool, positions: bool, new: int
) -> None:
    """The text is read at once, or with its last `new` columns through the cache."""
    rows = [some_tokens(1, length, seed)[0] for seed, length in enumerate(lengths)]
    lefts = lefts[: len(rows)]
    width = max(left + len(row) for left, row in zip(lefts, rows, strict=True))
    tokens, mask = padded(rows, width, lefts)
    first = width - new if cached and new < width else width
    ids = (mask.cumsum(-1) - 1).clamp(min=0) if positions else None
    logits = []
    with torch.inference_mode():
        held = {CACHE_NAME: DynamicCache()} if cached else {}
        for start, end in ((0, first), (first, width)):
            if start < end:
                where = None if ids is None else ids[:, start:end]
                answer = theirs(tokens[:, start:end], mask[:, :end], where, use_cache=cached, **held)
                logits.append(answer.logits)
        for number, (row, left) in enumerate(zip(rows, lefts, strict=True)):
            alone = theirs(row[None], use_cache=False).logits[0]
            assert apart(torch.cat(logits, dim=1)[number, left : left + len(row)], alone) < CLOSE


def test_a_padded_batch_generates_what_each_row_does_alone(theirs: hf.TfscaleForCausalLM) -> None:
    rows = [some_tokens(1, length, length)[0] for length in (3, 7, 10)]
    tokens, mask = padded(rows, 10, [7, 3, 0])
    for how in ({"num_beams": 1}, {"num_beams": 2}):
        made = theirs.generate(tokens, attention_mask=mask, max_new_tokens=6, do_sample=False, **how)
        for number, row in enumerate(rows):
            alone = theirs.generate(row[None], max_new_tokens=6, do_sample=False, **how)
            assert torch.equal(made[number, 10:], alone[0, len(row) :])


def test_a_mask_of_pairs_is_taken_as_it_is(theirs: hf.TfscaleForCausalLM) -> None:
    tokens = some_tokens(2, 6)
    pairs = torch.ones(6, 6, dtype=torch.bool).tril()[None, None].expand(2, 1, 6, 6)
    added = torch.zeros(2, 1, 6, 6).masked_fill(~pairs, torch.finfo(torch.float32).min)
    with torch.inference_mode():
        for mask in (pairs, added):
            assert apart(theirs(tokens, mask).logits, theirs(tokens).logits) < CLOSE


def test_positions_are_those_that_are_given_and_count_on_from_the_cache(theirs: hf.TfscaleForCausalLM) -> None:
    tokens = some_tokens(2, 8)
    with torch.inference_mode():
        plain = theirs(tokens).logits
        moved = torch.arange(5, 13).expand(2, 8)
        assert apart(theirs(tokens, position_ids=moved).logits, plain) < CLOSE, "attention depends only on distances"
        cache = theirs(tokens[:, :5])[CACHE_NAME]
        last = theirs(tokens[:, 5:], position_ids=torch.arange(5, 8)[None], **{CACHE_NAME: cache}).logits
        assert apart(last, plain[:, 5:]) < CLOSE
        far = theirs(tokens, torch.ones(2, 8), torch.arange(0, 24, 3).expand(2, 8)).logits
        assert apart(far, plain) > CLOSE, "the distances changed"


@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=4))
@settings(max_examples=10)
def test_packed_sequences_do_not_see_each_other(theirs: hf.TfscaleForCausalLM, lengths: list[int]) -> None:
    rows = [some_tokens(1, length, seed) for seed, length in enumerate(lengths)]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    for cached in (True, False):
        with torch.inference_mode():
            packed = theirs(torch.cat(rows, dim=1), position_ids=positions, use_cache=cached).logits
            apart_ones = torch.cat([theirs(row).logits for row in rows], dim=1)
        assert apart(packed, apart_ones) < CLOSE


def test_hidden_states_are_those_before_each_block_and_before_the_logits(
    ours: LanguageModel, theirs: hf.TfscaleForCausalLM
) -> None:
    tokens = some_tokens(2, 7)
    with torch.inference_mode():
        answer = theirs(tokens, output_hidden_states=True)
        states = answer.hidden_states
        assert len(states) == len(ours.blocks) + 1
        assert torch.equal(states[0], ours.embedding[tokens])
        assert apart(states[-1], ours.hidden(tokens)) < CLOSE
        assert apart(theirs.lm_head(states[-1]), answer.logits) < CLOSE
        rotation = rotary_table(ours.config, torch.arange(7), torch.float32)
        for block, before, after in zip(ours.blocks, states, states[1:-1], strict=False):
            assert apart(block(before, rotation), after) < CLOSE
        assert apart(ours.final_norm(ours.blocks[-1](states[-2], rotation)), states[-1]) < CLOSE
        assert "hidden_states" not in theirs(tokens)
    theirs.config.output_hidden_states = True
    try:
        assert len(theirs(tokens).hidden_states) == len(states)
    finally:
        theirs.config.output_hidden_states = False
    made = theirs.generate(
        tokens, max_new_tokens=3, do_sample=False, output_hidden_states=True, return_dict_in_generate=True
    )
    assert [step[-1].shape[1] for step in made.hidden_states] == [7, 1, 1]


def test_an_answer_as_a_tuple_has_the_same_parts_in_the_same_order(theirs: hf.TfscaleForCausalLM) -> None:
    tokens = some_tokens(2, 7)
    with torch.inference_mode():
        parts = theirs(tokens, labels=tokens, output_hidden_states=True, return_dict=False)
        answer = theirs(tokens, labels=tokens, output_hidden_states=True)
        assert list(answer) == ["loss", "logits", CACHE_NAME, "hidden_states"]
        assert torch.equal(parts[0], answer.loss)
        assert torch.equal(parts[1], answer.logits)
        assert parts[2].get_seq_length() == 7
        assert all(torch.equal(a, b) for a, b in zip(parts[3], answer.hidden_states, strict=True))
        (alone,) = theirs(tokens, use_cache=False, return_dict=False)
        assert apart(alone, answer.logits) < CLOSE
