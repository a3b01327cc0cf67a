"""The models of a PPO run, and their log-probabilities, entropies and values on given responses."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from salsa.checkpoints.loading import check_vocabularies, device, load_causal, load_reward, load_tokenizer
from salsa.config.references import Fixed, Strategy
from salsa.config.sections import PpoSettings
from salsa.models.attention import Packed, hidden_states
from salsa.models.frozen import Frozen, FrozenOnDevice, load_frozen
from salsa.models.sampling import Answer
from salsa.models.scoring import LOGITS_AT_A_TIME, normalisation, output_head, predictors, rewards
from salsa.models.sharded import ForwardWrapper, gather_model, gather_tensor
from salsa.ppo.math import entropy, token_log_probs
from salsa.runtime.errors import UserError

T = TypeVar("T")
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Prompt:
    """A dialogue that ends with a user turn, and its token ids."""

    messages: Messages
    ids: list[int]


class Reward(Protocol):
    """Scores responses. The scores are the rewards that PPO maximises, in the unit of `beta` and the EOS penalty."""

    def __call__(
        self, prompts: Sequence[Prompt], answers: Sequence[Answer], batches: Sequence[Sequence[int]]
    ) -> list[float]:
        """One score per response. Each process calls it for its share of a rollout.

        `batches` are the responses' indices, divided so that each part fits into a forward pass.
        """
        ...


class RewardModel:
    """A trained reward model: its score at the last token, normalised by `mean` and `std`."""

    def __init__(self, model: Frozen, mean: float, std: float):
        self.model, self.mean, self.std = model, mean, std

    def __call__(
        self, prompts: Sequence[Prompt], answers: Sequence[Answer], batches: Sequence[Sequence[int]]
    ) -> list[float]:
        sequences = [prompt.ids + answer.token_ids for prompt, answer in zip(prompts, answers, strict=True)]
        return self.model.forward(lambda model: rewards(model, sequences, batches, self.mean, self.std))


class Trained:
    """A trained model. A Learner distributes it over the processes."""

    def __init__(self, model: PreTrainedModel, dtype: str = "float32"):
        self.model, self.dtype = model, dtype
        self.module: torch.nn.Module = ForwardWrapper(model)
        self.is_sharded = False

    def replace_module(self, module: torch.nn.Module, is_sharded: bool) -> None:
        """Route all passes through `module`, the distributed version of the wrapper."""
        self.module, self.is_sharded = module, is_sharded

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        """Return fn(model), computed in one pass. Every process has to call it."""

        def autocasting(model: PreTrainedModel) -> T:
            # Inside the module's forward, because DeepSpeed disables autocast around it.
            with autocast(self.dtype):
                return fn(model)

        return self.module(autocasting)

    def parameters(self) -> Iterator[Tensor]:
        """Yield the complete parameters one at a time. Every process has to iterate."""
        return map(gather_tensor, self.model.parameters())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Like `parameters`, with their names in a checkpoint."""
        return ((name, gather_tensor(parameter)) for name, parameter in self.model.named_parameters())

    @contextlib.contextmanager
    def complete(self, dtype: str) -> Iterator[PreTrainedModel]:
        """Yields the complete model on this device, in evaluation mode; a copy in `dtype` if it is sharded.

        In training mode, gradient checkpointing would disable the key-value cache that sampling needs.
        """
        if not self.is_sharded:
            was_training = self.model.training
            self.model.eval()
            try:
                yield self.model
            finally:
                self.model.train(was_training)
            return
        yield gather_model(self.model, AutoModelForCausalLM, dtype)


@dataclass(frozen=True)
class Models:
    """All models of a run. `policy` and `value` are trained in float32; the others are frozen.

    `strategy` computes the reference from `references`. A folder that is used twice is loaded once.
    """

    tokenizer: PreTrainedTokenizerBase
    policy: Trained
    value: Trained
    references: list[Frozen]
    sft: Frozen
    reward: Reward
    normalisation: tuple[float, float]  # mean and std that turn the value model's output into units of the reward
    strategy: Strategy = field(default_factory=Fixed)

    def after_step(self, step: int) -> None:
        """Update a moving reference after the policy's optimiser step number `step`."""
        if self.strategy.moves:
            with torch.no_grad():
                self.strategy.after_step(self.moving_references(), self.policy, step)

    def moving_references(self) -> list[PreTrainedModel]:
        """The models of a moving reference; none if the reference is fixed."""
        return [part.model for part in self.references if self.strategy.moves and isinstance(part, FrozenOnDevice)]


