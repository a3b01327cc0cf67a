"""Suggestions for a misspelt target."""

import pytest

from salsa.workflow.targets import nearest, outputs

VALUES = {
    "model": ["llama-mini", "gemma-mini"],
    "comparison": ["salsa_vs_ppo", "ppo_vs_sft"],
    "benchmark": ["mt_bench"],
}
PATTERNS = [
    "r/judgments/{model}/{benchmark}/{comparison}.jsonl",
    "r/alpha/{model}.jsonl",
    "r/soup/{soup}",
    "r/report.html",
]


def test_outputs_of_a_grid_are_listed():
    found = list(outputs(PATTERNS, VALUES))
    assert len(found) == 4 + 2 + 1, "a wildcard without values names no file"
    assert "r/judgments/gemma-mini/mt_bench/ppo_vs_sft.jsonl" in found


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("r/judgments/llama-mini/mtbench/salsa_vs_ppo.jsonl", "r/judgments/llama-mini/mt_bench/salsa_vs_ppo.jsonl"),
        ("r/judgments/gemma-mini/mt_bench/salsa_vs_pp0.jsonl", "r/judgments/gemma-mini/mt_bench/salsa_vs_ppo.jsonl"),
        ("r/alfa/gema-mini.jsonl", "r/alpha/gemma-mini.jsonl"),
        ("tabels", "tables"),
        ("r/reprot.html", "r/report.html"),
    ],
)
def test_nearest_name_comes_first(target, meant):
    assert nearest(target, [*outputs(PATTERNS, VALUES), "tables", "figures"])[0] == meant


def test_unrelated_name_has_no_suggestion():
    assert nearest("r/x", ["r/report.html"]) == [] == nearest("a/b/c", ["r/report.html"])
