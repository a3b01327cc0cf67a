"""Answers by transformers: batches of similar length, each sampled by salsa.sampling."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from salsa.sampling import Answer, sample
from salsa.training import steps


class TransformersEngine:
    def __init__(self, model: PreTrainedModel, eos: Sequence[int], pad: int, batch_size: int):
        self.model, self.eos, self.pad, self.batch_size = model, list(eos), pad, batch_size

    def generate(
        self, prompts: Sequence[list[int]], temperatures: Sequence[float], max_new_tokens: int, seeds: Sequence[int]
    ) -> list[Answer]:
        """See `Engine`. The longest prompts go first, so that a lack of memory shows at once."""
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        answers: dict[int, Answer] = {}
        for batch in steps(batches, "generating", lambda: {"answers": len(answers)}):
            found = sample(
                self.model,
                [prompts[i] for i in batch],
                [temperatures[i] for i in batch],
                max_new_tokens,
                [seeds[i] for i in batch],
                self.eos,
                self.pad,
            )
            answers.update(zip(batch, found, strict=True))
        return [answers[i] for i in range(len(prompts))]
