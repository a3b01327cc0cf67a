"""Every file of config/ is valid, and a mistake is one line that names file, key and fix."""

import re
from pathlib import Path

import pytest
import yaml

from salsa.config.config import Config, algorithm_settings, for_model, frontier_runs, load_config
from salsa.config.naming import checkpoint_name, ingredients, parse_soup_name, soup_name
from salsa.config.replicates import bind
from salsa.config.schema import schema
from salsa.runtime.errors import UserError
from salsa.runtime.settings import load_settings

ROOT = Path(__file__).parents[3]
CONFIGS = sorted(path for path in (ROOT / "config").glob("*.yaml") if path.name != "schema.yaml")


@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if "grid" in yaml.safe_load(path.read_text())], ids=lambda p: p.name
)
def test_project_configs_are_valid(path):
    assert load_config(path).tables.headline == "salsa_vs_ppo"


@pytest.mark.parametrize("name", ["reward-models", "over-optimisation"])
def test_grids_with_their_own_reward_models_have_minis_settings(name):
    mini, grid = (
        load_config(ROOT / "config/mini.yaml"),
        load_config(ROOT / "config/mini.yaml", ROOT / f"config/{name}.yaml"),
    )
    assert all(
        getattr(mini, section) == getattr(grid, section) for section in ("world", "base", "models", "sft", "ppo")
    )
    assert mini.reward == grid.reward and mini.methods["ppo"] == grid.methods["ppo"]
    seeds = [replicate.reward_seed for replicate in grid.replicates.values()]
    assert len(set(seeds)) == len(seeds) == 10 and None not in seeds


def test_ppo_and_salsa_differ_only_in_the_reference():
    for name in ("mini", "smoke", "paper"):
        methods = load_config(ROOT / f"config/{name}.yaml").methods
        ppo, salsa = methods["ppo"].model_dump(), methods["salsa"].model_dump()
        assert {key for key in ppo if ppo[key] != salsa[key]} == {"reference"}


def test_lora_grids_train_adapters_in_every_stage_and_nothing_else_differs():
    paper, lora, small = (ROOT / f"config/{name}.yaml" for name in ("paper", "paper-lora", "gemma-lora-24gb"))
    whole, adapted = load_config(paper), load_config(paper, lora)
    for model in adapted.models:
        stages = [for_model(adapted, model).sft, for_model(adapted, model).reward]
        stages += [algorithm_settings(adapted, model, method) for method in ("ppo", "salsa")]
        assert len({stage.lora.model_dump_json() for stage in stages}) == 1
        for method in ("ppo", "salsa"):
            pair = [algorithm_settings(config, model, method) for config in (whole, adapted)]
            # These change time and memory, and no result.
            speed = {"vllm", "frozen_models", "micro_batch_tokens", "gradient_checkpointing"}
            one, other = (settings.model_dump(exclude=speed) for settings in pair)
            assert {key for key in one if one[key] != other[key]} == {"lora", "learning_rate", "value_learning_rate"}
            assert other["learning_rate"] == pytest.approx(10 * one["learning_rate"])
    assert adapted.methods == whole.methods and adapted.benchmarks == whole.benchmarks
    alone = load_config(paper, lora, small)
    assert list(alone.models) == ["gemma-2b"] and alone.ppo == adapted.ppo


def test_schema_file_is_current():
    assert (ROOT / "config/schema.yaml").read_text() == schema(), "run python -m salsa schema > config/schema.yaml"


