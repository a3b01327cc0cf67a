"""The whole config: all sections of a grid, and checks across sections.

The Snakefile imports this at every start, so torch stays out.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from salsa.config.algorithms import RL_ALGORITHMS, Dpo, Ppo, Rl
from salsa.config.fields import Name, NonNegative, Section, Seeds
from salsa.config.judge import Judge
from salsa.config.methods import Method, reward_versions
from salsa.config.naming import ingredients, sft_seed
from salsa.config.replicates import HELD_OUT, UNNAMED, Replicate, ReplicateName, check_independence, suffix
from salsa.config.sections import (
    Alpha,
    Base,
    BenchmarkSettings,
    Calibration,
    Comparison,
    DataSource,
    Frontier,
    GenerateSettings,
    Model,
    Paths,
    Reward,
    Score,
    Sft,
    Soup,
    Tables,
    World,
)
from salsa.runtime.errors import UserError
from salsa.runtime.settings import describe

COMMON_TO_MODELS = {"reward.held_out", "alpha.between", "alpha.points", "alpha.also"}
COMMON_TO_MODELS |= {f"{algorithm}.checkpoints_at" for algorithm in (*RL_ALGORITHMS, "dpo")}
FIRST_ROLE = "sft-1"


class Config(Section):
    """The config of a grid. It is the only source of the names of models, methods, benchmarks and comparisons.

    A further file leaves out a model, method, benchmark, comparison or replicate of an earlier one: it sets it to null.
    """

    grid: Name
    seed: int
    assumptions: str | None = Field(
        None, description="File that says where each setting comes from (config/assumptions.yaml), for the report"
    )
    claims: list[str] = Field(
        default_factory=list,
        description="Files of the claims on which the grid gives a verdict ([config/claims.yaml])",
    )
    paths: Paths = Paths()
    world: World | None = None
    base: Base | None = None
    models: dict[Name, Model]
    sft: Sft
    soup: Soup = Soup()
    reward: Reward
    ppo: Ppo
    rloo: dict[str, Any] = Field(
        default_factory=dict,
        description="RLOO: responses_per_prompt, baseline, and settings that differ from those of the section ppo",
    )
    grpo: dict[str, Any] = Field(
        default_factory=dict,
        description="GRPO: responses_per_prompt, scale, corrected_kl, average, and settings that differ from those of "
        "the section ppo",
    )
    dpo: Dpo | None = None
    rl_seeds: Seeds
    replicates: dict[ReplicateName, Replicate] = Field(
        default_factory=dict,
        description="Independent draws of everything in training; default: one, in which sft-N is SFT run N",
    )
    methods: dict[Name, Method]
    benchmarks: dict[Name, BenchmarkSettings]
    generate: GenerateSettings = GenerateSettings()
    policies_together: bool = Field(
        False,
        description="One job answers the benchmarks for all policies of a model and replicate, and one scores them; "
        "default: one job per policy",
    )
    score: Score = Score()
    alpha: Alpha
    frontier: Frontier | None = None
    judge: Judge
    calibration: Calibration | None = None
    comparisons: dict[Name, Comparison]
    tables: Tables

    @field_validator("models", "methods", "benchmarks", "comparisons", "replicates", mode="before")
    @classmethod
    def _without_null(cls, value: Any) -> Any:
        return {name: entry for name, entry in value.items() if entry is not None} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _frontier_is_trained(self) -> "Config":
        """Add the frontier's runs to the methods, and their comparisons with `against`."""
        if self.frontier is None:
            return self
        for model, changes in self.models.items():
            for section, values in changes.settings.items():
                if section in (*RL_ALGORITHMS, "dpo") and "beta" in values:
                    raise ValueError(
                        f"models.{model}.settings.{section}.beta: a frontier's betas are for all models: remove it"
                    )
        for method in self.frontier.methods:
            if method not in self.methods or self.methods[method].algorithm == "none":
                raise ValueError(f"frontier.methods: {method} is no method with training: correct it")
            betas = self.frontier.betas_of(method)
            if self.beta_of(method) in betas:
                raise ValueError(f"frontier.betas: {self.beta_of(method):g} is the beta of {method} already: remove it")
            names = {at_beta(method, beta): beta for beta in betas}
            for name in (method, *names) if self.frontier.against else ():
                self._compare(name, self.frontier.against)
            for name, beta in names.items():
                entry = self.methods[method]
                compared = any(name in (comparison.a, comparison.b) for comparison in self.comparisons.values())
                settings = {**entry.settings, "beta": beta}
                added = entry.model_copy(update={"settings": settings, "answers": compared})
                if self.methods.setdefault(name, added) != added:
                    raise ValueError(f"methods.{name}: a run of the frontier has this name: rename the method")
        return self

    @model_validator(mode="after")
    def _warp_is_trained(self) -> "Config":
        """Add the runs of methods with `warp` to the methods."""
        for name, entry in list(self.methods.items()):
            for run in entry.warp_runs(name):
                added = entry.model_copy(update={"warp": None, "warp_run": run, "answers": False})
                if self.methods.setdefault(run.name, added) != added:
                    raise ValueError(f"methods.{run.name}: a run of {name} has this name: rename the method")
        return self

    def _compare(self, a: str, b: str | None) -> None:
        """Add the comparison of a with b, if there is none yet."""
        if b not in self.methods:
            raise ValueError(f"frontier.against: no method {b}: name one of {', '.join(self.methods)}")
        if not any((comparison.a, comparison.b) == (a, b) for comparison in self.comparisons.values()):
            self.comparisons[f"{a}_vs_{b}"] = Comparison(a=a, b=b)

    def beta_of(self, method: str) -> float:
        """The beta of a method of the frontier, in models whose settings do not change it."""
        entry = self.methods[method]
        section = dict(self.dpo or {}) if entry.algorithm == "dpo" else self.own_section(entry.algorithm)
        return float(entry.settings.get("beta", section.get("beta", self.ppo.beta)))

    def own_section(self, algorithm: str) -> dict[str, Any]:
        """The section of an algorithm that samples responses; PPO's is what the others share with it."""
        return {"rloo": self.rloo, "grpo": self.grpo}.get(algorithm, {})

    @model_validator(mode="after")
    def _names_agree(self) -> "Config":
        self._check_replicates()
        for name, method in self.methods.items():
            if method.algorithm == "dpo" and self.dpo is None:
                raise ValueError(f"methods.{name}: algorithm dpo needs the section dpo: add it")
        self._check_averages()
        for algorithm in RL_ALGORITHMS:
            if self.own_section(algorithm):
                try:
                    rl_section(self, algorithm)
                except ValidationError as error:
                    raise ValueError(describe(error, algorithm)) from None
        for model, entry in self.models.items():
            self._check_changes(f"models.{model}.settings", entry.settings)
            for name, method in self.methods.items():
                if method.algorithm == "none":
                    continue
                try:
                    settings = algorithm_settings(self, model, name)
                    if method.warp is not None and settings.lora is not None:
                        raise ValueError(f"methods.{name}.warp: its averages need all weights: remove lora")
                except ValidationError as error:
                    raise ValueError(describe(error, f"methods.{name}.settings")) from None
        for name, comparison in self.comparisons.items():
            for side in (comparison.a, comparison.b):
                if side not in self.methods:
                    raise ValueError(f"comparisons.{name}: no method {side}: name one of {', '.join(self.methods)}")
                if not self.methods[side].answers:
                    raise ValueError(
                        f"comparisons.{name}: {side} does not answer the benchmarks: set its answers: true"
                    )
        if self.tables.headline not in self.comparisons:
            raise ValueError(
                f"tables.headline: no comparison {self.tables.headline}: name one of {', '.join(self.comparisons)}"
            )
        if any(model.world for model in self.models.values()) and (self.world is None or self.base is None):
            raise ValueError("models.*.world: a generated model needs the sections world and base")
        return self

    def _check_changes(self, where: str, changes: dict[Any, dict[str, Any]]) -> None:
        for name, values in changes.items():
            if getattr(self, name) is None:
                raise ValueError(f"{where}.{name}: the config has no section {name}: add it")
            for key in sorted(COMMON_TO_MODELS & {f"{name}.{key}" for key in values}):
                raise ValueError(f"{where}: {key} is the same for all models: set it in the section")
            try:
                _changed(getattr(self, name), values)
            except ValidationError as error:
                raise ValueError(describe(error, f"{where}.{name}")) from None

    def _check_averages(self) -> None:
        """Raise a ValueError for averages that cannot be made: slerps of adapters, greedy soups without a judge."""
        adapters = self.sft.lora is not None or any("lora" in m.settings.get("sft", {}) for m in self.models.values())
        uses = {f"methods.{name}": [m.init, *m.reference_parts()[1]] for name, m in self.methods.items()}
        for where, checkpoints in (uses | {"alpha.also": self.alpha.also}).items():
            kinds = {kind for checkpoint in checkpoints if isinstance(checkpoint, dict) for kind in checkpoint}
            if adapters and "slerp" in kinds:
                raise ValueError(f"{where}: a slerp needs SFT models with all their weights: remove sft.lora")
            if self.reward.held_out is None and "greedy" in kinds:
                raise ValueError(f"{where}: the held-out reward model chooses a greedy soup: set reward.held_out")

    def roles(self) -> dict[str, str]:
        """Roles that the methods and `alpha.between` use, with the first key that uses each; SFT 1 among them."""
        used: dict[str, str] = {FIRST_ROLE: "KL(policy, SFT 1)"}
        for name, method in self.methods.items():
            for part, checkpoints in (("init", [method.init]), ("reference", method.reference_parts()[1])):
                for role in sorted({role for checkpoint in checkpoints for role in ingredients(checkpoint)}):
                    used.setdefault(role, f"methods.{name}.{part}")
        for role in self.alpha.between:
            sft_seed(role)
            used.setdefault(role, "alpha.between")
        return used

    def roles_of_first(self) -> dict[str, str]:
        """Roles that the first replicate needs: `alpha.also` is measured in it alone."""
        return {role: "alpha.also" for other in self.alpha.also for role in ingredients(other)} | self.roles()

    def _check_reward_name(self, key: str, name: str) -> None:
        """Raise a ValueError if a reward model of one base model has the name of another; `name` is what follows it."""
        for clash in (model + name for model in self.models if model + name in self.models):
            raise ValueError(f"{key}: its reward model is called {clash}, as a model is: rename one")

    def _check_replicates(self) -> None:
        for number, (name, replicate) in enumerate(self.replicates.items()):
            replicate.check_roles(name, self.roles() if number else self.roles_of_first())
            if replicate.reward_seed is not None:
                self._check_reward_name(f"replicates.{name}", suffix(name))
        if self.reward.held_out is not None:
            self._check_reward_name("reward.held_out", suffix(HELD_OUT))
        for name, method in self.methods.items():
            for version in reward_versions({name: method})[1:]:
                self._check_reward_name(f"methods.{name}.reward", f".{version}")
        check_independence(self.replicates)
        if self.policies_together and len({tuple(r.rl_seeds or self.rl_seeds) for r in self.replicates.values()}) > 1:
            raise ValueError("policies_together: needs the same rl_seeds in all replicates: change one of them")


