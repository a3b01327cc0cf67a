"""What the costs of a model's stages are made of: passes, sampling, memory of training, checkpoints."""

import math

from eval.costs import memory
from eval.costs.assumed import Dtype, Engine, Start, assumed
from eval.costs.memory import PROCESS, Memory, Phase
from eval.costs.sizes import Rows, Sizes
from eval.costs.work import CHECKPOINTED, FORWARD, TRAINING, Decoding, Passes, Starting
from salsa.config.algorithms import Rl
from salsa.config.config import for_model
from salsa.config.sections import Optimisation


def micro_batch(settings: Optimisation) -> int:
    return settings.micro_batch_size or settings.batch_size


def training_factor(settings: Optimisation | Rl) -> int:
    """Operations of a training pass in forward passes. With LoRA no gradients of the base's weights are computed."""
    factor = CHECKPOINTED if settings.gradient_checkpointing else TRAINING
    return factor if settings.lora is None else factor - 1


class ModelCosts:
    """A model's sizes, and the parts of its stages' costs."""

    def __init__(self, sizes: Sizes, model: str):
        self.sizes, self.model, self.config = sizes, model, sizes.local
        self.settings = for_model(self.config, model)
        self.shape = sizes.shape(model)
        self.sets = sizes.all_sets(model)
        self.disk_rate = assumed().disk_bytes_per_second

    def _references(self, method: str) -> set[str]:
        """Names of the models in a method's reference. A moving reference is not the checkpoint that it starts from."""
        strategy, checkpoints = self.config.methods[method].reference_parts()
        moving = "moving " if strategy.moves else ""
        return {f"{moving}{checkpoint}" for checkpoint in checkpoints}

    def _start(self, models: int) -> Starting:
        """The start of a process that loads `models` models."""
        return Starting(self._launched, models * self._weights("bfloat16"), self.disk_rate)

    @property
    def _launched(self) -> Start:
        """How the rules' launcher starts a process."""
        return "transformers" if self.config.world is None else "forked"

    def _weights(self, dtype: Dtype) -> float:
        return memory.weights(self.shape, dtype)

    def _cache(self, dtype: Dtype, tokens: float) -> float:
        return memory.cache(self.shape, dtype, tokens)

    def _training(self, settings: Optimisation, dialogues: int, logits: bool) -> Memory:
        """Memory of supervised training on rows of `dialogues` dialogues of the maximum length."""
        tokens = dialogues * micro_batch(settings) * settings.max_length
        # TRL computes logits in chunks.
        predicted = min(tokens, memory.LOGITS_CHUNK / memory.LOGITS / self.shape.vocabulary) if logits else 0
        given = (tokens, predicted, settings.gradient_checkpointing)
        if settings.lora is not None:
            return memory.adapter_training(self.shape, settings.dtype, settings.lora, *given)
        return memory.training(self.shape, settings.dtype, *given).then(self._unsharded(settings))

    def _unsharded(self, settings: Optimisation, further: float = 0.0) -> Phase:
        """Each device holds the whole model before and after it is sharded, with so many further bytes."""
        if settings.lora is not None:
            return Phase(0, PROCESS + memory.frozen_base(self.shape, settings.dtype, settings.lora) + further)
        return Phase(0, PROCESS + self._weights("float32") + further)

    def _checkpoint(self, settings: Optimisation | Rl, starts: int = 1) -> float:
        """Bytes of a stage's checkpoint on disk. With LoRA it is float32, with the adapters of SFT that it contains."""
        if settings.lora is None:
            return self._weights(settings.dtype)
        first = self.settings.sft.lora
        adapters = [first] * starts + ([settings.lora] if settings is not self.settings.sft else [])
        return 4.0 * sum(memory.adapter_parameters(self.shape, part) for part in adapters if part is not None)

    def _passes(
        self,
        dtype: Dtype,
        rows: Rows,
        epochs: float = 1,
        predicted: float = 0,
        batches: float = 1,
        factor: int = FORWARD,
        updates: float = 0,
    ) -> Passes:
        """Passes over rows; `predicted` is the share of their tokens that have logits."""
        tokens = rows.count * rows.tokens * epochs
        return Passes(self.shape, dtype, tokens, rows.tokens / 2, predicted * tokens, batches, factor, updates)

    def _decoding(
        self,
        dtype: Dtype,
        rows: float,
        batch: float,
        prompt: float,
        limit: int,
        engine: Engine = "transformers",
        rounds: float = 1,
    ) -> Decoding:
        answer = self.sizes.answer(limit)
        return Decoding(self.shape, dtype, engine, rows, batch, prompt, answer, limit, rounds)

    def _batches(self, settings: Optimisation, rows: Rows) -> float:
        return math.ceil(rows.count * settings.epochs / micro_batch(settings))

    def _supervised(self, settings: Optimisation, rows: Rows, predicted: float) -> Passes:
        """Supervised training on rows."""
        updates = math.ceil(rows.count * settings.epochs / settings.batch_size)
        batches, updates = self._batches(settings, rows), updates if settings.lora is None else 0
        return self._passes(
            settings.dtype, rows, settings.epochs, predicted, batches, training_factor(settings), updates
        )

    def _test(self, settings: Optimisation, rows: Rows, predicted: float) -> Passes:
        """Passes over rows without gradients."""
        return self._passes(settings.dtype, rows, predicted=predicted, batches=rows.count / micro_batch(settings))