MISTAKES = {
    "unknown key": (("ppo", "betta"), 0.1, r"ppo\.betta: unknown key: remove it or correct its spelling"),
    "missing key": (("ppo", "beta"), None, r"ppo\.beta: required key is missing: add it"),
    "no such role": (
        ("replicates",),
        {"r1": {"sft": {"sft-1": 1}}},
        r"replicates\.r1\.sft: no SFT run for sft-2, which methods\.salsa\.reference uses: add it",
    ),
    "a shared SFT run": (
        ("replicates",),
        {"r1": {"sft": {"sft-1": 1, "sft-2": 2}}, "r2": {"sft": {"sft-1": 2, "sft-2": 3}}},
        r"replicates\.r2\.sft: SFT run 2 is in r1, too, so the two are not independent: use other runs, or set overl",
    ),
    "a soup of one": (
        ("replicates",),
        {"r1": {"sft": {"sft-1": 1, "sft-2": 1}}},
        r"replicates\.r1\.sft: two roles are SFT run 1: give each its own",
    ),
    "a replicate like an RL seed": (
        ("replicates",),
        {"s1": {"sft": {"sft-1": 1, "sft-2": 2}}},
        r"replicates\.s1.*should match pattern",
    ),
    "an engine over devices": (
        ("ppo", "vllm"),
        {"tensor_parallel_size": 2},
        r"ppo: .*vllm\.tensor_parallel_size: each process has its own engine: leave it out",
    ),
    "weights": (
        ("methods", "salsa", "reference"),
        {"soup": {"sft-1": 0.5, "sft-2": 0.6}},
        r"methods\.salsa\.reference.*soup weights sum to 1\.1, not 1: correct them",
    ),
    "no reference": (("methods", "ppo", "reference"), None, r"methods\.ppo: .*a trained method needs a reference"),
    "no such method": (("comparisons", "salsa_vs_ppo", "b"), "dpo", r"comparisons\.salsa_vs_ppo: no method dpo"),
    "settings": (("methods", "ppo", "settings"), {"bta": 1}, r"methods\.ppo\.settings: bta: unknown key"),
    "headline": (("tables", "headline"), "x", r"tables\.headline: no comparison x: name one of"),
    "two sources": (("sft", "train", "hub"), "a/b", r"sft\.train: .*give either path .* or hub"),
    "batches": (("ppo", "train_batch_size"), 7, r"rollout_batch_size 16 is not a multiple of train_batch_size 7"),
    "RL seed twice": (("rl_seeds",), [3, 2, 3], r"yaml: rl_seeds: seed 3 is listed twice: list each seed once$"),
    "whole config": (("tables", "headline"), "x_vs_y", r"mine\.yaml: tables\.headline: no comparison x_vs_y: name one"),
    "the frontier's own beta": (
        ("frontier", "betas"),
        [0.1],
        r"frontier\.betas: 0\.1 is the beta of ppo already: remove",
    ),
    "a frontier of an untrained method": (
        ("frontier", "methods"),
        ["sft"],
        r"frontier\.methods: sft is no method with training: correct it",
    ),
    "betas of a method that is not on the frontier": (
        ("frontier", "betas"),
        {"pppo": [0.3]},
        r"frontier: .*betas: pppo is not among the methods ppo, salsa: add it or remove it",
    ),
    "a frontier with a model's beta": (
        ("models", "llama-mini", "settings"),
        {"ppo": {"beta": 0.3}},
        r"models\.llama-mini\.settings\.ppo\.beta: a frontier's betas are for all models: remove it",
    ),
    "a curve without betas": (
        ("frontier",),
        {"methods": ["ppo", "salsa"], "betas": {"ppo": [0.5]}, "curve": "salsa"},
        r"frontier: .*curve: salsa is no method with betas of its own: correct it",
    ),
    "a frontier against nobody": (
        ("frontier", "against"),
        "sfft",
        r"frontier\.against: no method sfft: name one of ",
    ),
    "a kept last step": (
        ("ppo", "checkpoints_at"),
        [2],
        r"checkpoints_at: 2 is not before the last of 2 steps: remove it",
    ),
    "a comparison without answers": (
        ("methods", "ppo", "answers"),
        False,
        r"comparisons\.ppo_vs_sft: ppo does not answer the bench",
    ),
    "WARP from elsewhere": (
        ("methods", "salsa", "warp"),
        {"rounds": 2},
        r"methods\.salsa: .*warp: its runs sample responses, against a reference that starts where they start",
    ),
    "a group that does not fit": (
        ("rloo",),
        {"responses_per_prompt": 3},
        r"rloo: rollout_batch_size 16 is not a multiple of responses_per_prompt 3",
    ),
    "a setting that RLOO does not have": (("rloo",), {"value_clip": 0.1}, r"rloo: value_clip: unknown key"),
    "negative": (("judge", "noise"), -1, r"judge\.noise: Input should be greater than or equal to 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_with_file_key_and_fix(mistake, tmp_path):
    keys, value, expected = MISTAKES[mistake]
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    section = data
    for key in keys[:-1]:
        section = section[key]
    if value is None:
        del section[keys[-1]]
    else:
        section[keys[-1]] = value
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UserError, match=expected) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_slerp_of_adapters_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "more.yaml").write_text("sft: {lora: {rank: 2}}\nalpha: {also: [{slerp: {sft-1: 0.5, sft-2: 0.5}}]}\n")
    with pytest.raises(
        UserError, match=r"alpha\.also: a slerp needs SFT models with all their weights: remove sft\.lora"
    ):
        load_config(ROOT / "config/smoke.yaml", tmp_path / "more.yaml")


