"""The config's sections, one a stage. Each stage is given one of these and no more.

No torch here: the Snakefile reads this on every start.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from salsa.config.fields import Commit, Count, Fraction, Name, NonNegative, Positive, Section, Seeds
from salsa.config.judge import Judge
from salsa.config.naming import Checkpoint


class Paths(Section):
    """Where things are kept; checkpoints may live on scratch."""

    data: str = "data"
    checkpoints: str = "checkpoints"
    results: str = "results"
    ledger: str | None = Field(
        None,
        description="Folder of judge calls, which any runs and machines may share; default: ledger/ in the results",
    )


class DataSource(Section):
    """Rows of a data set: local files, or a hub data set's split at a pinned revision."""

    path: str | None = Field(None, description="A JSONL file, a Parquet file, or a folder of Parquet files")
    hub: str | None = None
    revision: Commit | None = None
    split: str | None = None
    limit: Count | None = Field(None, description="Take this many rows, drawn with the stage's seed")

    @model_validator(mode="after")
    def _one_source(self) -> "DataSource":
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path (a local file) or hub (a data set's id)")
        if self.hub is not None and (self.revision is None or self.split is None):
            raise ValueError("a hub data set needs revision (a commit) and split")
        return self


class TrainingData(DataSource):
    """What a model learns from, or is measured on while it does."""

    unusable: Fraction = Field(
        0.01, description="Largest share of rows that may be left out because they are at fault (docs/data.md)"
    )


class World(Section):
    """Sizes of the generated mini world; what it holds is salsa/world."""

    vocabulary: Count = 512
    pretrain_documents: Count
    sft_train: Count
    sft_test: Count
    preferences_train: Count
    preferences_test: Count
    rl_prompts: Count
    ultrafeedback_questions: Count
    mt_bench_per_category: Count = 10
    arena_hard_questions: Count
    two_turn_share: Fraction = 0.25
    preference_temperature: Positive = Field(0.1, description="Bradley-Terry noise, in units of the gold reward")
    published_judge: Judge | None = Field(
        None,
        description="A gold judge as of old: its verdicts are in data/GRID/published_pair.jsonl, for calibration",
    )


class LayerSizes(Section):
    """Of a decoder with gated MLPs."""

    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    key_value_heads: Count
    head_size: Count


class WorldModel(LayerSizes):
    """A tiny model of a real architecture, pretrained in the mini world."""

    architecture: Literal["llama", "mistral", "gemma"]
    sliding_window: Count | None = None
    max_positions: Count = 4096


class ExistingModel(Section):
    """A base checkpoint has no chat template and often no pad token: both are said here."""

    chat_template: str = Field(description="Path of a Jinja file")
    pad_token: str = Field(description="A token that the tokenizer has; never EOS")


class HubModel(ExistingModel):
    """A base checkpoint of the hub."""

    id: str
    revision: Commit


class LocalModel(ExistingModel):
    """A base checkpoint in a folder of this machine, which has to stay there: its weights are not copied."""

    path: str


Engine = Literal["transformers", "vllm"]
ModelsSection = Literal["sft", "reward", "ppo", "dpo", "generate", "score", "alpha"]


class Model(Section):
    """A base model: generated (`world`), from the hub (`hub`) or a folder (`local`)."""

    world: WorldModel | None = None
    hub: HubModel | None = None
    local: LocalModel | None = None
    settings: dict[ModelsSection, dict[str, Any]] = Field(
        default_factory=dict, description="Changes of these sections for this model; a method's own go before them"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if [self.world, self.hub, self.local].count(None) != 2:
            raise ValueError("give one of world (a tiny generated model), hub (id and revision) and local (a folder)")
        return self


class Optimisation(Section):
    """What the supervised stages share. Batch sizes count sequences per optimiser step."""

    learning_rate: Positive
    epochs: Positive = 1
    batch_size: Count
    micro_batch_size: Count | None = Field(None, description="Sequences per forward pass; default: the whole batch")
    max_length: Count
    warmup_ratio: Fraction = 0.1
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: NonNegative = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> "Optimisation":
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}")
        return self


class Base(Section):
    """Pretraining of the world's base models."""

    learning_rate: Positive
    batch_size: Count
    epochs: Positive = 1


class Sft(Optimisation):
    seeds: Seeds
    train: TrainingData
    test: TrainingData
    sample: Fraction = Field(1.0, description="Each seed trains on its own random share of the demonstrations")


class Soup(Section):
    shard_size: str = "4GB"
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="Of the soup's weights. Default: each tensor's in the first ingredient"
    )


