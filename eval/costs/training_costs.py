"""The costs of making a model's checkpoints: data, SFT, soups, reward models, policies.

The stages' own modules define what they do; this module only counts it.
"""

import math
from dataclasses import replace

from eval.costs import memory
from eval.costs.assumed import assumed
from eval.costs.memory import PROCESS, Memory, Phase
from eval.costs.model_costs import ModelCosts, micro_batch, training_factor
from eval.costs.sizes import Rows, Sizes
from eval.costs.work import TRAINING, Cost, Starting, Waiting, Work
from salsa.config.algorithms import ROLLOUT_VLLM, CombinedReward, Dpo, Grpo, Ppo, Rl, Rloo
from salsa.config.config import FIRST_ROLE, algorithm_settings
from salsa.config.sections import VLLM_ROWS, DataSource, Lora

VLLM_ASLEEP = 1.5e9  # bytes that an engine keeps while it sleeps: its CUDA graphs, and libraries' workspaces
STATES = 2  # states of an unfinished PPO run on disk: the last one, and the one being written
UNREAD_FACTOR = 2.0  # size of a row in its file, over the text that stages read
PREPARED = 8  # bytes per token in data/prepared: the token and its label
FREE = Cost(work=(Waiting(assumed().without_torch_seconds),))


def passes_of(settings: Rl, tokens: float) -> int:
    """Forward passes over a rollout whose dialogues have so many tokens on average."""
    rows = settings.rollout_batch_size
    passes = math.ceil(rows / (settings.micro_batch_size or rows))
    if settings.micro_batch_tokens:
        passes = max(passes, math.ceil(rows * tokens / settings.micro_batch_tokens))
    return passes