def at_beta(method: str, beta: float) -> str:
    """Name of a method at another beta."""
    return f"{method}-b{beta:g}"


def all_replicates(config: Config) -> dict[str, Replicate]:
    """The replicates with their RL seeds; without the section one without a name, in which sft-N is SFT run N."""
    if not config.replicates:
        seeds = {role: int(sft_seed(role)) for role in sorted(config.roles_of_first())}
        return {UNNAMED: Replicate(sft=seeds, rl_seeds=config.rl_seeds)}
    return {
        name: replicate.model_copy(update={"rl_seeds": replicate.rl_seeds or config.rl_seeds})
        for name, replicate in config.replicates.items()
    }


def parse_config(data: Any, where: str) -> Config:
    """Validate a config. A UserError names the first wrong key; `where` names the source in the message."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise UserError(describe(error, where)) from None


def load_config(*paths: Path) -> Config:
    """Load a config from YAML; further files are merged into the first one as Snakemake's --configfile does."""
    data: dict[str, Any] = {}
    for path in paths:
        try:
            part = yaml.safe_load(path.read_text())
        except OSError as error:
            raise UserError(f"{path}: cannot read it: {error.strerror}; correct the path") from None
        except yaml.YAMLError as error:
            raise UserError(f"{path}: not YAML: {str(error).splitlines()[0]}; fix it") from None
        if not isinstance(part, dict):
            raise UserError(f"{path}: a config is a mapping of sections, not {type(part).__name__}: fix it")
        if data:
            from snakemake.utils import update_config  # needs the extra `workflow`

            update_config(data, part)
        else:
            data = part
    return parse_config(data, " + ".join(map(str, paths)))


