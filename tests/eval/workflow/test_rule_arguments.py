"""Inputs and options of jobs: a rule names what its stage needs."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from eval.workflow.inputs import Inputs
from eval.workflow.options import Options
from eval.workflow.paths import GridPaths
from eval.workflow.start import load_grid
from salsa.config.config import load_config, with_local_copies
from salsa.config.references import parse_strategy
from salsa.config.replicates import suffix

ROOT = Path(__file__).parents[3]


def of_grid(*names: str) -> tuple[GridPaths, Inputs, Options]:
    local, to_fetch = with_local_copies(load_config(*(ROOT / f"config/{name}.yaml" for name in names)))
    paths = GridPaths(local, str(ROOT))
    return paths, Inputs(paths), Options(paths, to_fetch)


@pytest.mark.parametrize("grid", [("mini", "ablations"), ("paper", "ablations")], ids="+".join)
def test_options_name_the_jobs_inputs_and_strategy(grid):
    paths, inputs, options = of_grid(*grid)
    moving = 0
    for model in paths.config.models:
        for name, policy in paths.policies.items():
            replicate, method = suffix(policy.replicate), policy.method
            wildcards = SimpleNamespace(model=model, policy=name, method=method, replicate=replicate)
            strategy, checkpoints = paths.config.methods[method].reference_parts()
            if method in paths.trained:
                assert paths.policy(model, name).endswith(f"policy/{model}/{name}")
                assert len(inputs.reference(wildcards)) == len(checkpoints) > 0
            [answering] = options.answering_policies(wildcards)
            assert answering == f"--policy={name}={paths.policy(model, name)}"
            for given in options.strategy(wildcards):
                assert parse_strategy(given.removeprefix("--strategy="), len(checkpoints)) == strategy
            references = inputs.final_references(wildcards)
            scored = options.final_references(wildcards)
            assert scored[: len(references)] == [f"--reference={name}={folder}" for folder in references]
            assert bool(scored) == (bool(checkpoints) and not strategy.moves)
            for given in scored[len(references) :]:
                assert parse_strategy(given.removeprefix(f"--strategy={name}="), len(checkpoints)) == strategy
            moving += strategy.moves
    assert moving, "the grid has a moving reference, which is gone when answers are scored"


def replicated(**changes: dict) -> tuple[GridPaths, Inputs, Options]:
    """The smoke grid with two replicates, and others."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    replicates = {
        "r1": {"sft": {"sft-1": 3, "sft-2": 4}},
        "r2": {"sft": {"sft-1": 6, "sft-2": 5}, "reward_seed": 2, "rl_seeds": [7, 8]},
    }
    return load_grid({**config, "replicates": {**replicates, **changes}}, ["mine.yaml"], str(ROOT))


def test_replicate_decides_checkpoints_and_draws():
    paths, inputs, options, _ = replicated()
    folder = "checkpoints/smoke"
    of_job = SimpleNamespace(model="llama-mini", method="salsa", replicate="-r2", seed="7")
    assert inputs.init(of_job) == inputs.first_sft(of_job) == f"{folder}/sft/llama-mini/6"
    assert inputs.reference(of_job) == [f"{folder}/soup/llama-mini/sft-5@0.5+sft-6@0.5"]
    assert inputs.reward_model(of_job) == f"{folder}/reward/llama-mini-r2"
    assert options.run(of_job) == "llama-mini-r2"
    methods = ("ppo", "salsa", "ppo-b0.05", "salsa-b0.05")
    trained = [f"{method}-{run}" for method in methods for run in ("r1-s1", "r2-s7", "r2-s8")]
    assert list(paths.policies) == ["sft-r1", "sft-r2", *trained]
    measured = [f"{method}-r2-{seed}" for method in methods for seed in ("s7", "s8")]
    assert options.frontier(of_job) == [f"--policy={name}={folder}/policy/llama-mini/{name}" for name in measured]
    assert list(paths.answering_policies) == ["sft-r1", "sft-r2", *trained[:6]]
    assert paths.pairs(SimpleNamespace(comparison="ppo_vs_sft", replicate="-r2")) == [
        ("ppo-r2-s7", "sft-r2"),
        ("ppo-r2-s8", "sft-r2"),
    ]
    assert inputs.reward_model(SimpleNamespace(model="llama-mini", policy="sft-r1")) == f"{folder}/reward/llama-mini"
    # The shared reward model starts from the first replicate, one of its own from its own SFT 1 and with its own seed.
    starts = [inputs.reward_start(SimpleNamespace(model="llama-mini", replicate=name)) for name in ("", "-r2")]
    assert starts == [f"{folder}/sft/llama-mini/3", f"{folder}/sft/llama-mini/6"]
    assert options.reward_seed(SimpleNamespace(replicate="")) == []
    assert options.reward_seed(SimpleNamespace(replicate="-r2")) == ["--reward-seed=2"]


