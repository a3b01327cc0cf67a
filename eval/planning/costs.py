"""What each stage of a model's takes: its work, its memory, and what it leaves on disk.

Memory of training is docs/benchmarks.md's formula. What a stage does is its own module's: this only counts it.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Self

from eval.grid import alpha_line
from eval.planning.assumed import assumed
from eval.planning.sizes import Rows, Sizes
from eval.planning.work import (
    BYTES,
    CHECKPOINTED,
    FORWARD,
    TRAINING,
    Decoding,
    Dtype,
    Memory,
    Passes,
    Starting,
    Waiting,
    Work,
)
from salsa.config import algorithm_settings, for_model
from salsa.naming import Checkpoint
from salsa.sections import ROLLOUT_VLLM, DataSource, Dpo, Optimisation, Ppo

PROCESS = 0.5e9  # bytes of a process, or of a device's context, before any model
LOGITS = 12  # bytes of a logit and its gradient, with their copies in other types
CHUNK_OF_LOGITS = 1e9
VLLM_AT_ONCE = 256
VLLM_OWN = 3e9  # beside weights and cache
STATES = 2  # of an unfinished PPO run on disk: the one kept, and the one that is being written
WHOLE_ROWS = 2.0  # a row in its file, with what no one reads, over the text that is read


@dataclass(frozen=True)
class Calls:
    """Of a judge, and their tokens."""

    number: float = 0
    asked: float = 0
    answered: float = 0

    def times(self, count: float) -> Self:
        return replace(self, number=self.number * count, asked=self.asked * count, answered=self.answered * count)


@dataclass(frozen=True)
class Cost:
    """Without `memory` a job takes no device. `spreads`: several devices can share it. Bytes on `disk` stay, those of
    `scratch` go when it ends."""

    work: tuple[Work, ...] = ()
    memory: Memory | None = None
    spreads: bool = False
    disk: float = 0.0
    scratch: float = 0.0
    calls: Calls = field(default_factory=Calls)


FREE = Cost(work=(Waiting(assumed().without_torch_seconds),))
ANALYSIS = Cost(work=(Waiting(assumed().analysis_seconds),))


class Costs:
    """Of one model of a config."""

    def __init__(self, sizes: Sizes, model: str):
        self.sizes, self.model, self.config = sizes, model, sizes.local
        self.own = for_model(self.config, model)
        self.shape = sizes.shape(model)
        self.sets = sizes.all_sets(model)
        self.disk_rate = assumed().disk_bytes_per_second

    # What comes before training

    @staticmethod
    def fetch(sizes: Sizes, path: str) -> Cost:
        """A data set's split from the hub."""
        hub = sizes.hub[path]
        known = assumed().data_sets.get(hub.hub or "", {}).get(hub.split or "")
        size = known.rows * max(known.tokens.values()) * assumed().bytes_per_token * WHOLE_ROWS if known else 0.0
        return Cost(work=(*FREE.work, Waiting(size / assumed().download_bytes_per_second)), disk=size)

    def base(self) -> Cost:
        entry = self.config.models[self.model]
        if entry.local is not None:
            return Cost(work=(self._start(0),))
        if entry.hub is not None:
            size = BYTES["bfloat16"] * self.shape.parameters
            return Cost(work=(self._start(0), Waiting(size / assumed().download_bytes_per_second)), disk=size)
        world, base = self.config.world, self.config.base
        assert world is not None and base is not None, "checked with the config"
        rows = Rows(world.pretrain_documents, assumed().world.tokens["pretraining"])
        updates = math.ceil(rows.count * base.epochs / base.batch_size)
        work = self._passes("float32", rows, base.epochs, 1, updates, TRAINING, updates)
        memory = self._training(base.batch_size * rows.tokens)
        return Cost((self._start(0), work), memory, disk=4 * self.shape.parameters)

    def data(self) -> Cost:
        tokens = sum(rows.count * rows.tokens for rows in self.sets.values())
        return Cost(work=(self._start(0), Waiting(tokens / assumed().tokenised_per_second)), disk=8 * tokens)

    def soup(self, count: int) -> Cost:
        size = self._held(self.own.sft.dtype)
        return Cost(work=(Waiting((count + 1) * size / self.disk_rate),), disk=size)

    # Training

    def sft(self) -> Cost:
        settings, train = self.own.sft, self.sets["sft.train"]
        rows = replace(train, count=max(1, train.count * settings.sample))
        work = (self._supervised(settings, rows, 1), self._tested(settings, self.sets["sft.test"]))
        return Cost(
            (self._start(1), *work),
            self._trained(settings, self._worst(settings), logits=True),
            disk=self._held(settings.dtype),
        )

    def reward(self) -> Cost:
        settings, train = self.own.reward, self.sets["reward.train"]
        asked, answer = self.sets["reward.normalisation_prompts"], self.sizes.answer(settings.max_new_tokens)
        at_once = settings.micro_batch_size or settings.batch_size
        sampled = self._decoding(settings.dtype, asked.count, at_once, asked.tokens, answer, settings.max_new_tokens)
        whole = Rows(asked.count, asked.tokens + answer)
        work: list[Work] = [self._supervised(settings, train, 0), self._tested(settings, self.sets["reward.test"], 0)]
        work.append(sampled)
        work.append(self._passes(settings.dtype, whole, batches=asked.count / at_once))
        training = self._trained(settings, 2 * self._worst(settings), logits=False)
        # SFT 1 comes when training is over and its optimiser still there.
        cache = self._cache(settings.dtype, at_once * (settings.max_length + settings.max_new_tokens))
        sampling = Memory(training.shared, PROCESS + self._held(settings.dtype) + cache)
        memory = max(training, sampling, key=lambda memory: memory.on(1))
        return Cost((self._start(2), *work), memory, disk=self._held(settings.dtype))

    def trained_on(self, method: str) -> DataSource:
        match algorithm_settings(self.config, self.model, method):
            case Ppo() as ppo:
                return ppo.prompts
            case Dpo() as dpo:
                return dpo.train

    def align(self, method: str) -> Cost:
        """A policy of a trained method."""
        match algorithm_settings(self.config, self.model, method):
            case Ppo() as ppo:
                return self._ppo(ppo, method)
            case Dpo() as dpo:
                return self._dpo(dpo, method)

    def _set(self, name: str, method: str) -> Rows:
        """A set, or the method's own in its place."""
        return self.sets.get(f"{name} ({method})") or self.sets[name]

    def _ppo(self, settings: Ppo, method: str) -> Cost:
        asked, size = self._set("ppo.prompts", method), settings.rollout_batch_size
        answer, steps, dtype = self.sizes.answer(settings.max_new_tokens), settings.steps, settings.dtype
        at_once = settings.sampling_batch_size or size
        micro = settings.micro_batch_size or size
        whole, share = Rows(size * steps, asked.tokens + answer), answer / (asked.tokens + answer)
        batches, updates = steps * math.ceil(size / micro), steps * settings.epochs * size // settings.train_batch_size
        frozen = len(self._references(method) | {self._first()})
        factor = CHECKPOINTED if settings.gradient_checkpointing else TRAINING
        work: list[Work] = [
            self._start(3 + frozen),
            replace(
                self._decoding(dtype, size * steps, at_once, asked.tokens, answer, settings.max_new_tokens),
                engine=settings.rollout,
                rounds=steps,
            ),
        ]
        # Reward and value model have no logits; policy, references and SFT 1 have.
        work += [self._passes(dtype, whole, batches=batches)] * 2
        work += [self._passes(dtype, whole, predicted=share, batches=batches)] * (1 + frozen)
        for predicted in (share, 0):
            passes = settings.epochs * batches
            work.append(self._passes(dtype, whole, settings.epochs, predicted, passes, factor, updates))
        if not settings.keep_frozen_models:
            work.append(Waiting(steps * (frozen + 1) * self._held(dtype) / self.disk_rate))
        # Beside the update: the fullest micro-batch, with the gradients of one of the two models.
        longest = settings.max_prompt_length + settings.max_new_tokens
        trained = self.shape.parameters + self.shape.scalar_parameters
        update = self._activations(dtype, factor, micro * longest)
        update += LOGITS * self.shape.vocabulary * micro * settings.max_new_tokens
        cache = self._cache(dtype, at_once * longest)
        # Without a limit a device samples its share of the rollout at once.
        spread, own = (0.0, cache) if settings.sampling_batch_size else (cache, 0.0)
        sampling, aside = self._held(dtype) + own, 0.0
        if settings.rollout == "vllm":
            spread, sampling = 0.0, 0.0
            aside = float({**ROLLOUT_VLLM, **settings.vllm}["gpu_memory_utilization"])
        strategy, references = self.config.methods[method].reference_parts()
        moving = len(references) if strategy.moves else 0
        kept = (frozen + 1 - moving) if settings.keep_frozen_models else 1
        memory = Memory(
            shared=12 * trained + 4 * self.shape.parameters + spread,
            each=PROCESS + self._held(dtype) * kept + self._held("float32") * moving + max(update, sampling),
            aside=aside,
        )
        return Cost(tuple(work), memory, spreads=True, disk=self._held(dtype), scratch=STATES * 12 * trained)

    def _dpo(self, settings: Dpo, method: str) -> Cost:
        pairs = self._set("dpo.train", method)
        worst = 2 * self._worst(settings)
        batches = self._batches(settings, pairs)
        reference = self._passes(settings.dtype, pairs, settings.epochs, predicted=1, batches=batches)
        memory = self._trained(settings, worst, logits=True)
        memory = Memory(memory.shared, memory.each + 4 * self.shape.parameters)
        work = (self._start(2), self._supervised(settings, pairs, 1), reference)
        return Cost(work, memory, disk=self._held(settings.dtype))

    # Measuring

    def generate(self, policies: int) -> Cost:
        """Answers of so many policies to all benchmarks, in one job."""
        settings = self.own.generate
        at_once = settings.batch_size
        if settings.engine == "vllm":
            at_once = int(settings.vllm.get("max_num_seqs", VLLM_AT_ONCE))
        work: list[Work] = [Starting(settings.engine, policies * self._held(settings.dtype), self.disk_rate)]
        longest = 0.0
        for name, benchmark in self.own.benchmarks.items():
            answer = self.sizes.answer(benchmark.max_new_tokens)
            for count, prompt in self._turns(name, answer):
                work.append(
                    replace(
                        self._decoding(
                            settings.dtype, policies * count, at_once, prompt, answer, benchmark.max_new_tokens
                        ),
                        engine=settings.engine,
                    )
                )
                longest = max(longest, prompt + benchmark.max_new_tokens)
        # vLLM takes what is left for its cache, and makes do with one answer's.
        kept = at_once if settings.engine == "transformers" else 1
        more = VLLM_OWN if settings.engine == "vllm" else 3 * LOGITS * self.shape.vocabulary * at_once
        memory = Memory(0, PROCESS + self._held(settings.dtype) + self._cache(settings.dtype, kept * longest) + more)
        return Cost(tuple(work), memory)

    def score(self, method: str) -> Cost:
        settings = self.own.score
        whole, answered, rows = 0.0, 0.0, 0.0
        for name, benchmark in self.own.benchmarks.items():
            answer = self.sizes.answer(benchmark.max_new_tokens)
            for count, prompt in self._turns(name, answer):
                whole, answered, rows = whole + count * (prompt + answer), answered + count * answer, rows + count
        each = Rows(rows, whole / rows)
        models = len(self._references(method) | {self._first(), f"policy of {method}"})
        if self.config.methods[method].algorithm == "none":
            models = len({self._first(), str(self.config.methods[method].init)})
        passes = self._passes(settings.dtype, each, predicted=answered / whole, batches=rows / settings.batch_size)
        reward = replace(passes, predicted=0.0)
        longest = max(benchmark.max_new_tokens for benchmark in self.own.benchmarks.values()) + each.tokens
        more = self._activations(settings.dtype, FORWARD, settings.batch_size * longest)
        more += models * self._logits(settings.batch_size * longest)
        memory = Memory(0, PROCESS + models * self._held(settings.dtype) + more)
        return Cost((self._start(1 + models), reward, *[passes] * models), memory)

    def line(self) -> list[Checkpoint]:
        """What the alpha stage measures."""
        return [*alpha_line(self.own.alpha).values(), *self.own.alpha.also]

    def alpha(self) -> Cost:
        settings, count = self.own.alpha, len(self.line())
        asked = self.sizes.of_source(settings.prompts, "prompts")
        rows, answer = min(settings.samples, asked.count), self.sizes.answer(settings.max_new_tokens)
        whole = Rows(rows, asked.tokens + answer)
        batches = rows / settings.batch_size
        answered = self._passes(settings.dtype, whole, predicted=answer / whole.tokens, batches=batches)
        test = self.sets["sft.test"]
        held_out = self._passes(settings.dtype, test, predicted=1, batches=test.count / settings.batch_size)
        decoding = self._decoding(
            settings.dtype, rows, settings.batch_size, asked.tokens, answer, settings.max_new_tokens
        )
        each: list[Work] = [decoding, replace(answered, predicted=0.0), answered, answered, held_out]
        cache = self._cache(settings.dtype, settings.batch_size * (asked.tokens + settings.max_new_tokens))
        logits = 2 * self._logits(settings.batch_size * (asked.tokens + settings.max_new_tokens))
        memory = Memory(0, PROCESS + 3 * self._held(settings.dtype) + max(cache, logits))
        return Cost((self._start(2 + count), *each * count), memory)

    # What they are made of

    def sources(self) -> list[DataSource]:
        """Of all that the model trains on and holds out."""
        return self.sizes.sources(self.model)

    def _turns(self, name: str, answer: float) -> list[tuple[int, float]]:
        """Of each turn of a benchmark's questions: how many there are, and the tokens before an answer."""
        questions = self.sizes.questions(name)
        found = []
        for turn in range(1, max(len(question.turns) for question in questions) + 1):
            asked = [question.turns[:turn] for question in questions if len(question.turns) >= turn]
            size = sum(len(text.encode()) for turns in asked for text in turns) / len(asked)
            found.append((len(asked), size / assumed().bytes_per_token + (turn - 1) * answer))
        return found

    def _first(self) -> str:
        return f"sft-{self.config.sft.seeds[0]}"

    def _references(self, method: str) -> set[str]:
        strategy, checkpoints = self.config.methods[method].reference_parts()
        moving = f"moving reference of {method}: " if strategy.moves else ""
        return {moving + str(checkpoint) for checkpoint in checkpoints}

    def _start(self, models: int) -> Starting:
        return Starting("transformers", models * self._held("bfloat16"), self.disk_rate)

    def _held(self, dtype: Dtype) -> float:
        """Bytes of a model's weights."""
        return BYTES[dtype] * self.shape.parameters

    def _cache(self, dtype: Dtype, tokens: float) -> float:
        """Bytes of keys and values."""
        return BYTES[dtype] * self.shape.cached_numbers * tokens

    def _logits(self, tokens: float) -> float:
        """Bytes of logits without gradients, which are made of a part of the tokens at a time."""
        return min(CHUNK_OF_LOGITS, LOGITS * self.shape.vocabulary * tokens)

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
        """Of rows; `predicted` is the share of their tokens that have logits."""
        tokens = rows.count * rows.tokens * epochs
        return Passes(self.shape, dtype, tokens, rows.tokens / 2, predicted * tokens, batches, factor, updates)

    def _decoding(
        self, dtype: Dtype, rows: float, at_once: float, prompt: float, answer: float, most: float
    ) -> Decoding:
        return Decoding(self.shape, dtype, "transformers", rows, at_once, prompt, answer, most)

    def _batches(self, settings: Optimisation, rows: Rows) -> float:
        return math.ceil(rows.count * settings.epochs / (settings.micro_batch_size or settings.batch_size))

    def _supervised(self, settings: Optimisation, rows: Rows, predicted: float) -> Passes:
        updates = math.ceil(rows.count * settings.epochs / settings.batch_size)
        factor = CHECKPOINTED if settings.gradient_checkpointing else TRAINING
        return self._passes(
            settings.dtype, rows, settings.epochs, predicted, self._batches(settings, rows), factor, updates
        )

    def _tested(self, settings: Optimisation, rows: Rows, predicted: float = 1) -> Passes:
        micro = settings.micro_batch_size or settings.batch_size
        return self._passes(settings.dtype, rows, predicted=predicted, batches=rows.count / micro)

    def _worst(self, settings: Optimisation) -> float:
        """Tokens of the fullest micro-batch."""
        return (settings.micro_batch_size or settings.batch_size) * settings.max_length

    def _trained(self, settings: Optimisation, tokens: float, logits: bool) -> Memory:
        factor = CHECKPOINTED if settings.gradient_checkpointing else TRAINING
        more = self._activations(settings.dtype, factor, tokens)
        return self._training(tokens if logits else 0, more, settings.dtype)

    def _training(self, predicted: float, activations: float = 0.0, dtype: Dtype = "float32") -> Memory:
        """Weights, gradients and moments in float32, copies of weights in a narrower type, activations and logits."""
        copies = 0 if dtype == "float32" else self._held(dtype)
        logits = LOGITS * self.shape.vocabulary * predicted
        return Memory(16 * self.shape.parameters + copies, PROCESS + activations + logits)

    def _activations(self, dtype: Dtype, factor: int, tokens: float) -> float:
        """Bytes kept of a micro-batch for its backward pass; of a forward pass alone, one layer's."""
        s = self.shape
        width = 9 * s.hidden_size + 2 * s.head_size * s.key_value_heads + 4 * s.intermediate_size
        # The residual stream stays float32 where passes compute in a narrower type.
        each = {FORWARD: width, TRAINING: s.layers * width, CHECKPOINTED: s.layers * s.hidden_size + width}[factor]
        return tokens * each * (4 if dtype == "float32" else 3)