def frozen_model(load: Callable[..., PreTrainedModel], folder: Path, settings: PpoSettings) -> Frozen:
    """A frozen model, kept where `settings.frozen_models` says."""
    return load_frozen(lambda place: load(folder, settings.dtype, place).requires_grad_(False), settings.frozen_models)


def load_models(
    init: Path, references: Sequence[Path], strategy: Strategy, sft: Path, reward: Path, settings: PpoSettings
) -> Models:
    """Load the models of a run with a trained reward model, from which the value model starts."""
    tokenizer = load_tokenizer(init)
    named = [*(("--reference", path) for path in references), ("--sft", sft), ("--reward", reward)]
    check_vocabularies(tokenizer, named)
    mean_and_std = normalisation(reward)
    score = RewardModel(frozen_model(load_reward, reward, settings), *mean_and_std)
    value = load_reward(reward, place=torch.device("cpu"))
    return assemble(tokenizer, init, references, strategy, sft, score, value, mean_and_std, settings)


def assemble(
    tokenizer: PreTrainedTokenizerBase,
    init: Path,
    references: Sequence[Path],
    strategy: Strategy,
    sft: Path,
    reward: Reward,
    value: PreTrainedModel,
    mean_and_std: tuple[float, float],
    settings: PpoSettings,
) -> Models:
    """Load policy and references, in evaluation mode: dropout is off even in training."""
    fixed = {
        path: frozen_model(load_causal, path, settings)
        for path in sorted({sft.resolve(), *(() if strategy.moves else (path.resolve() for path in references))})
    }
    models = Models(
        tokenizer=tokenizer,
        # On the CPU, because a Learner moves the model, or each process's shard of it, to the device.
        policy=Trained(load_causal(init, place=torch.device("cpu")), settings.dtype),
        value=Trained(value, settings.dtype),
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
    if settings.gradient_checkpointing:
        for model in (models.policy.model, models.value.model):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()
            disable_dropout(model)
    return models


def disable_dropout(model: PreTrainedModel) -> None:
    """Turn dropout off in training mode, which gradient checkpointing requires."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for key in ("attention_dropout", "hidden_dropout"):
        if getattr(model.config, key, 0.0):
            raise UserError(f"{model.name_or_path}/config.json: {key} is not 0: set it to 0 for PPO")


def autocast(dtype: str) -> contextlib.AbstractContextManager:
    """Autocast to bfloat16 over float32 weights, or do nothing for float32."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device().type, torch.bfloat16)


@dataclass(frozen=True)
class Sequences:
    """Packed prompts with responses. For the N response tokens: their ids `tokens` [N], and the `places` [N] of the
    hidden states that predict them."""

    packed: Packed
    places: Tensor
    tokens: Tensor

    @staticmethod
    def build(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> "Sequences":
        """Pack prompts and responses (token ids), on this process's device."""
        packed = Packed.of([prompt + response for prompt, response in zip(prompts, responses, strict=True)], device())
        places = predictors(prompts, responses).to(device())
        return Sequences(packed, places, packed.ids[places + 1])

    def states(self, model: PreTrainedModel) -> Tensor:
        """The model's hidden states [N, D] that predict the response tokens."""
        return hidden_states(model, self.packed)[self.places]


def chunk_size(model: PreTrainedModel) -> int:
    """Number of positions whose logits may exist at once."""
    return max(1, LOGITS_AT_A_TIME // model.config.get_text_config().vocab_size)


def log_probs(model: PreTrainedModel, sequences: Sequences, temperature: float) -> Tensor:
    """Log-probabilities [N] of the response tokens at the sampling temperature."""
    states = sequences.states(model)
    return token_log_probs(states, sequences.tokens, output_head(model), temperature, chunk_size(model))


@torch.no_grad()
def log_probs_and_entropy(model: PreTrainedModel, sequences: Sequences, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N] of the response tokens, and the entropies [N] of the distributions at their positions."""
    states = sequences.states(model)
    head, chunk = output_head(model), chunk_size(model)
    log_probs, entropies = [], []
    for part, tokens in zip(states.split(chunk), sequences.tokens.split(chunk), strict=True):
        distribution = (head(part).float() / temperature).log_softmax(-1)
        log_probs.append(distribution.gather(1, tokens[:, None])[:, 0])
        entropies.append(entropy(distribution))
    return torch.cat(log_probs), torch.cat(entropies)


def values(model: PreTrainedModel, sequences: Sequences, normalise: tuple[float, float]) -> Tensor:
    """Values [N] of the states before each response token, in units of the normalised reward."""
    states = sequences.states(model)
    mean, std = normalise
    return (model.score(states)[:, 0].float() - mean) / std
