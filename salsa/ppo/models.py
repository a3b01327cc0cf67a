"""The models of a PPO run, and what they say about given responses: log-probabilities, entropies, values.

Sequences are right-padded here, so that positions are those of the tokens themselves; only sampling pads on the left.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from salsa.checkpoints.loading import check_vocabularies, device, load_causal, load_reward, load_tokenizer
from salsa.config.references import Fixed, Strategy
from salsa.config.sections import Ppo
from salsa.models.scoring import LOGITS_AT_A_TIME, normalisation, output_head, predictors, right_pad, states_at
from salsa.models.sharded import full, whole_copy
from salsa.ppo.math import entropy, token_log_probs
from salsa.runtime.errors import UserError

T = TypeVar("T")


class Frozen:
    """A model that is only asked: kept in memory, or read from its folder each time that it is needed."""

    def __init__(self, load: Callable[[], PreTrainedModel], keep: bool = True):
        self._load = load
        self.kept = load() if keep else None

    @staticmethod
    def of(model: PreTrainedModel) -> "Frozen":
        return Frozen(lambda: model)

    def ask(self, question: Callable[[PreTrainedModel], T]) -> T:
        """What `question` finds; a model that is not kept is gone afterwards."""
        return question(self._load() if self.kept is None else self.kept)


class Whole(torch.nn.Module):
    """A model whose forward pass is an answer to a question, so that what DDP and FSDP do stands around all of it."""

    def __init__(self, model: torch.nn.Module, dtype: str):
        super().__init__()
        self.model, self.dtype = model, dtype
        self.config = getattr(model, "config", None)
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    def forward(self, question: Callable[[torch.nn.Module], T]) -> T:
        # In here, because DeepSpeed switches off what is around it.
        with computing_in(self.dtype):
            return question(self.model)


class Trained:
    """A model in training, which a Learner lets the processes share."""

    def __init__(self, model: PreTrainedModel, dtype: str = "float32"):
        self.model = model
        self.module: torch.nn.Module = Whole(model, dtype)
        self.in_shards = False

    def shared(self, module: torch.nn.Module, in_shards: bool) -> None:
        """From now on the model's passes go through `module`, of which each process may hold a part."""
        self.module, self.in_shards = module, in_shards

    def ask(self, question: Callable[[PreTrainedModel], T]) -> T:
        """What `question` finds in one pass; every process has to ask."""
        return self.module(question)

    def parameters(self) -> Iterator[Tensor]:
        """The parameters, whole, one at a time; every process has to take them."""
        return map(full, self.model.parameters())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters like this, with the names that a checkpoint has them under."""
        return ((name, full(parameter)) for name, parameter in self.model.named_parameters())

    @contextlib.contextmanager
    def whole(self, dtype: str) -> Iterator[PreTrainedModel]:
        """The model with all its weights on this device: itself, or where it is in shards, a copy in `dtype`.

        In evaluation mode: in training mode, gradient checkpointing throws away the cache that sampling lives on.
        """
        if not self.in_shards:
            was_training = self.model.training
            self.model.eval()
            try:
                yield self.model
            finally:
                self.model.train(was_training)
            return
        yield whole_copy(self.model, AutoModelForCausalLM, dtype)


@dataclass(frozen=True)
class Models:
    """`policy` and `value` are trained, in float32; the others are frozen. Equal folders are one model.

    The reference is what `strategy` makes of `references`.
    """

    tokenizer: PreTrainedTokenizerBase
    policy: Trained
    value: Trained
    references: list[Frozen]
    sft: Frozen
    reward: Frozen
    normalisation: tuple[float, float]
    strategy: Strategy = field(default_factory=Fixed)

    def after_step(self, step: int) -> None:
        """Lets a reference that moves follow the policy's optimiser step, the `step`th."""
        if self.strategy.moves:
            with torch.no_grad():
                self.strategy.after_step([reference.kept for reference in self.references], self.policy, step)