def test_greedy_soup_needs_a_reward_model_that_chooses(tmp_path):
    (tmp_path / "more.yaml").write_text("alpha: {also: [{greedy: [sft-1, sft-2]}]}\nreward: {held_out: null}\n")
    with pytest.raises(UserError, match=r"alpha\.also: the held-out reward model chooses a greedy soup: set "):
        load_config(ROOT / "config/smoke.yaml", tmp_path / "more.yaml")
    with pytest.raises(ValueError, match="name two SFT models or more, each once"):
        checkpoint_name({"greedy": ["sft-1", "sft-1"]})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("methods: {ppo: {reward: {models: 1, combine: mean}}}", "methods.ppo.reward.models: "),
        ("methods: {sft: {reward: {models: 2, combine: mean}}}", "reward: algorithm none uses no reward model: remove"),
        (
            "methods: {ppo: {reward: {models: 2, combine: min}}}\n"
            "models: {llama-mini.2: {local: {path: x, chat_template: y, pad_token: z}}}",
            "methods.ppo.reward: its reward model is called llama-mini.2, as a model is: rename one",
        ),
    ],
    ids=["one", "none", "name"],
)
def test_combined_rewards_that_cannot_be(more, said, tmp_path):
    (tmp_path / "more.yaml").write_text(more)
    with pytest.raises(UserError, match=re.escape(said)):
        load_config(ROOT / "config/smoke.yaml", tmp_path / "more.yaml")


def test_soup_name_encodes_its_weights():
    weights = {"sft-2": 0.25, "sft-1": 0.75}
    assert soup_name(weights) == "sft-1@0.75+sft-2@0.25"
    assert parse_soup_name(soup_name(weights)) == weights
    assert checkpoint_name({"soup": weights}) == "soup/{model}/sft-1@0.75+sft-2@0.25"
    assert checkpoint_name("sft-3") == "sft/{model}/3" and checkpoint_name("base") == "base/{model}"
    assert checkpoint_name({"slerp": {"sft-1": 0.5, "base": 0.5}}) == "slerp/{model}/base@0.5+sft-1@0.5"
    assert ingredients({"slerp": {"sft-1": 0.5, "base": 0.5}}) == ("sft-1",)
    assert bind({"slerp": {"sft-1": 0.5, "base": 0.5}}, {"sft-1": 7}) == {"slerp": {"sft-7": 0.5, "base": 0.5}}
    for weights in ({"sft-1": 1.5, "sft-2": -0.5}, {"base": 1.0, "sft-1": 0.0}):
        with pytest.raises(ValueError, match="weights must not be negative, and not all weight may be on base"):
            checkpoint_name({"slerp": weights})
    with pytest.raises(ValueError, match="ppo: name an SFT seed"):
        checkpoint_name({"soup": {"sft-1": 0.5, "ppo": 0.5}})
    with pytest.raises(UserError, match="write it as"):
        parse_soup_name("sft-1+sft-2")


