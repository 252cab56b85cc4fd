"""Tests of stage keys: recorded keys stay the same, and settings of how and where a stage runs do not change them."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tfscale.stage import how
from tfscale.stage.spec import RunSpec, StageSpec, key_fields, key_of, spec_from_dict, spec_to_dict

RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden" / "stage_keys.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_specs_have_their_recorded_keys(name: str) -> None:
    spec = spec_from_dict(RECORDED[name]["spec"])
    assert key_of(spec) == RECORDED[name]["key"]
    assert json.loads(json.dumps(spec_to_dict(spec))) == RECORDED[name]["spec"], "and are written as they were"


@pytest.mark.parametrize("name", RECORDED)
def test_how_and_where_a_stage_is_run_changes_no_key_and_is_not_in_what_it_computes(name: str) -> None:
    spec = spec_from_dict(RECORDED[name]["spec"])
    moved = replace(
        spec,
        label="another",
        run=RunSpec(data_dir="/home/someone/corpus", threads=7, precision="fp32"),
        parent_dir="/home/someone/parent",
        init_dir="/home/someone/imported",
    )
    assert {each.name for each in fields(StageSpec) if getattr(spec, each.name) != getattr(moved, each.name)} == set(
        how.STAGE
    )
    assert key_of(moved) == key_of(spec)
    assert key_fields(moved) == key_fields(spec)
    assert "someone" not in json.dumps(key_fields(moved))


def test_a_dotted_name_leaves_out_a_field_within_a_field() -> None:
    values = {"a": {"b": 1, "c": {"d": 2}}, "b": 3, "e": [1]}
    assert how.without(values, ("a.c", "e")) == {"a": {"b": 1}, "b": 3}
    assert how.without(values, ("a.c.d", "a.e", "b.x", "f")) == {"a": {"b": 1, "c": {}}, "b": 3, "e": [1]}
