"""Measure checkpoints on held-out prompts: rewards, gold reward, KL to SFT 1, length, SFT loss."""

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedModel

from eval.generation.engines import context_length, eos_ids, generate_all
from eval.generation.transformers_engine import TransformersEngine
from eval.scoring.kl import mean_nll, response_kl
from salsa.checkpoints.loading import load_causal, load_tokenizer
from salsa.config.sections import Alpha, TrainingData
from salsa.data.rows import Messages, user_turns
from salsa.data.token_cache import IGNORED, prepare
from salsa.data.training_sets import alpha_sets
from salsa.models.scoring import Scorer
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import derive_seed, run_seed
from salsa.world.gold import gold_reward


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


class Probe:
    """Measures checkpoints on common prompts, with SFT 1 and the reward models; the SFT loss on `test`.

    All checkpoints answer the same held-out prompts at temperature 1 with the same random numbers, so that they differ
    little by chance.
    """

    def __init__(
        self,
        sft: Path,
        rewards: Mapping[str, Path],
        settings: Alpha,
        test: TrainingData | None,
        gold: bool,
        seed: int,
        cache: Path,
        run: str = "",
    ):
        self.settings, self.gold, self.sft_path, self.seed = settings, gold, sft.resolve(), run_seed(seed, run)
        self.tokenizer = load_tokenizer(sft)
        context = context_length(sft)
        room = context - settings.max_new_tokens
        if room < 1:
            raise UserError(
                f"alpha.max_new_tokens: {settings.max_new_tokens} leaves no room in a context of {context}: lower it"
            )
        sets = {
            name: prepare(name, wanted, self.tokenizer, cache)
            for name, wanted in alpha_sets(settings, test, room, context, seed).items()
        }
        self.counts = {name: prepared.counts for name, prepared in sets.items()}
        prompts = sets["alpha.prompts"].data
        self.messages: list[Messages] = [json.loads(text) for text in prompts["messages"]]
        self.prompts = list(prompts["ids"])
        self.demonstrations: list[list[int]] = []
        self.masks: list[list[int]] = []
        if test is not None:
            data = sets["alpha.test"].data
            self.demonstrations = list(data["input_ids"])
            self.masks = [[int(label != IGNORED) for label in labels] for labels in data["labels"]]
        self.sft = load_causal(sft, settings.dtype)
        self.rewards = {name: Scorer(folder, settings.dtype) for name, folder in rewards.items()}

    def measure(self, path: Path, further: Mapping[str, Path] = MappingProxyType({})) -> dict[str, Any]:
        """Measure one checkpoint, also by `further` reward models; returns its figures."""
        settings, pad = self.settings, self.tokenizer.pad_token_id
        model: PreTrainedModel = self.sft if path.resolve() == self.sft_path else load_causal(path, settings.dtype)
        engine = TransformersEngine(model, eos_ids(path, self.tokenizer), pad, settings.batch_size)
        prompts = self.prompts
        seeds = [derive_seed(self.seed, "alpha", "sampling", i) for i in range(len(prompts))]
        answers = generate_all(engine, prompts, [1.0] * len(prompts), settings.max_new_tokens, seeds)
        responses = [answer.token_ids for answer in answers]
        sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        found: dict[str, float | None] = {}
        scorers = {name: Scorer(folder, settings.dtype) for name, folder in further.items()}
        for name, scorer in {**self.rewards, **scorers}.items():
            found[name], found[f"{name}_se"] = mean_and_error(scorer(sequences, settings.batch_size))
        kl = response_kl(model, [self.sft], prompts, responses, settings.batch_size)[0]
        texts = [
            self.tokenizer.decode(response, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for response in responses
        ]
        gold: tuple[float | None, float | None] = (None, None)
        if self.gold:
            parts = zip(self.messages, texts, answers, strict=True)
            gold = mean_and_error([gold_reward(user_turns(m), text, answer.ended) for m, text, answer in parts])
        return {
            **found,
            **({"sft_loss": self.sft_loss(model)} if self.demonstrations else {}),
            "gold": gold[0],
            "gold_se": gold[1],
            "kl_sft": statistics.fmean(kl),
            "tokens": statistics.fmean(map(len, responses)),
            "samples": len(prompts),
        }

    def sft_loss(self, model: PreTrainedModel) -> float:
        """Mean loss per assistant token of held-out demonstrations."""
        return mean_nll(model, self.demonstrations, self.masks, self.settings.batch_size)