def test_held_out_reward_model_starts_like_the_shared_one_and_scores_all_policies():
    paths, inputs, options, _ = replicated()
    held_out = SimpleNamespace(model="llama-mini", replicate="-held-out")
    assert "-held-out" in paths.reward_suffixes
    assert inputs.reward_start(held_out) == "checkpoints/smoke/sft/llama-mini/3"
    assert options.reward_seed(held_out) == ["--held-out"]
    scored = SimpleNamespace(model="llama-mini", policy="ppo-r2-s7")
    folder = "checkpoints/smoke/reward/llama-mini-held-out"
    assert (inputs.held_out_reward(scored), options.held_out_reward(scored)) == (
        [folder],
        [f"--held-out-reward={folder}"],
    )


def test_another_replicate_changes_nothing_of_the_others():
    before, after = replicated(), replicated(r3={"sft": {"sft-1": 9, "sft-2": 10}, "reward_seed": 3})
    for name, values in before[3].contents.items():
        assert (after[3].contents[name] != values) == (name in ("tables", "assumptions")), name
    of_method = {"model": "llama-mini", "method": "salsa", "seed": "1", "comparison": "ppo_vs_sft"}
    for of_job in (
        *(SimpleNamespace(**of_method, replicate=replicate) for replicate in ("-r1", "-r2")),
        *(SimpleNamespace(model="llama-mini", policy=name, benchmark="mt_bench") for name in before[0].policies),
    ):
        if hasattr(of_job, "policy"):
            inputs, options = ("answering_policies", "final_references"), ("run", "answering_policies")
        else:
            inputs, options = ("init", "reference", "alpha_line"), ("run", "alpha_line", "pairs", "strategy")
        for name in (*inputs, "first_sft", "reward_model"):
            assert getattr(before[1], name)(of_job) == getattr(after[1], name)(of_job)
        for name in options:
            assert getattr(before[2], name)(of_job) == getattr(after[2], name)(of_job)


def test_one_job_answers_for_all_policies_of_a_replicate():
    local = with_local_copies(load_config(ROOT / "config/mini.yaml"))[0].model_copy(update={"policies_together": True})
    paths = GridPaths(local, str(ROOT))
    for replicate in paths.suffixes:
        wildcards = SimpleNamespace(model="gemma-mini", replicate=replicate)
        names = [name for name, policy in paths.policies.items() if suffix(policy.replicate) == replicate]
        assert Inputs(paths).answering_policies(wildcards) == [paths.policy("gemma-mini", name) for name in names]
        options = Options(paths, {})
        assert len(options.answering_policies(wildcards)) == len(names) == 3
        references = [given.partition("=")[2] for given in options.final_references(wildcards)]
        expected = [
            f"{name}={folder}"
            for name in names
            for folder in paths.reference("gemma-mini", paths.policies[name].method, replicate.removeprefix("-"))
        ]
        assert references == expected
        assert set(Inputs(paths).final_references(wildcards)) == {text.partition("=")[2] for text in references}


def test_mini_world_is_one_input():
    """The world is one output; your own file is an input by itself."""
    paths, inputs, _ = of_grid("mini")
    wildcards = SimpleNamespace(model="gemma-mini", benchmark="mt_bench", soup="sft-1@0.25+sft-3@0.75")
    assert inputs.questions() == inputs.training_data() == [paths.world]
    assert set(inputs.reward_data(wildcards)) == set(inputs.benchmark(wildcards)) == {paths.world}
    assert inputs.ingredients(wildcards) == [f"checkpoints/mini/sft/gemma-mini/{seed}" for seed in (1, 3)]


def test_hub_data_and_downloads_are_options_by_output():
    paths, inputs, options = of_grid("paper")
    assert paths.config.world is None and options.world(SimpleNamespace(model="gemma-2b")) == []
    for path, source in options.to_fetch.items():
        assert options.hub_data_set(SimpleNamespace(), [path]) == [
            f"--hub={source.hub}",
            f"--revision={source.revision}",
            f"--split={source.split}",
        ]
    assert set(inputs.training_data()) <= options.to_fetch.keys()
    downloads = [path for path in inputs.benchmarks() if path in options.downloads]
    assert downloads
    for path in downloads:
        file = options.downloads[path]
        assert options.download(SimpleNamespace(), [path]) == [f"--url={file.url}", f"--sha256={file.sha256}"]


def test_assumptions_are_found_beside_the_snakefile(tmp_path, monkeypatch):
    """The workflow may run in another folder."""
    monkeypatch.chdir(tmp_path)
    paths, _, options = of_grid("paper")
    assert paths.assumptions == str(ROOT / "config/assumptions.yaml")
    assert options.assumptions("values.yaml") == [f"--assumptions={paths.assumptions}", "--values=values.yaml"]
    (tmp_path / "config").mkdir()
    (tmp_path / "config/assumptions.yaml").write_text("")
    assert of_grid("paper")[0].assumptions == "config/assumptions.yaml"


def test_mistake_ends_snakemake_with_one_line():
    config = yaml.safe_load((ROOT / "config/mini.yaml").read_text())
    config["benchmarks"]["mt_bench"]["kind"] = "mtbench"
    with pytest.raises(SystemExit, match="^error: benchmark kind mtbench: unknown: use "):
        load_grid(config, ["mine.yaml"], str(ROOT))