class Reward(Optimisation):
    train: TrainingData
    test: TrainingData
    normalisation_samples: Count = Field(256, description="SFT 1's answers that fix mean 0 and standard deviation 1")
    normalisation_prompts: TrainingData
    max_new_tokens: Count


# vLLM takes this share of a GPU's memory, beside the models in training.
ROLLOUT_VLLM = {"gpu_memory_utilization": 0.3}


class Ppo(Section):
    """PPO with a value model and a KL penalty to a frozen reference; docs/protocol.md says why each is as it is."""

    prompts: TrainingData = Field(description="What the policy answers: rows with `prompt` or `messages`")
    steps: Count = Field(description="Rollouts; each is followed by `epochs` passes over it")
    rollout_batch_size: Count = Field(description="Responses per rollout; advantages are whitened over all of them")
    train_batch_size: Count = Field(description="Responses per optimiser step; divides rollout_batch_size")
    micro_batch_size: Count | None = Field(
        None, description="Responses per forward pass, for memory; changes nothing but rounding. Default: all at once"
    )
    sampling_batch_size: Count | None = Field(
        None,
        description="Responses sampled at once by a process, for memory; changes nothing but rounding. Default: all",
    )
    epochs: Count = Field(1, description="Passes over each rollout")
    learning_rate: Positive = Field(description="Adam's rate for the policy at the start of the schedule")
    value_learning_rate: Positive = Field(description="The same for the value model, usually larger")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="Of both learning rates over all optimiser steps: to 0, or constant"
    )
    beta: NonNegative = Field(
        description="KL coefficient, in reward per nat; fixed, so that methods differ in the reference alone"
    )
    gamma: Fraction = Field(1.0, description="Discount of later rewards, per token")
    lam: Fraction = Field(0.95, description="GAE's lambda: 1 is reward to go less the value, 0 one step's error")
    clip: Positive = Field(0.2, description="How far a token's probability ratio may move its loss from 1")
    value_clip: Positive = Field(0.2, description="How far a value may move from the rollout's, in units of the reward")
    missing_eos_penalty: NonNegative = Field(
        1.0, description="Taken from the score of a response that the token limit cut; the reward has deviation 1"
    )
    temperature: Positive = Field(1.0, description="Divides the logits in sampling and in all log-probabilities")
    max_prompt_length: Count = Field(description="Tokens; longer prompts are left out and counted")
    max_new_tokens: Count = Field(description="Tokens at which a response is cut")
    max_grad_norm: Positive = Field(1.0, description="Each model's gradient is scaled down to this norm")
    adam_eps: Positive = Field(1e-5, description="Adam's epsilon")
    adam_betas: tuple[Fraction, Fraction] = Field((0.9, 0.95), description="Adam's betas")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of passes and of frozen models; trained weights are float32 until they are saved"
    )
    max_kl: Positive | None = Field(
        None, description="Stop when a rollout's kl_ref_k1, in nats a response, is above this. Default: never"
    )
    gradient_checkpointing: bool = Field(False, description="Compute activations again instead of keeping them")
    keep_frozen_models: bool = Field(
        True, description="False: references and reward model are read from disk for each rollout, one at a time"
    )
    rollout: Engine = Field(
        "transformers",
        description="What samples: the model in training, or a vLLM engine that is given its weights each time",
    )
    vllm: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of vLLM's LLM class, for rollouts: gpu_memory_utilization is 0.3"
    )

    @model_validator(mode="after")
    def _an_engine_a_process(self) -> "Ppo":
        if self.vllm.get("tensor_parallel_size", 1) != 1:
            raise ValueError("vllm.tensor_parallel_size: each process has an engine of its own: leave it out")
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> "Ppo":
        if self.rollout_batch_size % self.train_batch_size:
            raise ValueError(
                f"rollout_batch_size {self.rollout_batch_size} is no multiple of "
                f"train_batch_size {self.train_batch_size}"
            )
        return self


