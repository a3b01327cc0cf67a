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
        for policy, method in paths.method_of.items():
            wildcards = SimpleNamespace(model=model, policy=policy, method=method)
            strategy, checkpoints = paths.config.methods[method].reference_parts()
            if method in paths.trained:
                assert paths.policy(model, policy).endswith(f"policy/{model}/{policy}")
                assert len(inputs.reference(wildcards)) == len(checkpoints) > 0
            [answering] = options.answering_policies(wildcards)
            assert answering == f"--policy={policy}={inputs.policy(wildcards)}"
            for given in options.strategy(wildcards):
                assert parse_strategy(given.removeprefix("--strategy="), len(checkpoints)) == strategy
            scored = options.final_reference(wildcards)
            assert scored[1 : 1 + len(inputs.final_reference(wildcards))] == inputs.final_reference(wildcards)
            assert bool(scored) == (bool(checkpoints) and not strategy.moves)
            moving += strategy.moves
    assert moving, "the grid has a moving reference, which is gone when answers are scored"


def test_one_job_answers_for_all_policies_without_a_policy_wildcard():
    local = with_local_copies(load_config(ROOT / "config/mini.yaml"))[0].model_copy(update={"generate_together": True})
    paths = GridPaths(local, str(ROOT))
    together = Inputs(paths).answering_policies(SimpleNamespace(model="gemma-mini"))
    assert together == [paths.policy("gemma-mini", policy) for policy in paths.policies]
    assert len(Options(paths, {}).answering_policies(SimpleNamespace(model="gemma-mini"))) == len(paths.policies) == 5


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
