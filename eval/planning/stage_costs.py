"""What each stage of a model's takes: its work, its memory, and what it leaves on disk.

What a stage does is its own module's: this only counts it.
"""

import math
from dataclasses import replace

from eval.planning import memory
from eval.planning.assumed import Dtype, Engine, assumed
from eval.planning.memory import PROCESS, Memory
from eval.planning.sizes import Rows, Sizes
from eval.planning.work import CHECKPOINTED, FORWARD, TRAINING, Cost, Decoding, Passes, Starting, Waiting, Work
from eval.tables.grid import alpha_line
from salsa.config.config import algorithm_settings, for_model
from salsa.config.naming import Checkpoint
from salsa.config.sections import ROLLOUT_VLLM, DataSource, Dpo, Optimisation, Ppo

VLLM_AT_ONCE = 256
VLLM_OWN = 3e9  # bytes beside weights and cache
STATES = 2  # of an unfinished PPO run on disk: the one kept, and the one that is being written
WHOLE_ROWS = 2.0  # a row in its file, with what no one reads, over the text that is read
PREPARED = 8  # bytes of a token in data/prepared, with its label
FREE = Cost(work=(Waiting(assumed().without_torch_seconds),))
ANALYSIS = Cost(work=(Waiting(assumed().analysis_seconds),))