def with_local_copies(config: Config) -> tuple[Config, dict[str, DataSource]]:
    """Replace each hub data set by the local file that the stage `fetch` downloads it to.

    Returns the new config and {local file: hub source}. All grids share the file of a revision.
    """
    to_fetch: dict[str, DataSource] = {}

    def localised(value: Any) -> Any:
        if isinstance(value, list):
            return [localised(element) for element in value]
        if not isinstance(value, dict):
            return value
        if value.get("split") is None or value.get("hub") is None:
            return {key: localised(element) for key, element in value.items()}
        hub = {key: value[key] for key in ("hub", "revision", "split")}
        path = f"{config.paths.data}/hub/{hub['hub'].replace('/', '--')}/{hub['revision']}/{hub['split']}.jsonl"
        to_fetch[path] = DataSource(**hub)
        return {"path": path, **{key: value[key] for key in value if key not in hub}}

    return Config.model_validate(localised(config.model_dump(exclude_unset=True))), to_fetch


def _changed(section: Any, changes: dict[str, Any]) -> Any:
    if isinstance(section, dict):
        return section | changes
    return type(section).model_validate({**section.model_dump(), **changes})


def for_model(config: Config, model: str) -> Config:
    """The config with a model's own settings (`models.MODEL.settings`) applied to the sections."""
    changes = config.models[model].settings
    return config.model_copy(update={name: _changed(getattr(config, name), part) for name, part in changes.items()})


