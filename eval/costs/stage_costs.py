"""The costs of all of a model's stages: those of its checkpoints (training_costs.py), and of their answers and scores.

The stages' own modules define what they do; this module only counts it.
"""

from collections.abc import Sequence
from dataclasses import replace

from eval.costs import memory
from eval.costs.assumed import assumed
from eval.costs.memory import PROCESS, Memory
from eval.costs.sizes import Rows
from eval.costs.training_costs import TrainingCosts
from eval.costs.work import Cost, Starting, Waiting, Work
from eval.grid.layout import alpha_line
from salsa.config.config import FIRST_ROLE, algorithm_settings
from salsa.config.naming import Checkpoint
from salsa.config.sections import VLLM_ROWS

ANALYSIS = Cost(work=(Waiting(assumed().analysis_seconds),))


class Costs(TrainingCosts):
    """Costs of one model's stages."""

    def generate(self, policies: int) -> Cost:
        """Answers of `policies` policies to all benchmarks, in one job."""
        settings = self.settings.generate
        dtype, engine, batch = settings.dtype, settings.engine, settings.batch_size
        if engine == "vllm":
            batch = int(settings.vllm.get("max_num_seqs", VLLM_ROWS))
        work: list[Work] = [
            Starting(
                self._launched if engine == "transformers" else engine, policies * self._weights(dtype), self.disk_rate
            )
        ]
        longest = longest_prompt = 0.0
        for name, benchmark in self.settings.benchmarks.items():
            limit = benchmark.max_new_tokens
            for count, prompt in self._turns(name):
                longest_prompt = max(longest_prompt, prompt)
                work.append(self._decoding(dtype, policies * count, batch, prompt, limit, engine))
                longest = max(longest, prompt + limit)
        # vLLM uses all memory left for its cache, but runs with room for one answer.
        cached = batch if engine == "transformers" else 1
        extra = memory.VLLM_OVERHEAD
        if engine == "transformers":
            # The prompts of a batch pass through the layers together.
            extra = 3 * memory.LOGITS * self.shape.vocabulary * batch
            extra += memory.activations(self.shape, dtype, batch * longest_prompt)
        per_device = PROCESS + self._weights(dtype) + self._cache(dtype, cached * longest) + extra
        return Cost(tuple(work), Memory.of(0, per_device))

    def score(self, methods: Sequence[str]) -> Cost:
        """Rewards and KL of the answers of policies of these methods to all benchmarks, in one job."""
        settings, dtype = self.settings.score, self.settings.score.dtype
        tokens, answer_tokens, rows = 0.0, 0.0, 0.0
        for name, benchmark in self.settings.benchmarks.items():
            answer = self.sizes.answer(benchmark.max_new_tokens)
            for count, prompt in self._turns(name):
                tokens += count * (prompt + answer)
                answer_tokens += count * answer
                rows += count
        dialogues = Rows(rows, tokens / rows)
        of_policies = [self._scored_models(method) for method in methods]
        passed, models = sum(map(len, of_policies)), max(map(len, of_policies))
        passes = self._passes(dtype, dialogues, predicted=answer_tokens / tokens, batches=rows / settings.batch_size)
        reward = replace(passes, predicted=0.0)
        longest = max(benchmark.max_new_tokens for benchmark in self.settings.benchmarks.values()) + dialogues.tokens
        in_batch, predicted = settings.batch_size * longest, settings.batch_size * (longest - dialogues.tokens)
        extra = memory.activations(self.shape, dtype, in_batch) + models * memory.logits(self.shape, predicted)
        footprint = Memory.of(0, PROCESS + models * self._weights(dtype) + extra)
        rewards = 1 if self.settings.reward.held_out is None else 2
        work = [reward] * (rewards * len(methods)) + [passes] * passed
        return Cost((self._start(rewards + len(set().union(*of_policies))), *work), footprint)

    def _scored_models(self, method: str) -> set[str]:
        """The language models that pass over the answers of a method's policy."""
        definition = self.config.methods[method]
        policy = str(definition.init) if definition.algorithm == "none" else f"policy of {method}"
        strategy, _ = definition.reference_parts()
        return {FIRST_ROLE, policy} | (set() if strategy.moves else self._references(method))

    def line(self) -> list[Checkpoint]:
        """The checkpoints along the line that the stage alpha measures."""
        return list(alpha_line(self.settings.alpha).values())

    def alpha(self, count: int) -> Cost:
        """Answers, rewards, KL and test loss of `count` checkpoints."""
        test, settings = self.sets["sft.test"], self.settings.alpha
        return self._probe(count, 1, [self._passes(settings.dtype, test, 1, test.count / settings.batch_size)])

    def frontier(self, methods: Sequence[str]) -> Cost:
        """Answers, rewards and KL of SFT 1, and of policies of these methods with the checkpoints that they kept."""
        rewards = 1 if self.settings.reward.held_out is None else 2
        return self._probe(1 + sum(1 + self._kept(method) for method in methods), rewards, [])

    def _kept(self, method: str) -> int:
        """Checkpoints that a policy keeps on its way; averages of runs have none."""
        is_average = self.config.methods[method].warp is not None
        return 0 if is_average else len(algorithm_settings(self.config, self.model, method).checkpoints_at)

    def greedy(self, count: int) -> Cost:
        """A greedy soup of `count` models: the reward of each, and of at most as many soups less one."""
        probe = self._probe(2 * count - 1, 1, [])
        soups = [work for size in range(2, count + 1) for work in self.soup(size).work]
        return replace(probe, work=(*probe.work, *soups), disk=self.soup(1).disk)

    def _probe(self, count: int, rewards: int, further: list[Work]) -> Cost:
        """Measuring `count` checkpoints on the prompts of `alpha`."""
        settings = self.settings.alpha
        dtype, limit, batch = settings.dtype, settings.max_new_tokens, settings.batch_size
        prompts = self.sizes.of_source(settings.prompts, "prompts")
        rows, answer = min(settings.samples, prompts.count), self.sizes.answer(limit)
        dialogues = Rows(rows, prompts.tokens + answer)
        passes = self._passes(dtype, dialogues, predicted=answer / dialogues.tokens, batches=rows / batch)
        per_checkpoint: list[Work] = [
            self._decoding(dtype, rows, batch, prompts.tokens, limit),
            *(*[replace(passes, predicted=0.0)] * rewards, passes, passes),
            *further,
        ]
        tokens = batch * (prompts.tokens + limit)
        extra = max(self._cache(dtype, tokens), 2 * memory.logits(self.shape, tokens))
        footprint = Memory.of(0, PROCESS + (2 + rewards) * self._weights(dtype) + extra)
        return Cost((self._start(1 + rewards + count), *per_checkpoint * count), footprint)

    def _turns(self, name: str) -> list[tuple[int, float]]:
        """For each turn of a benchmark: how many questions have it, and the mean number of tokens before its answer."""
        questions, answer = self.sizes.questions(name), self.sizes.answer(self.settings.benchmarks[name].max_new_tokens)
        turns = []
        for turn in range(1, max(len(question.turns) for question in questions) + 1):
            prompts = [question.turns[:turn] for question in questions if len(question.turns) >= turn]
            size = sum(len(text.encode()) for prompt in prompts for text in prompt) / len(prompts)
            turns.append((len(prompts), size / assumed().bytes_per_token + (turn - 1) * answer))
        return turns