def micro_batch(settings: Optimisation) -> int:
    return settings.micro_batch_size or settings.batch_size


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
            size = self._weights("bfloat16")
            return Cost(work=(self._start(0), Waiting(size / assumed().download_bytes_per_second)), disk=size)
        world, base = self.config.world, self.config.base
        assert world is not None and base is not None, "checked with the config"
        rows = Rows(world.pretrain_documents, assumed().world.tokens["pretraining"])
        updates = math.ceil(rows.count * base.epochs / base.batch_size)
        work = self._passes("float32", rows, base.epochs, 1, updates, TRAINING, updates)
        tokens = base.batch_size * rows.tokens
        held = memory.training(self.shape, "float32", tokens, tokens)
        return Cost((self._start(0), work), held, disk=self._weights("float32"))

    def data(self) -> Cost:
        tokens = sum(rows.count * rows.tokens for rows in self.sets.values())
        return Cost(work=(self._start(0), Waiting(tokens / assumed().tokenised_per_second)), disk=PREPARED * tokens)

    def soup(self, count: int) -> Cost:
        size = self._weights(self.own.sft.dtype)
        return Cost(work=(Waiting((count + 1) * size / self.disk_rate),), disk=size)

    # Training

    def sft(self) -> Cost:
        settings, train = self.own.sft, self.sets["sft.train"]
        rows = replace(train, count=max(1, train.count * settings.sample))
        work = (self._start(1), self._supervised(settings, rows, 1), self._tested(settings, self.sets["sft.test"], 1))
        held = self._training(settings, 1, logits=True)
        return Cost(work, held, spreads=True, disk=self._weights(settings.dtype))

    def reward(self) -> Cost:
        settings, asked = self.own.reward, self.sets["reward.normalisation_prompts"]
        micro, most = micro_batch(settings), settings.max_new_tokens
        answered = Rows(asked.count, asked.tokens + self.sizes.answer(most))
        work = (
            self._start(2),
            self._supervised(settings, self.sets["reward.train"], 0),
            self._tested(settings, self.sets["reward.test"], 0),
            self._decoding(settings.dtype, asked.count, micro, asked.tokens, most),
            self._tested(settings, answered, 0),
        )
        training = self._training(settings, 2, logits=False)
        # SFT 1 comes when training is over.
        cache = self._cache(settings.dtype, micro * (settings.max_length + most))
        held = replace(training, whole=training.whole + self._weights(settings.dtype) + cache)
        return Cost(work, held, spreads=True, disk=self._weights(settings.dtype))

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
        asked, dtype = self._set("ppo.prompts", method), settings.dtype
        size, steps = settings.rollout_batch_size, settings.steps
        answer, most = self.sizes.answer(settings.max_new_tokens), settings.max_new_tokens
        whole, share = Rows(size * steps, asked.tokens + answer), answer / (asked.tokens + answer)
        batches = steps * math.ceil(size / (settings.micro_batch_size or size))
        updates = steps * settings.epochs * size // settings.train_batch_size
        frozen = len(self._references(method) | {self._first()})
        factor = CHECKPOINTED if settings.gradient_checkpointing else TRAINING
        sampled_at_once = settings.sampling_batch_size or size
        rollout = self._decoding(dtype, size * steps, sampled_at_once, asked.tokens, most, settings.rollout, steps)
        work: list[Work] = [self._start(3 + frozen), rollout]
        # Reward and value model have no logits; policy, references and SFT 1 have.
        work += [self._passes(dtype, whole, batches=batches)] * 2
        work += [self._passes(dtype, whole, predicted=share, batches=batches)] * (1 + frozen)
        for predicted in (share, 0):
            passes = settings.epochs * batches
            work.append(self._passes(dtype, whole, settings.epochs, predicted, passes, factor, updates))
        if not settings.keep_frozen_models:
            work.append(Waiting(steps * (frozen + 1) * self._weights(dtype) / self.disk_rate))
        trained = memory.ADAM * (self.shape.parameters + self.shape.scalar_parameters)
        held = self._ppo_memory(settings, method, frozen, trained)
        return Cost(tuple(work), held, spreads=True, disk=self._weights(dtype), scratch=STATES * trained)

    def _ppo_memory(self, settings: Ppo, method: str, frozen: int, trained: float) -> Memory:
        """What is trained, what is kept beside it, and the larger of an update's and of sampling's own."""
        dtype, size, most = settings.dtype, settings.rollout_batch_size, settings.max_new_tokens
        micro, longest = settings.micro_batch_size or size, settings.max_prompt_length + most
        tokens, checkpointed = micro * longest, settings.gradient_checkpointing
        update = memory.activations(self.shape, dtype, tokens, self.shape.layers, checkpointed)
        update += memory.LOGITS * self.shape.vocabulary * micro * most
        cache = self._cache(dtype, (settings.sampling_batch_size or size) * longest)
        # Without a limit a device samples its share of the rollout at once.
        spread, own, aside = (0.0, cache, 0.0) if settings.sampling_batch_size else (cache, 0.0, 0.0)
        sampling = self._weights(dtype) + own
        if settings.rollout == "vllm":
            spread, sampling = 0.0, 0.0
            aside = float({**ROLLOUT_VLLM, **settings.vllm}["gpu_memory_utilization"])
        strategy, references = self.config.methods[method].reference_parts()
        moving = len(references) if strategy.moves else 0
        kept = (frozen + 1 - moving) if settings.keep_frozen_models else 1
        beside = self._weights(dtype) * kept + self._weights("float32") * moving
        return Memory(
            shared=trained + 4 * self.shape.parameters + spread,
            each=PROCESS + beside + max(update, sampling),
            aside=aside,
        )

    def _dpo(self, settings: Dpo, method: str) -> Cost:
        pairs = self._set("dpo.train", method)
        batches = self._batches(settings, pairs)
        reference = self._passes(settings.dtype, pairs, settings.epochs, predicted=1, batches=batches)
        held = self._training(settings, 2, logits=True)
        references = len(self._references(method)) * self._weights(settings.dtype)
        held = replace(held, whole=held.whole + references)
        work = (self._start(2), self._supervised(settings, pairs, 1), reference)
        return Cost(work, held, spreads=True, disk=self._weights(settings.dtype))

    # Measuring

    def generate(self, policies: int) -> Cost:
        """Answers of so many policies to all benchmarks, in one job."""
        settings = self.own.generate
        dtype, engine, at_once = settings.dtype, settings.engine, settings.batch_size
        if engine == "vllm":
            at_once = int(settings.vllm.get("max_num_seqs", VLLM_AT_ONCE))
        work: list[Work] = [Starting(engine, policies * self._weights(dtype), self.disk_rate)]
        longest = 0.0
        for name, benchmark in self.own.benchmarks.items():
            most = benchmark.max_new_tokens
            for count, prompt in self._turns(name):
                work.append(self._decoding(dtype, policies * count, at_once, prompt, most, engine))
                longest = max(longest, prompt + most)
        # vLLM takes what is left for its cache, and makes do with one answer's.
        kept = at_once if engine == "transformers" else 1
        more = VLLM_OWN if engine == "vllm" else 3 * memory.LOGITS * self.shape.vocabulary * at_once
        return Cost(tuple(work), Memory(0, PROCESS + self._weights(dtype) + self._cache(dtype, kept * longest) + more))

    def score(self, method: str) -> Cost:
        settings, dtype = self.own.score, self.own.score.dtype
        whole, answered, rows = 0.0, 0.0, 0.0
        for name, benchmark in self.own.benchmarks.items():
            answer = self.sizes.answer(benchmark.max_new_tokens)
            for count, prompt in self._turns(name):
                whole, answered, rows = whole + count * (prompt + answer), answered + count * answer, rows + count
        each = Rows(rows, whole / rows)
        chosen = self.config.methods[method]
        policy = str(chosen.init) if chosen.algorithm == "none" else f"policy of {method}"
        strategy, _ = chosen.reference_parts()
        models = len({self._first(), policy} | (set() if strategy.moves else self._references(method)))
        passes = self._passes(dtype, each, predicted=answered / whole, batches=rows / settings.batch_size)
        reward = replace(passes, predicted=0.0)
        longest = max(benchmark.max_new_tokens for benchmark in self.own.benchmarks.values()) + each.tokens
        tokens = settings.batch_size * longest
        more = memory.activations(self.shape, dtype, tokens) + models * memory.logits(self.shape, tokens)
        held = Memory(0, PROCESS + models * self._weights(dtype) + more)
        return Cost((self._start(1 + models), reward, *[passes] * models), held)

    def line(self) -> list[Checkpoint]:
        """What the alpha stage measures."""
        return [*alpha_line(self.own.alpha).values(), *self.own.alpha.also]

    def alpha(self) -> Cost:
        settings, count = self.own.alpha, len(self.line())
        dtype, most, at_once = settings.dtype, settings.max_new_tokens, settings.batch_size
        asked, test = self.sizes.of_source(settings.prompts, "prompts"), self.sets["sft.test"]
        rows, answer = min(settings.samples, asked.count), self.sizes.answer(most)
        whole = Rows(rows, asked.tokens + answer)
        answered = self._passes(dtype, whole, predicted=answer / whole.tokens, batches=rows / at_once)
        each: list[Work] = [
            self._decoding(dtype, rows, at_once, asked.tokens, most),
            *(replace(answered, predicted=0.0), answered, answered),
            self._passes(dtype, test, predicted=1, batches=test.count / at_once),
        ]
        tokens = at_once * (asked.tokens + most)
        more = max(self._cache(dtype, tokens), 2 * memory.logits(self.shape, tokens))
        held = Memory(0, PROCESS + 3 * self._weights(dtype) + more)
        return Cost((self._start(2 + count), *each * count), held)

    # What they are made of

    def _turns(self, name: str) -> list[tuple[int, float]]:
        """Of each turn of a benchmark's questions: how many there are, and the tokens before an answer."""
        questions, answer = self.sizes.questions(name), self.sizes.answer(self.own.benchmarks[name].max_new_tokens)
        found = []
        for turn in range(1, max(len(question.turns) for question in questions) + 1):
            asked = [question.turns[:turn] for question in questions if len(question.turns) >= turn]
            size = sum(len(text.encode()) for turns in asked for text in turns) / len(asked)
            found.append((len(asked), size / assumed().bytes_per_token + (turn - 1) * answer))
        return found

    def _first(self) -> str:
        return f"sft-{self.config.sft.seeds[0]}"

    def _references(self, method: str) -> set[str]:
        """The models that a reference is made of; one that moves is another than the checkpoint it starts from."""
        strategy, checkpoints = self.config.methods[method].reference_parts()
        moving = "moving " if strategy.moves else ""
        return {f"{moving}{checkpoint}" for checkpoint in checkpoints}

    def _start(self, models: int) -> Starting:
        return Starting("transformers", models * self._weights("bfloat16"), self.disk_rate)

    def _weights(self, dtype: Dtype) -> float:
        return memory.weights(self.shape, dtype)

    def _cache(self, dtype: Dtype, tokens: float) -> float:
        return memory.cache(self.shape, dtype, tokens)

    def _training(self, settings: Optimisation, dialogues: int, logits: bool) -> Memory:
        """Of a row's so many dialogues."""
        tokens = dialogues * micro_batch(settings) * settings.max_length
        predicted = tokens if logits else 0
        held = memory.training(self.shape, settings.dtype, tokens, predicted, settings.gradient_checkpointing)
        # Each device has the model before it is shared.
        return replace(held, whole=PROCESS + self._weights("float32"))

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
        self,
        dtype: Dtype,
        rows: float,
        at_once: float,
        prompt: float,
        most: int,
        engine: Engine = "transformers",
        rounds: float = 1,
    ) -> Decoding:
        answer = self.sizes.answer(most)
        return Decoding(self.shape, dtype, engine, rows, at_once, prompt, answer, most, rounds)

    def _batches(self, settings: Optimisation, rows: Rows) -> float:
        return math.ceil(rows.count * settings.epochs / micro_batch(settings))

    def _supervised(self, settings: Optimisation, rows: Rows, predicted: float) -> Passes:
        updates = math.ceil(rows.count * settings.epochs / settings.batch_size)
        factor = CHECKPOINTED if settings.gradient_checkpointing else TRAINING
        batches = self._batches(settings, rows)
        return self._passes(settings.dtype, rows, settings.epochs, predicted, batches, factor, updates)

    def _tested(self, settings: Optimisation, rows: Rows, predicted: float) -> Passes:
        return self._passes(settings.dtype, rows, predicted=predicted, batches=rows.count / micro_batch(settings))
