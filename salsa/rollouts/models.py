"""The models of a run: the policy, and frozen ones; whole, or with LoRA as adapters of a shared base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from salsa.checkpoints.ensembles import read_ensemble
from salsa.checkpoints.loading import check_vocabularies, load_causal, load_reward, load_tokenizer
from salsa.config.algorithms import RlSettings
from salsa.config.references import Fixed, Strategy
from salsa.config.sections import Lora
from salsa.devices import processes
from salsa.lora.checkpoint import load_frozen_base
from salsa.lora.layers import insert_new
from salsa.lora.shared import FrozenAdapter, SharedBase, TrainedAdapter
from salsa.models.frozen import Frozen, FrozenOnDevice, load_frozen
from salsa.models.scoring import normalisation
from salsa.models.trained import Trained
from salsa.rollouts.rewards import EnsembleReward, Reward, RewardModel
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import derive_seed


@dataclass(frozen=True)
class Models:
    """The models of a run. `policy` is trained in float32; the others are frozen.

    `strategy` computes the reference from `references`. A folder that is used twice is loaded once.
    """

    tokenizer: PreTrainedTokenizerBase
    policy: Trained
    references: list[Frozen]
    sft: Frozen
    reward: Reward
    normalisation: tuple[float, float]  # mean and std that turn a value model's output into units of the reward
    strategy: Strategy = field(default_factory=Fixed)

    def after_step(self, step: int) -> None:
        """Update a moving reference after the policy's optimiser step number `step`."""
        if self.strategy.moves:
            with torch.no_grad():
                self.strategy.after_step(self.moving_references(), self.policy, step)

    def moving_references(self) -> list[PreTrainedModel]:
        """The models of a moving reference; none if the reference is fixed."""
        return [part.model for part in self.references if self.strategy.moves and isinstance(part, FrozenOnDevice)]


def frozen_model(load: Callable[..., PreTrainedModel], folder: Path, settings: RlSettings) -> Frozen:
    """A frozen model, kept where `settings.frozen_models` says."""
    return load_frozen(lambda place: load(folder, settings.dtype, place).requires_grad_(False), settings.frozen_models)


class WholeModelLoader:
    """Loads a run's models, each with all its weights."""

    def __init__(self, settings: RlSettings):
        self.settings = settings

    def policy(self, init: Path) -> Trained:
        # On the CPU, because a Learner moves the model, or each process's shard of it, to the device.
        return to_train(Trained(load_causal(init, place=torch.device("cpu")), self.settings.dtype), self.settings)

    def value(self, start: Path) -> Trained:
        """The value model, which starts from a reward model, or from a language model and a random head."""
        return to_train(Trained(load_reward(start, place=torch.device("cpu")), self.settings.dtype), self.settings)

    def causal(self, folder: Path) -> Frozen:
        """A frozen language model."""
        return frozen_model(load_causal, folder, self.settings)

    def reward(self, folder: Path) -> Frozen:
        """A frozen reward model."""
        return frozen_model(load_reward, folder, self.settings)


