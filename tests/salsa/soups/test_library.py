"""Average checkpoints from a notebook."""

import json

import pytest

from salsa.runtime.errors import UserError
from salsa.soups.library import average_checkpoints


def test_average_equals_that_of_the_stage(llamas, tmp_path, command):
    ingredients = [f"--ingredient={folder}=0.5" for folder in llamas]
    assert command("salsa", "soup", *ingredients, "--out", tmp_path / "stage")[0] == 0
    assert average_checkpoints(llamas, tmp_path / "equal") == tmp_path / "equal"
    average_checkpoints({llamas[0]: 1.0, llamas[1]: 0.0}, tmp_path / "first")
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("stage", "equal")]
    assert records[0]["id"] == records[1]["id"]
    weights = {path.parent.name: path.read_bytes() for path in tmp_path.glob("*/model.safetensors")}
    assert weights["stage"] == weights["equal"] != weights["first"]


def test_mistakes_are_named(llamas, tmp_path):
    with pytest.raises(UserError, match="weights sum to 0.9, not 1"):
        average_checkpoints({llamas[0]: 0.5, llamas[1]: 0.4}, tmp_path / "soup")
    assert not (tmp_path / "soup").exists()
