"""Settings files: each stage reads what the config says, and a change of the config touches only its files."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pydantic import BaseModel

from eval.benchmarks import load_benchmarks
from eval.grid.layout import Grid, grid_of
from eval.workflow.settings_files import SettingsFiles
from salsa.config.algorithms import RL_ALGORITHMS, Dpo
from salsa.config.config import Config, algorithm_settings, for_model, load_config, parse_config, with_local_copies
from salsa.config.judge import Judge
from salsa.config.sections import Alpha, GenerateSettings, Reward, Score, Sft, Soup, TrainingData, World
from salsa.data.training_sets import all_sets, load_sets, training_sets
from salsa.runtime.settings import load_settings
from salsa.supervised.base import BaseSettings

ROOT = Path(__file__).parents[3]
GRIDS = [("smoke",), ("mini",), ("mini", "ablations"), ("paper",), ("paper", "ablations"), ("smollm2",)]
OF_MODEL: dict[str, type[BaseModel]] = {
    "sft": Sft,
    "reward": Reward,
    "generate": GenerateSettings,
    "score": Score,
    "alpha": Alpha,
}


def files_of(config: Config, folder: Path) -> SettingsFiles:
    return SettingsFiles(with_local_copies(config)[0], config, str(folder))


def grid(*names: str) -> Config:
    return load_config(*(ROOT / f"config/{name}.yaml" for name in names))


@pytest.mark.parametrize("names", GRIDS, ids="+".join)
def test_stage_reads_what_the_config_says(names, tmp_path):
    written = grid(*names)
    config, _ = with_local_copies(written)
    files = files_of(written, tmp_path)
    files.write()
    assert load_settings(files.path("soup"), Soup) == config.soup
    assert load_settings(files.path("judge"), Judge) == config.judge
    assert load_settings(files.path("tables"), Grid) == grid_of(config)
    assert load_sets(files.path("training_sets")) == training_sets(config)
    if config.world is not None:
        assert load_settings(files.path("world"), World) == config.world.model_copy(update={"published_judge": None})
    judged = load_benchmarks(files.path("benchmarks"))
    assert judged == {
        name: entry.model_copy(update={"download": {}, "grade": False}) for name, entry in config.benchmarks.items()
    }
    no_judge = {"references": None, "judge_prompts": None}
    assert load_benchmarks(files.path("questions")) == {
        name: entry.model_copy(update=no_judge) for name, entry in judged.items()
    }
    for model in config.models:
        adapted = for_model(config, model)
        for name, schema in OF_MODEL.items():
            assert load_settings(files.path(f"{model}/{name}"), schema) == getattr(adapted, name)
        assert load_settings(files.path(f"{model}/sft#test"), TrainingData) == adapted.sft.test
        assert load_sets(files.path(f"{model}/data")) == all_sets(config, model)
        base = load_settings(files.path(f"{model}/base"), BaseSettings)
        assert base.model == config.models[model].model_copy(update={"settings": {}})
        assert base.base == (config.base if base.model.world else None)
        for name, method in config.methods.items():
            if method.algorithm != "none":
                schema = {**RL_ALGORITHMS, "dpo": Dpo}[method.algorithm]
                expected = algorithm_settings(config, model, name)
                assert load_settings(files.path(f"{model}/methods/{name}"), schema) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"models": {"gemma-mini": {"settings": {"ppo": {"beta": 0.7}}}}}, {"gemma-mini/methods/*", "assumptions"}),
        ({"methods": {"salsa": {"settings": {"steps": 3}}}}, {"*/methods/salsa", "tables", "assumptions"}),
        ({"ppo": {"max_prompt_length": 99}}, {"*/methods/*", "*/data", "training_sets", "assumptions"}),
        ({"judge": {"temperature": None}}, {"judge", "assumptions"}),
        ({"world": {"published_judge": {"noise": 0.5}}}, {"published_judge", "assumptions"}),
        ({"benchmarks": {"arena_hard": {"judge_prompts": "j"}}}, {"benchmarks", "assumptions"}),
        ({"paths": {"checkpoints": "/scratch"}, "policies_together": True}, {"assumptions"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_change_touches_only_the_files_concerned(change, expected, tmp_path):
    config = grid("mini")
    before = files_of(config, tmp_path)
    before.write()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.yaml")}
    (tmp_path / "change").write_text(yaml.safe_dump(change))
    files_of(load_config(ROOT / "config/mini.yaml", tmp_path / "change"), tmp_path).write()
    changed = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {path for pattern in expected for path in tmp_path.glob(f"{pattern}.yaml")}


def test_order_of_benchmarks_does_not_matter(tmp_path):
    data = yaml.safe_load((ROOT / "config/mini.yaml").read_text())
    turned = {**data, "benchmarks": dict(reversed(data["benchmarks"].items()))}
    one, other = (files_of(parse_config(each, "test"), tmp_path) for each in (data, turned))
    wildcards = SimpleNamespace()
    for name in ("questions", "benchmarks"):
        assert one.content(name)(wildcards) == other.content(name)(wildcards)


def test_rule_compares_what_its_stage_reads(tmp_path):
    """A param's content equals the file's, for the whole and for a part, with the job's wildcards."""
    files = files_of(grid("mini", "ablations"), tmp_path)
    files.write()
    wildcards = SimpleNamespace(model="llama-mini", method="salsa", benchmark="mt_bench")
    for name in ("{model}/sft", "{model}/sft#test", "{model}/methods/{method}", "benchmarks#{benchmark}", "judge"):
        file, _, part = files.path(name).format(**vars(wildcards)).partition("#")
        values = yaml.safe_load(Path(file).read_text())
        assert json.loads(files.content(name)(wildcards)) == (values[part] if part else values)