def test_settings_come_from_json_or_a_section_of_a_file():
    from salsa.config.judge import Judge

    path = ROOT / "config/mini.yaml"
    data = yaml.safe_load(path.read_text())["judge"]
    assert load_settings(f"{path}#judge", Judge) == Judge(**data)
    with pytest.raises(UserError, match="no section jury"):
        load_settings(f"{path}#jury", Judge)
    with pytest.raises(UserError, match="cannot read nowhere.yaml"):
        load_settings("nowhere.yaml#judge", Judge)


def test_frontier_adds_its_runs_to_the_methods():
    """They differ from their method in beta alone, and answer the benchmarks if a comparison names them."""
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    data["frontier"] = {"methods": ["ppo", "salsa"], "betas": [0.02, 0.5]}
    data["comparisons"]["weak_vs_sft"] = {"a": "salsa-b0.02", "b": "sft"}
    config = Config.model_validate(data)
    assert [(run.method, run.beta, run.name) for run in frontier_runs(config)] == [
        ("ppo", 0.02, "ppo-b0.02"), ("ppo", 0.1, "ppo"), ("ppo", 0.5, "ppo-b0.5"),
        ("salsa", 0.02, "salsa-b0.02"), ("salsa", 0.1, "salsa"), ("salsa", 0.5, "salsa-b0.5"),
    ]  # fmt: skip
    salsa, weak = config.methods["salsa"], config.methods["salsa-b0.02"]
    assert weak.model_copy(update={"settings": salsa.settings}) == salsa
    assert algorithm_settings(config, "llama-mini", "salsa-b0.02").beta == 0.02
    assert [name for name, method in config.methods.items() if not method.answers] == [
        "ppo-b0.02",
        "ppo-b0.5",
        "salsa-b0.5",
    ]
    assert Config.model_validate(config.model_dump()) == config


def test_frontier_has_betas_by_method():
    """Methods without betas are measured at their own; DPO has its own section's, WARP's runs are not measured."""
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    data["methods"] |= {
        "dpo": {"algorithm": "dpo", "init": "sft-1", "reference": "sft-1"},
        "warp": {"algorithm": "ppo", "init": "sft-1", "reference": {"ema": {"of": "sft-1"}}, "warp": {"rounds": 1}},
    }
    data["frontier"] = {"methods": ["ppo", "dpo", "warp"], "betas": {"dpo": [0.3]}}
    config = Config.model_validate(data)
    assert [(run.name, run.beta) for run in frontier_runs(config)] == [
        ("ppo", 0.1), ("dpo", data["dpo"]["beta"]), ("dpo-b0.3", 0.3), ("warp", 0.1),
    ]  # fmt: skip
    assert algorithm_settings(config, "llama-mini", "dpo-b0.3").beta == 0.3
    assert Config.model_validate(config.model_dump()) == config


def test_frontier_against_a_method_adds_comparisons():
    """Of all runs, with the names of those that the config has."""
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    data["frontier"] = {"methods": ["ppo", "salsa"], "betas": [0.02], "against": "sft"}
    config = Config.model_validate(data)
    added = {name: (c.a, c.b) for name, c in config.comparisons.items() if name not in data["comparisons"]}
    assert "ppo_vs_sft" in data["comparisons"]
    assert added == {f"{name}_vs_sft": (name, "sft") for name in ("ppo-b0.02", "salsa", "salsa-b0.02")}
    assert all(method.answers for method in config.methods.values())
    assert Config.model_validate(config.model_dump()) == config