class Dpo(Optimisation):
    """TRL's DPOTrainer. Its loss is -log sigmoid(beta ((log pi - log ref)(chosen) - (log pi - log ref)(rejected)))."""

    train: TrainingData
    beta: Positive = Field(description="Strength of the pull to the reference")


class GenerateSettings(Section):
    engine: Engine = "transformers"
    batch_size: Count = Field(64, description="Questions at once, by transformers; vLLM has vllm.max_num_seqs")
    dtype: Literal["float32", "bfloat16"] = "float32"
    vllm: dict[str, Any] = Field(default_factory=dict, description="Arguments of vLLM's LLM class")


class Download(Section):
    """A file of the web whose bytes are known."""

    url: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BenchmarkSettings(Section):
    """One benchmark: its kind, its file and the protocol's settings; None takes the protocol's own."""

    kind: str = Field(description="mt_bench, arena_hard, ultrafeedback, or a .py file of one's own")
    questions: DataSource
    references: str | None = Field(None, description="MT-Bench: JSONL of reference answers")
    judge_prompts: str | None = Field(
        None, description="FastChat's judge_prompts.jsonl; what it leaves out, and default: templates of our own"
    )
    max_new_tokens: Count
    temperature: NonNegative | None = None
    grade: bool = Field(False, description="Single-answer grading beside the pairwise comparison")
    download: dict[str, Download] = Field(default_factory=dict, description="Local path: where to fetch it from")


class Score(Section):
    batch_size: Count = 64
    distinct_n: list[Count] = Field(default_factory=lambda: [1, 2])
    dtype: Literal["float32", "bfloat16"] = "float32"


class Alpha(Section):
    """Diagnostics along the line between two SFT models."""

    between: tuple[str, str] = ("sft-1", "sft-2")
    points: list[Fraction] = Field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    also: list[Checkpoint] = Field(
        default_factory=list, description="Measured beside the line: other SFT models, soups"
    )
    prompts: TrainingData
    samples: Count
    max_new_tokens: Count
    batch_size: Count = 64
    dtype: Literal["float32", "bfloat16"] = "float32"


class Comparison(Section):
    """Method `a` against method `b`, seed by seed."""

    a: str
    b: str


class ArchiveFile(Section):
    """A published tool's file of verdicts, which python -m eval import reads (docs/formats.md)."""

    format: Literal["fastchat_single", "fastchat_pair", "arena_hard_battles"]
    path: str
    questions: str | None = Field(None, description="A file of questions, for categories")


class Calibration(Section):
    """Archived verdicts that the judge is asked for again, to know it by: python -m eval calibrate."""

    archive: str = Field(description="A ledger with verdicts and their prompts; any ledger will do")
    files: dict[Name, ArchiveFile] = Field(default_factory=dict, description="Read into the archive first")
    items: Count | None = Field(
        None, description="Answers or matches of each benchmark and judge in it, drawn by the seed; default: all"
    )
    templates: str | None = Field(
        None, description="FastChat's judge_prompts.jsonl, for system prompts; default: our own templates'"
    )


class Tables(Section):
    headline: str = Field(description="The comparison that the terminal shows at the end")
    resamples: Count = 2000
    confidence: Fraction = 0.95
    coverage_floor: Fraction = Field(0.98, description="Share of a cell's judgments that need a verdict")
    below_floor: Literal["fail", "mark"] = Field(
        "fail", description="What a cell below the floor does: it is marked in the tables, and fails the run at its end"
    )