def load_models(
    init: Path, references: Sequence[Path], strategy: Strategy, sft: Path, reward: Path, settings: Ppo
) -> Models:
    """All of them, in evaluation mode: dropout stays off, also in training."""
    tokenizer = load_tokenizer(init)
    named = [*(("--reference", path) for path in references), ("--sft", sft), ("--reward", reward)]
    check_vocabularies(tokenizer, named)

    def frozen(load: Callable[[Path, str], PreTrainedModel], folder: Path) -> Frozen:
        return Frozen(lambda: load(folder, settings.dtype).requires_grad_(False), settings.keep_frozen_models)

    fixed = {
        path: frozen(load_causal, path)
        for path in sorted({sft.resolve(), *(() if strategy.moves else (path.resolve() for path in references))})
    }
    cpu = torch.device("cpu")  # a Learner brings them to the device, or each process its shard of them
    models = Models(
        tokenizer=tokenizer,
        policy=Trained(load_causal(init, place=cpu), settings.dtype),
        value=Trained(load_reward(reward, place=cpu), settings.dtype),
        references=[
            # In a narrower type small steps of a moving reference would be rounded away.
            Frozen.of(load_causal(path).requires_grad_(False)) if strategy.moves else fixed[path.resolve()]
            for path in references
        ],
        sft=fixed[sft.resolve()],
        reward=frozen(load_reward, reward),
        normalisation=normalisation(reward),
        strategy=strategy,
    )
    if settings.gradient_checkpointing:
        for model in (models.policy.model, models.value.model):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()
            drop_nothing(model)
    return models


def drop_nothing(model: PreTrainedModel) -> None:
    """Gradient checkpointing works in training mode alone; dropout stays off there too."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for key in ("attention_dropout", "hidden_dropout"):
        if getattr(model.config, key, 0.0):
            raise UserError(f"{model.name_or_path}/config.json: {key} is not 0: PPO needs it to be")


def computing_in(dtype: str) -> contextlib.AbstractContextManager:
    """bfloat16 passes over float32 weights, or nothing."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device().type, torch.bfloat16)


@dataclass(frozen=True)
class Sequences:
    """Prompts and responses [B, L], right-padded, and the places [N] that response tokens [N] are predicted from."""

    ids: Tensor
    mask: Tensor
    index: Tensor
    tokens: Tensor

    @staticmethod
    def of(prompts: Sequence[list[int]], responses: Sequence[list[int]], pad: int) -> "Sequences":
        whole = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        ids, mask = right_pad(whole, pad, device())
        index, _ = predictors(prompts, responses, ids.shape[1])
        tokens = torch.tensor([token for response in responses for token in response], device=device())
        return Sequences(ids, mask, index.to(device()), tokens)


def chunk_size(model: PreTrainedModel) -> int:
    """Positions whose logits may exist at once."""
    return max(1, LOGITS_AT_A_TIME // model.config.get_text_config().vocab_size)


def log_probs(model: PreTrainedModel, sequences: Sequences, temperature: float) -> Tensor:
    """Log-probabilities [N] of the response tokens at the sampling temperature."""
    states = states_at(model, sequences.ids, sequences.mask, sequences.index)
    return token_log_probs(states, sequences.tokens, output_head(model), temperature, chunk_size(model))


@torch.no_grad()
def log_probs_and_entropy(model: PreTrainedModel, sequences: Sequences, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N] of the response tokens, and the entropies [N] of what they were drawn from."""
    states = states_at(model, sequences.ids, sequences.mask, sequences.index)
    head, chunk = output_head(model), chunk_size(model)
    found, entropies = [], []
    for part, tokens in zip(states.split(chunk), sequences.tokens.split(chunk), strict=True):
        distribution = (head(part).float() / temperature).log_softmax(-1)
        found.append(distribution.gather(1, tokens[:, None])[:, 0])
        entropies.append(entropy(distribution))
    return torch.cat(found), torch.cat(entropies)


def values(model: PreTrainedModel, sequences: Sequences, normalise: tuple[float, float]) -> Tensor:
    """Values [N] of the states that the response tokens are chosen in, in units of the normalised reward."""
    states = states_at(model, sequences.ids, sequences.mask, sequences.index)
    mean, std = normalise
    return (model.score(states)[:, 0].float() - mean) / std