class AdapterLoader:
    """Loads a run's models as adapters of few bases, with LoRA: the policy's, and the reward model's if that differs.

    Frozen models that have other bases are loaded whole.
    """

    def __init__(self, settings: RlSettings, lora: Lora, seed: int):
        if processes.use_fsdp2() or processes.use_deepspeed():
            raise UserError(
                "ppo.lora: FSDP2 and DeepSpeed shard weights that train: launch with profiles/accelerate/ddp.yaml, "
                "one copy of the base per GPU"
            )
        self.settings, self.lora, self.seed = settings, lora, seed
        self.bases: list[SharedBase] = []
        self.others = WholeModelLoader(settings)

    def _base(self, checkpoint: Path, auto: Any) -> SharedBase:
        """The checkpoint's base, loaded at the first call."""
        for base in self.bases:
            if base.has(checkpoint):
                return base
        model = load_frozen_base(auto, checkpoint, self.lora, self.settings.dtype)
        self.bases.append(SharedBase(model, self.settings.dtype))
        return self.bases[-1]

    def _trained(self, model: PreTrainedModel, base: SharedBase, start: Path, name: str) -> Trained:
        adapters = base.adapters_of(start)
        insert_new(base.model, name, self.lora, derive_seed(self.seed, "ppo", name))
        return to_train(TrainedAdapter(model, self.settings.dtype, [*adapters, name], name), self.settings)

    def policy(self, init: Path) -> Trained:
        base = self._base(init, AutoModelForCausalLM)
        return self._trained(base.model, base, init, "policy")

    def value(self, start: Path) -> Trained:
        base = self._base(start, AutoModelForSequenceClassification)
        return self._trained(base.scorer(start), base, start, "value")

    def causal(self, folder: Path) -> Frozen:
        shared = next((base for base in self.bases if base.has(folder)), None)
        return self.others.causal(folder) if shared is None else shared.frozen(folder)

    def reward(self, folder: Path) -> Frozen:
        base = self._base(folder, AutoModelForSequenceClassification)
        model = base.scorer(folder).requires_grad_(False)
        return FrozenAdapter(model, base.adapters_of(folder), self.settings.dtype)


def loader_for(settings: RlSettings, seed: int) -> WholeModelLoader | AdapterLoader:
    """How a run's models are loaded. `seed` is for new adapters (LoRA)."""
    return WholeModelLoader(settings) if settings.lora is None else AdapterLoader(settings, settings.lora, seed)


def load_models(
    loader: WholeModelLoader | AdapterLoader,
    init: Path,
    references: Sequence[Path],
    strategy: Strategy,
    sft: Path,
    reward: Path,
) -> Models:
    """Load the models of a run with a trained reward model, or with an ensemble of them."""
    tokenizer = load_tokenizer(init)
    ensemble = read_ensemble(reward)
    scorers = [reward] if ensemble is None else ensemble.models
    named = [("--reference", path) for path in references] + [("--sft", sft)]
    check_vocabularies(tokenizer, named + [("--reward", path) for path in scorers])
    policy = loader.policy(init)
    models = [RewardModel(loader.reward(path), *normalisation(path)) for path in scorers]
    score = models[0] if ensemble is None else EnsembleReward(ensemble, models)
    return assemble(tokenizer, loader, policy, references, strategy, sft, score, normalisation(scorers[0]))


def value_start(reward: Path) -> Path:
    """The reward model that a value model starts from: the given one, or the first of an ensemble."""
    ensemble = read_ensemble(reward)
    return reward if ensemble is None else ensemble.models[0]


def assemble(
    tokenizer: PreTrainedTokenizerBase,
    loader: WholeModelLoader | AdapterLoader,
    policy: Trained,
    references: Sequence[Path],
    strategy: Strategy,
    sft: Path,
    reward: Reward,
    mean_and_std: tuple[float, float],
) -> Models:
    """Load the references and SFT 1, each folder once."""
    fixed = {
        path: loader.causal(path)
        for path in sorted({sft.resolve(), *(() if strategy.moves else (path.resolve() for path in references))})
    }
    return Models(
        tokenizer=tokenizer,
        policy=policy,
        references=[
            # A moving reference is float32: in bfloat16 its small steps would be rounded away.
            FrozenOnDevice(load_causal(path).requires_grad_(False)) if strategy.moves else fixed[path.resolve()]
            for path in references
        ],
        sft=fixed[sft.resolve()],
        reward=reward,
        normalisation=mean_and_std,
        strategy=strategy,
    )


def to_train(trained: Trained, settings: RlSettings) -> Trained:
    """The model in evaluation mode, since dropout is off even in training; or with gradient checkpointing."""
    if settings.gradient_checkpointing:
        trained.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        trained.model.train()
        disable_dropout(trained.model)
    return trained


def disable_dropout(model: PreTrainedModel) -> None:
    """Turn dropout off in training mode, which gradient checkpointing requires."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for key in ("attention_dropout", "hidden_dropout"):
        if getattr(model.config, key, 0.0):
            raise UserError(f"{model.name_or_path}/config.json: {key} is not 0: set it to 0 for PPO")
