"""Each setting of the paper's grid has a recorded source, and a grid's report shows it."""

from pathlib import Path

import pytest

from eval.report.assumptions import Assumptions, compared, load_assumptions, settings_of
from salsa.config.config import load_config
from salsa.runtime.errors import UserError

ROOT = Path(__file__).parents[3]
PAPER = ROOT / "config/paper.yaml"


@pytest.fixture(scope="module")
def recorded() -> Assumptions:
    return load_assumptions(ROOT / "config/assumptions.yaml")


def test_every_setting_of_the_papers_grid_has_a_value_and_source(recorded):
    rows = compared(recorded, settings_of(load_config(PAPER)))
    wrong = [row for row in rows if row["standing"] in ("not recorded", "changed")]
    assert not wrong
    assert {row["setting"] for row in rows} == set(recorded.settings), "every recorded setting exists"
    assert all(row["source"] for row in rows)
    abstract = {row["setting"] for row in rows if row["standing"] == "abstract"}
    assert not any(name.startswith(("sft.", "reward.", "ppo.", "dpo.", "judge.")) for name in abstract), (
        "the abstract has no hyper-parameter"
    )


def test_defaults_count_and_missing_entries_are_found(recorded):
    settings = settings_of(load_config(PAPER))
    assert settings["ppo.lam"] == 0.95, "a default, not set in paper.yaml"
    settings_but_one = {name: entry for name, entry in recorded.settings.items() if name != "ppo.lam"}
    less = recorded.model_copy(update={"settings": settings_but_one})
    assert [row for row in compared(less, settings) if row["setting"] == "ppo.lam"] == [
        {"setting": "ppo.lam", "value": "0.95", "standing": "not recorded", "source": ""}
    ]


def test_changes_of_another_grid_are_marked_and_machinery_is_left_out(recorded):
    settings = settings_of(load_config(PAPER, ROOT / "config/ablations.yaml"))
    found = {row["setting"]: row for row in compared(recorded, settings)}
    assert found["ppo.beta"]["standing"] == "assumed"
    settings["ppo.beta"] = 0.1
    found = {row["setting"]: row for row in compared(recorded, settings)}
    assert (found["ppo.beta"]["standing"], found["ppo.beta"]["source"]) == ("changed", "recorded: 0.05")
    assert not {"judge.concurrency", "ppo.micro_batch_size", "paths.data"} & found.keys()
    assert found["models.llama2-7b.hub.pad_token"]["value"] == "<unk>"


def test_warp_is_listed_where_it_is_and_its_runs_are_not(tmp_path):
    (tmp_path / "warp.yaml").write_text(
        "methods: {warp: {algorithm: ppo, init: sft-1, reference: {ema: {of: sft-1}}, warp: {rounds: 3}}}\n"
    )
    names = [name for name in settings_of(load_config(PAPER, tmp_path / "warp.yaml")) if "warp" in name]
    assert {"methods.warp.warp.rounds", "methods.warp.warp.eta"} < set(names)
    assert all(name.startswith("methods.warp.") and "warp_run" not in name for name in names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("settings: [", "not YAML"),
        ("settings: {a: {value: 1, standing: guessed, source: x}}\nmachinery: []", "settings.a.standing: Input should"),
        ("settings: {a: {value: 1, standing: assumed}}\nmachinery: []", "settings.a.source: required key is missing"),
    ],
)
def test_broken_file_is_one_line(text, expected, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml: ") as raised:
        load_assumptions(tmp_path / "a.yaml")
    assert expected in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(UserError, match="cannot read it"):
        load_assumptions(tmp_path / "none.yaml")