class TrainingCosts(ModelCosts):
    """Costs of the stages that make checkpoints."""

    @staticmethod
    def fetch(sizes: Sizes, path: str) -> Cost:
        """Download of a split of a data set from the hub."""
        hub = sizes.hub[path]
        known = assumed().data_sets.get(hub.hub or "", {}).get(hub.split or "")
        size = known.rows * max(known.tokens.values()) * assumed().bytes_per_token * UNREAD_FACTOR if known else 0.0
        return Cost(work=(*FREE.work, Waiting(size / assumed().download_bytes_per_second)), disk=size)

    def base(self) -> Cost:
        """The base checkpoint: checked in its folder, downloaded, or pretrained in the mini world."""
        entry = self.config.models[self.model]
        if entry.local is not None:
            return Cost(work=(Starting("transformers", 0, self.disk_rate),))
        if entry.hub is not None:
            size = self._weights("bfloat16")
            return Cost(
                work=(Starting("transformers", 0, self.disk_rate), Waiting(size / assumed().download_bytes_per_second)),
                disk=size,
            )
        world, base = self.config.world, self.config.base
        assert world is not None and base is not None, "load_config checks this"
        rows = Rows(world.pretrain_documents, assumed().world.tokens["pretraining"])
        updates = math.ceil(rows.count * base.epochs / base.batch_size)
        work = self._passes("float32", rows, base.epochs, 1, updates, TRAINING, updates)
        tokens = base.batch_size * rows.tokens
        footprint = memory.training(self.shape, "float32", tokens, tokens)
        return Cost((Starting("transformers", 0, self.disk_rate), work), footprint, disk=self._weights("float32"))

    def data(self) -> Cost:
        """Tokenisation of all training and test sets."""
        tokens = sum(rows.count * rows.tokens for rows in self.sets.values())
        return Cost(
            work=(Starting("transformers", 0, self.disk_rate), Waiting(tokens / assumed().tokenised_per_second)),
            disk=PREPARED * tokens,
        )

    def soup(self, count: int) -> Cost:
        """A weight average of `count` models."""
        size = self._checkpoint(self.settings.sft, count)
        return Cost(work=(Waiting((count + 1) * size / self.disk_rate),), disk=size)

    def sft(self) -> Cost:
        """Supervised fine-tuning, and its test loss."""
        settings, train = self.settings.sft, self.sets["sft.train"]
        rows = replace(train, count=max(1, train.count * settings.sample))
        test = self._test(settings, self.sets["sft.test"], 1)
        footprint = self._training(settings, 1, logits=True)
        work = (self._start(1), self._supervised(settings, rows, 1), test)
        return Cost(work, footprint, spreads=True, disk=self._checkpoint(settings))

    def reward(self) -> Cost:
        """The reward model: training, test, and normalisation on answers of SFT 1."""
        settings, prompts = self.settings.reward, self.sets["reward.normalisation_prompts"]
        micro, limit = micro_batch(settings), settings.max_new_tokens
        dialogues = Rows(prompts.count, prompts.tokens + self.sizes.answer(limit))
        pairs = self.sets["reward.train"]
        if settings.held_out is not None:
            pairs = replace(pairs, count=pairs.count / 2)
        work = (
            self._start(2),
            self._supervised(settings, pairs, 0),
            self._test(settings, self.sets["reward.test"], 0),
            self._decoding(settings.dtype, prompts.count, micro, prompts.tokens, limit),
            self._test(settings, dialogues, 0),
        )
        training = self._training(settings, 2, logits=False)
        # SFT 1 is loaded when training is over.
        cache = self._cache(settings.dtype, micro * (settings.max_length + limit))
        sampling = self._unsharded(settings, self._weights(settings.dtype) + cache)
        return Cost(work, training.then(sampling), spreads=True, disk=self._checkpoint(settings))

    def combine(self, combined: CombinedReward) -> Cost:
        """One reward of several reward models: an average of weights, test, and normalisation on answers of SFT 1."""
        settings, prompts = self.settings.reward, self.sets["reward.normalisation_prompts"]
        micro, limit = micro_batch(settings), settings.max_new_tokens
        dialogues = Rows(prompts.count, prompts.tokens + self.sizes.answer(limit))
        scored = [self._test(settings, rows, 0) for rows in (self.sets["reward.test"], dialogues)]
        decoding = self._decoding(settings.dtype, prompts.count, micro, prompts.tokens, limit)
        work: list[Work] = [self._start(1 + combined.scoring_models), decoding, *scored * combined.scoring_models]
        size = 0.0
        if combined.combine == "weights":
            size = self._checkpoint(settings, combined.models)
            work.append(Waiting((combined.models + 1) * size / self.disk_rate))
        cache = self._cache(settings.dtype, micro * (settings.max_length + limit))
        return Cost(tuple(work), Memory.of(0, PROCESS + 2 * self._weights(settings.dtype) + cache), disk=size)

    def trained_on(self, method: str) -> DataSource:
        """The data of a method's training."""
        match algorithm_settings(self.config, self.model, method):
            case Ppo() | Rloo() | Grpo() as rl:
                return rl.prompts
            case Dpo() as dpo:
                return dpo.train

    def align(self, method: str) -> Cost:
        """One policy of a method that trains."""
        match algorithm_settings(self.config, self.model, method):
            case Ppo() | Rloo() | Grpo() as rl:
                return self.rl(rl, method)
            case Dpo() as dpo:
                return self._dpo(dpo, method)

    def _set(self, name: str, method: str) -> Rows:
        """A training set of a method: its own, or the model's."""
        return self.sets.get(f"{name} ({method})") or self.sets[name]

    def rl(self, settings: Rl, method: str) -> Cost:
        """One policy of a method whose algorithm samples responses, by any settings."""
        prompts, dtype = self._set("ppo.prompts", method), settings.dtype
        size, steps = settings.rollout_batch_size, settings.steps
        answer, limit = self.sizes.answer(settings.max_new_tokens), settings.max_new_tokens
        dialogues, answer_share = Rows(size * steps, prompts.tokens + answer), answer / (prompts.tokens + answer)
        batches = steps * passes_of(settings, dialogues.tokens)
        updates = settings.updates
        frozen = len(self._references(method) | {FIRST_ROLE})
        factor, trains_all = training_factor(settings), settings.lora is None
        engine, sampled = settings.rollout, settings.sampling_batch_size or size
        has_value = isinstance(settings, Ppo)
        scoring = self._scoring_models(method)
        work: list[Work] = [self._start(1 + scoring + has_value + frozen if trains_all else 1 + has_value)]
        share = 0.0
        if engine == "vllm":
            options = {"max_num_seqs": VLLM_ROWS, **ROLLOUT_VLLM, **settings.vllm}
            sampled, share = int(options["max_num_seqs"]), float(options["gpu_memory_utilization"])
            work += [Starting("vllm", 0, self.disk_rate), Waiting(steps * assumed().engine_wakes_seconds)]
        rollout = self._decoding(dtype, size * steps, sampled, prompts.tokens, limit, engine, steps)
        work.append(replace(rollout, vllm_share=share))
        # Reward and value models have no logits. Policy, references and SFT 1 have.
        work += [self._passes(dtype, dialogues, batches=batches)] * (scoring + has_value)
        work += [self._passes(dtype, dialogues, predicted=answer_share, batches=batches)] * (1 + frozen)
        for predicted in (answer_share, 0) if has_value else (answer_share,):
            passes = settings.epochs * batches
            # Adam's time for an adapter is nothing beside a pass.
            updated = updates if trains_all else 0
            work.append(self._passes(dtype, dialogues, settings.epochs, predicted, passes, factor, updated))
        rates = {"host": assumed().host_to_device_bytes_per_second, "disk": self.disk_rate}
        if rate := rates.get(settings.frozen_models):
            work.append(Waiting(steps * self.frozen_bytes(settings, method) / rate))
        value = self.shape.scalar_parameters if has_value else 0
        parameters = self.shape.parameters + value
        if settings.lora is not None:
            adapter = memory.adapter_parameters(self.shape, settings.lora)
            parameters = adapter + (adapter + self.shape.hidden_size if has_value else 0)
        trained = memory.ADAM * parameters
        footprint = self._rl_memory(settings, method, trained, share)
        return Cost(tuple(work), footprint, spreads=True, disk=self._checkpoint(settings), scratch=STATES * trained)

    def _moving(self, method: str) -> int:
        """Number of a method's references that move, and so stay on the device in float32."""
        strategy, references = self.config.methods[method].reference_parts()
        return len(references) if strategy.moves else 0

    def _scoring_models(self, method: str) -> int:
        """Number of reward models that score a method's responses."""
        combined = self.config.methods[method].reward
        return 1 if combined is None else combined.scoring_models

    def frozen_bytes(self, settings: Rl, method: str) -> float:
        """Bytes of a run's frozen models: references, SFT 1, reward models; with LoRA only those with other bases."""
        causal = self._references(method) | {FIRST_ROLE}
        if settings.lora is None:
            models = len(causal) + self._scoring_models(method) - self._moving(method)
        else:
            # SFT models that are adapters share the policy's base; of others SFT 1 is that base.
            separate = (
                causal - {FIRST_ROLE} if self.settings.sft.lora is None else {n for n in causal if "perturbed" in n}
            )
            models = len(separate) - (self._moving(method) if self.settings.sft.lora is None else 0)
        return self._weights(settings.dtype) * models

    def base_bytes(self, settings: Rl, lora: Lora, scoring: int) -> float:
        """Bytes of the bases of a run with LoRA and of all frozen adapters. Whole reward models are further bases."""
        bases = 1 if self.settings.reward.lora is not None else 1 + scoring
        frozen = sum(
            4 * memory.adapter_parameters(self.shape, part)
            for part in (*[self.settings.sft.lora] * 3, *[self.settings.reward.lora] * scoring)
            if part is not None
        )
        return bases * memory.frozen_base(self.shape, settings.dtype, lora) + frozen

    def _rl_memory(self, settings: Rl, method: str, trained: float, share: float) -> Memory:
        """Memory of a run that samples responses: sampling, scoring, and an update.

        `trained` bytes of trained weights with their moments and the frozen models that stay on the devices are there
        all the time. A vLLM engine takes its `share` while it samples, and VLLM_ASLEEP while it sleeps.
        """
        dtype, size, limit = settings.dtype, settings.rollout_batch_size, settings.max_new_tokens
        micro, length = settings.micro_batch_size or size, settings.max_prompt_length + limit
        tokens = min(micro * length, max(settings.micro_batch_tokens or math.inf, length))
        predicted, checkpointed = min(micro * limit, tokens), settings.gradient_checkpointing
        update = memory.activations(self.shape, dtype, tokens, self.shape.layers, checkpointed)
        # Logits come in chunks; the output layer's gradient exists once more before it is accumulated.
        gradients = 4.0 * self.shape.parameters
        update += memory.logits(self.shape, predicted) + 4.0 * self.shape.vocabulary_parameters
        scoring = memory.activations(self.shape, dtype, tokens) + memory.logits(self.shape, predicted)
        sharded, per_device = trained, PROCESS + self._weights("float32") * self._moving(method)
        fixed, sampled_copy = self.frozen_bytes(settings, method), self._weights(dtype)
        if settings.lora is not None:
            # Each device holds the base, which is narrow already, and all that trains with its gradients.
            per_device += (
                self.base_bytes(settings, settings.lora, self._scoring_models(method))
                + trained * (memory.ADAM + 4) / memory.ADAM
            )
            update -= 4.0 * self.shape.vocabulary_parameters
            sharded, gradients, sampled_copy = 0.0, 0.0, 0.0
        match settings.frozen_models:
            case "host" | "disk":
                scoring += self._weights(dtype) if fixed else 0.0
            case "auto" | "shards" if settings.lora is None:
                sharded += fixed
            case _:
                per_device += fixed
        asleep = VLLM_ASLEEP if share else 0.0
        if share:
            least = self._weights(dtype) + memory.VLLM_OVERHEAD + self._cache(dtype, length)
            sampling = Phase(sharded, per_device, share, least)
        else:
            cache = self._cache(dtype, (settings.sampling_batch_size or size) * length)
            # Without sampling_batch_size, a device samples its share of the rollout at once.
            all_at_once = settings.sampling_batch_size is None
            own = sampled_copy + (0.0 if all_at_once else cache)
            sampling = Phase(sharded + (cache if all_at_once else 0.0), per_device + own)
        return Memory(
            (
                sampling,
                Phase(sharded, per_device + asleep + scoring),
                Phase(sharded + gradients, per_device + asleep + update),
            )
        )

    def _dpo(self, settings: Dpo, method: str) -> Cost:
        pairs = self._set("dpo.train", method)
        batches = self._batches(settings, pairs)
        reference = self._passes(settings.dtype, pairs, settings.epochs, predicted=1, batches=batches)
        training = self._training(settings, 2, logits=True)
        references = len(self._references(method)) * self._weights(settings.dtype)
        if settings.lora is not None and self.settings.sft.lora is not None:
            references = 0.0  # on the policy's base
        footprint = training.then(self._unsharded(settings, references))
        work = (self._start(2), self._supervised(settings, pairs, 1), reference)
        return Cost(work, footprint, spreads=True, disk=self._checkpoint(settings))

    # Evaluation