def rl_section(config: Config, algorithm: str) -> Rl:
    """Settings of an algorithm that samples responses: those it shares with the section ppo, then its own section."""
    schema = RL_ALGORITHMS[algorithm]
    shared = {key: value for key, value in config.ppo.model_dump().items() if key in schema.model_fields}
    return schema.model_validate(shared | config.own_section(algorithm))


def algorithm_settings(config: Config, model: str, method: str) -> Rl | Dpo:
    """Training settings of a method: its algorithm's section, then the model's changes, then the method's own."""
    entry = config.methods[method]
    adapted = for_model(config, model)
    if entry.algorithm == "dpo":
        assert adapted.dpo is not None, "checked with the config"
        changed: Dpo = _changed(adapted.dpo, entry.settings)
        return changed
    section: Rl = _changed(rl_section(adapted, entry.algorithm), entry.settings)
    return section


class FrontierRun(Section):
    """A method of the frontier at one beta; `name` is the method in the config that trains it."""

    method: str
    beta: NonNegative
    name: str


def frontier_runs(config: Config) -> list[FrontierRun]:
    """All runs of the frontier, by method and beta; none without the section."""
    if config.frontier is None:
        return []
    runs = []
    for method in config.frontier.methods:
        betas = config.frontier.betas_of(method)
        named = {config.beta_of(method): method} | {beta: at_beta(method, beta) for beta in betas}
        runs += [FrontierRun(method=method, beta=beta, name=named[beta]) for beta in sorted(named)]
    return runs
