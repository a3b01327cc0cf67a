"""The schema of assumed.yaml, and its loader."""

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
    """The shape of a decoder without biases: Llama, Mistral, Gemma and similar models."""

    vocabulary: Count
    tied: bool = False

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers: four attention projections, three MLP matrices and two norms each."""
        attention = 2 * self.hidden_size * self.head_size * (self.heads + self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size)

    @property
    def vocabulary_parameters(self) -> int:
        """Parameters of the embedding, which are as many as the output layer's."""
        return self.vocabulary * self.hidden_size

    @property
    def parameters(self) -> int:
        """All parameters of a language model."""
        return self.layer_parameters + self.vocabulary_parameters * (1 if self.tied else 2) + self.hidden_size

    @property
    def scalar_parameters(self) -> int:
        """All parameters of a reward or value model, whose output layer has one row."""
        return self.layer_parameters + self.vocabulary_parameters + 2 * self.hidden_size

    @property
    def cached_numbers(self) -> int:
        """Numbers in the keys and values of one token, over all layers."""
        return 2 * self.layers * self.key_value_heads * self.head_size


class SplitRows(Section):
    """A split of a data set: its rows, the share that is used, and mean tokens per row by use."""

    rows: Count
    used: Fraction = 1.0
    tokens: dict[Kind, Positive]


class Questions(Section):
    """A benchmark: its questions, turns per question, and mean tokens per turn."""

    rows: Count
    turns: Count
    tokens: Positive


class WorldRows(Section):
    """The mini world: mean tokens per row by use, and per answer."""

    tokens: dict[Kind, Positive]
    answer_tokens: Positive


class DeviceSources(Section):
    """Where a device's figures come from."""

    peak: str
    memory: str
    speed: str
    decoding: str
    start: str


Start = Engine | Literal["forked"]


class Device(Section):
    """One device. Memory is in GB (10^9 bytes): its own, None for a CPU core, and the host's per device."""

    title: str
    memory: Positive | None = None
    host_memory: Positive | None = None
    bytes: Positive  # per second
    peak: dict[Dtype, Positive]  # operations per second
    efficiency: Fraction  # of the peak
    bandwidth_efficiency: Fraction  # of the bandwidth
    layer_seconds: dict[Engine, Positive]
    start_seconds: dict[Start, Positive]
    sources: DeviceSources


class Sources(Section):
    """Where the figures of assumed.yaml come from that are no device's."""

    models: str
    rows: str
    row_tokens: str
    questions: str
    bytes_per_token: str
    answer_tokens: str
    world: str
    tokenised_per_second: str
    judge_seconds: str
    batch_hours: str
    download_bytes_per_second: str
    disk_bytes_per_second: str
    host_to_device_bytes_per_second: str
    drawing_bytes_per_logit: str
    engine_wakes_seconds: str
    together: str


class Assumed(Section):
    """All of assumed.yaml, which has the units."""

    models: dict[str, Shape]
    data_sets: dict[str, dict[str, SplitRows]]
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
    host_to_device_bytes_per_second: Positive
    drawing_bytes_per_logit: Positive
    engine_wakes_seconds: Positive
    without_torch_seconds: Positive
    analysis_seconds: Positive
    devices: dict[str, Device]
    together: Fraction = Field(description="Efficiency of passes on several devices that train one model")
    sources: Sources


@functools.cache
def assumed() -> Assumed:
    """The contents of assumed.yaml."""
    return Assumed.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def device_notes(device: Device) -> dict[str, str]:
    """The assumptions about a device and its machine, with their sources."""
    figures, own, sources = assumed(), device.sources, assumed().sources
    peak = ", ".join(f"{rate / 1e12:g} TFLOP/s in {dtype}" for dtype, rate in sorted(device.peak.items()))
    launch, start = device.layer_seconds, device.start_seconds
    forks = f", in {start['forked']:g} s as a fork" if start["forked"] < start["transformers"] else ""
    notes = {
        f"{device.title}: {peak}, {device.bytes / 1e12:g} TB/s": own.peak,
        f"passes reach {device.efficiency:.0%} of these operations": own.speed,
        f"a layer's pass takes at least {launch['transformers'] * 1e3:g} ms": own.speed,
        f"decoding reads with {device.bandwidth_efficiency:.0%} of the bandwidth": own.decoding,
        f"with vLLM a layer's pass takes at least {launch['vllm'] * 1e3:g} ms": own.decoding,
        f"a job starts in {start['transformers']:g} s with torch, in {start['vllm']:g} s with vLLM{forks}": own.start,
        f"tokenising: {figures.tokenised_per_second:,.0f} tokens/s": sources.tokenised_per_second,
        f"downloads: {figures.download_bytes_per_second / 1e9:g} GB/s": sources.download_bytes_per_second,
        f"disks: {figures.disk_bytes_per_second / 1e9:g} GB/s": sources.disk_bytes_per_second,
    }
    if device.memory is None:
        return notes
    copies, drawing = figures.host_to_device_bytes_per_second / 1e9, figures.drawing_bytes_per_logit
    return notes | {
        f"{device.memory:g} GB of memory per device": own.memory,
        f"passes on each of several devices reach {figures.together:.0%} of their speed on one": sources.together,
        f"copies to a device: {copies:g} GB/s": sources.host_to_device_bytes_per_second,
        f"drawing a token with vLLM moves {drawing:g} bytes per logit": sources.drawing_bytes_per_logit,
        f"waking the vLLM engine takes {figures.engine_wakes_seconds:g} s per rollout": sources.engine_wakes_seconds,
    }
