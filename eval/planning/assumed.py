"""The figures of assumed.yaml, checked."""

import functools
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from salsa.config.fields import Count, Fraction, Positive, Section
from salsa.config.sections import Engine, LayerSizes

FILE = Path(__file__).with_name("assumed.yaml")
Kind = Literal["demonstrations", "preferences", "prompts", "pretraining"]
Dtype = Literal["float32", "bfloat16"]


class Shape(LayerSizes):
    """A model without biases: Llama, Mistral, Gemma and their like."""

    vocabulary: Count
    tied: bool = False

    @property
    def layer_parameters(self) -> int:
        """Of all layers: queries and output, keys and values, the MLP, two norms each."""
        attention = 2 * self.hidden_size * self.head_size * (self.heads + self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size)

    @property
    def vocabulary_parameters(self) -> int:
        """Of the embedding, or of the output layer."""
        return self.vocabulary * self.hidden_size

    @property
    def parameters(self) -> int:
        """All of a language model's."""
        return self.layer_parameters + self.vocabulary_parameters * (1 if self.tied else 2) + self.hidden_size

    @property
    def scalar_parameters(self) -> int:
        """All of a reward or value model's: a number for each state in place of logits."""
        return self.layer_parameters + self.vocabulary_parameters + 2 * self.hidden_size

    @property
    def cached_numbers(self) -> int:
        """Keys and values of a token, in all layers."""
        return 2 * self.layers * self.key_value_heads * self.head_size


class Rows(Section):
    rows: Count
    used: Fraction = 1.0
    tokens: dict[Kind, Positive]


class Questions(Section):
    rows: Count
    turns: Count
    tokens: Positive


class WorldRows(Section):
    tokens: dict[Kind, Positive]
    answer_tokens: Positive


class Device(Section):
    """Memory in GB (10^9 bytes) of one device; None is the machine's."""

    title: str
    memory: Positive | None = None
    bytes: Positive
    peak: dict[Dtype, Positive]
    efficiency: Fraction
    layer_seconds: dict[Engine, Positive]
    start_seconds: dict[Engine, Positive]


class Assumed(Section):
    models: dict[str, Shape]
    data_sets: dict[str, dict[str, Rows]]
    questions: dict[str, Questions]
    bytes_per_token: Positive
    answer_tokens: Positive
    world: WorldRows
    tokenised_per_second: Positive
    judge_seconds: Positive
    batch_hours: Positive
    gold_calls_per_second: Positive
    download_bytes_per_second: Positive
    disk_bytes_per_second: Positive
    without_torch_seconds: Positive
    analysis_seconds: Positive
    devices: dict[str, Device]
    together: Fraction = Field(description="Efficiency of several devices on one model")


@functools.cache
def assumed() -> Assumed:
    """The file as it stands."""
    return Assumed.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))
