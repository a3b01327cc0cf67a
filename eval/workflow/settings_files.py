"""Settings of each stage, in files that the stages read.

results/GRID/settings/judge.yaml               the same for all models
results/GRID/settings/llama-mini/sft.yaml      a section as this model sees it

A stage reads its own file and nothing else of the config. Snakemake compares the contents, which are a param of each
rule: a job reruns if what its stage reads has changed, whatever else the config says.
"""

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml

from eval.grid.layout import grid_of
from eval.report.assumptions import settings_of
from eval.workflow.paths import Wildcards
from salsa.config.config import Config, algorithm_settings, for_model
from salsa.config.fields import Section
from salsa.config.sections import BenchmarkSettings
from salsa.data.training_sets import DataSet, all_sets, training_sets
from salsa.runtime.outputs import output_file

ONLY_FOR_DOWNLOADS_AND_GRADES = {"download", "grade"}  # decide which jobs exist, not what a job does
ONLY_FOR_JUDGES = {"references", "judge_prompts"}
HEADER = (
    "# Settings that the workflow passes to a stage. It rewrites this file at each start: change the config instead.\n"
)
WILDCARD = re.compile(r"\{(\w+)\}")
Values = dict[str, Any]


def section_values(section: Section, exclude: Collection[str] = ()) -> Values:
    """A section's values without those that are None by default."""
    values: Values = section.model_dump(mode="json", exclude_none=True, exclude=set(exclude))
    # A None is a value of its own where the default is another one.
    for name, field in type(section).model_fields.items():
        if name not in exclude and getattr(section, name) is None and field.default is not None:
            values[name] = None
    return values


def _benchmarks(benchmarks: dict[str, BenchmarkSettings], exclude: Collection[str]) -> Values:
    """Benchmarks sorted by name, because another order is no reason to rerun a job."""
    return {name: section_values(benchmark, exclude) for name, benchmark in sorted(benchmarks.items())}


def _sets(sets: dict[str, DataSet]) -> Values:
    return {name: dataset.model_dump(mode="json", exclude_none=True) for name, dataset in sets.items()}


def _of_grid(config: Config, written: Config) -> Values:
    files = {
        "soup": section_values(config.soup),
        "judge": section_values(config.judge),
        "questions": _benchmarks(config.benchmarks, ONLY_FOR_DOWNLOADS_AND_GRADES | ONLY_FOR_JUDGES),
        "benchmarks": _benchmarks(config.benchmarks, ONLY_FOR_DOWNLOADS_AND_GRADES),
        "training_sets": _sets(training_sets(config)),
        "tables": section_values(grid_of(config)),
        "assumptions": settings_of(written),
    }
    if config.world is not None:
        files["world"] = section_values(config.world, {"published_judge"})
        if config.world.published_judge is not None:
            files["published_judge"] = section_values(config.world.published_judge)
    return files


def _of_model(config: Config, model: str) -> Values:
    adapted, entry = for_model(config, model), config.models[model]
    base = {"model": entry.model_dump(mode="json", exclude_none=True, exclude={"settings"})}
    if entry.world is not None and config.base is not None:
        base["base"] = section_values(config.base)
    files = {
        "base": base,
        "data": _sets(all_sets(config, model)),
        "sft": section_values(adapted.sft),
        "reward": section_values(adapted.reward),
        "generate": section_values(adapted.generate),
        "score": section_values(adapted.score),
        "alpha": section_values(adapted.alpha),
    }
    trained = [name for name, method in config.methods.items() if method.algorithm != "none"]
    return files | {f"methods/{name}": section_values(algorithm_settings(config, model, name)) for name in trained}


class SettingsFiles:
    """The settings files of a grid.

    Rules name them without `.yaml`: "judge", "{model}/sft" for the job's model, "benchmarks#{benchmark}" for a part.
    `config` has local copies in place of hub data sets, `written` is the config as its author wrote it.
    """

    def __init__(self, config: Config, written: Config, folder: str):
        self.folder = folder
        self.contents = _of_grid(config, written)
        for model in config.models:
            self.contents |= {f"{model}/{name}": values for name, values in _of_model(config, model).items()}

    def path(self, name: str) -> str:
        """The argument for a stage, with the wildcards still to be filled in."""
        file, separator, part = name.partition("#")
        return f"{self.folder}/{file}.yaml{separator}{part}"

    def content(self, name: str) -> Callable[[Wildcards], str]:
        """A function of the wildcards that returns the contents as JSON: a param, so that changes rerun the job."""

        def of_job(wildcards: Wildcards) -> str:
            filled = WILDCARD.sub(lambda match: getattr(wildcards, match[1]), name)
            file, _, part = filled.partition("#")
            values = self.contents[file]
            return json.dumps(values[part] if part else values)

        return of_job

    def write(self) -> None:
        """Write the files that are missing or differ."""
        for name, values in self.contents.items():
            file = Path(self.folder) / f"{name}.yaml"
            # Through JSON, which turns tuples into lists.
            text = HEADER + yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True)
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                with output_file(file) as path:
                    path.write_text(text, encoding="utf-8")
