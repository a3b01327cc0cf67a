"""Sections of the config, one per stage. A stage gets only its own section.

The Snakefile imports this at every start, so torch stays out.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from salsa.config.fields import Commit, Count, Fraction, Name, NonNegative, Positive, Section
from salsa.config.judge import Judge
from salsa.config.naming import Checkpoint


class Paths(Section):
    """Folders for data, checkpoints and results. Checkpoints may be on a scratch disk."""

    data: str = "data"
    checkpoints: str = "checkpoints"
    results: str = "results"
    ledger: str | None = Field(
        None,
        description="Folder of judge calls, which several runs and machines may share; default: ledger/ in the results",
    )


class DataSource(Section):
    """A data set: local files, or a split of a hub data set at a pinned revision."""

    path: str | None = Field(None, description="A JSONL file, a Parquet file, or a folder of Parquet files")
    hub: str | None = None
    revision: Commit | None = None
    split: str | None = None
    limit: Count | None = Field(None, description="Draw this many rows at random, with the stage's seed")

    @model_validator(mode="after")
    def _one_source(self) -> "DataSource":
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path (a local file) or hub (a data set's id)")
        if self.hub is not None and (self.revision is None or self.split is None):
            raise ValueError("a hub data set needs revision (a commit) and split")
        return self


class TrainingData(DataSource):
    """Data for training, or for evaluation during training."""

    unusable: Fraction = Field(
        0.01, description="Largest share of invalid rows (wrong schema, wrong roles) that may be left out"
    )


class World(Section):
    """Sizes of the generated mini world (salsa/world)."""

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
        description="A simulated retired judge. Its verdicts go to data/GRID/published_pair.jsonl, for calibration",
    )


class LayerSizes(Section):
    """Layer sizes of a decoder with gated MLPs."""

    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    key_value_heads: Count
    head_size: Count


class WorldModel(LayerSizes):
    """A tiny model of a real architecture, pretrained on the mini world."""

    architecture: Literal["llama", "mistral", "gemma"]
    sliding_window: Count | None = None
    max_positions: Count = 4096


class ExistingModel(Section):
    """What a base checkpoint lacks: a chat template, and often a pad token."""

    chat_template: str = Field(description="Path of a Jinja file")
    pad_token: str = Field(description="A token in the tokenizer's vocabulary; never EOS")


class HubModel(ExistingModel):
    """A base checkpoint on the hub."""

    id: str
    revision: Commit


class LocalModel(ExistingModel):
    """A base checkpoint in a local folder. Its weights are not copied, so the folder has to stay."""

    path: str


Engine = Literal["transformers", "vllm"]
FrozenPlace = Literal["auto", "device", "shards", "host", "disk"]
ModelsSection = Literal["sft", "reward", "ppo", "rloo", "grpo", "dpo", "generate", "score", "alpha"]


class Model(Section):
    """A base model: generated (`world`), from the hub (`hub`) or a folder (`local`)."""

    world: WorldModel | None = None
    hub: HubModel | None = None
    local: LocalModel | None = None
    settings: dict[ModelsSection, dict[str, Any]] = Field(
        default_factory=dict, description="Overrides of these sections for this model; a method's own settings win"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if [self.world, self.hub, self.local].count(None) != 2:
            raise ValueError("give one of world (a tiny generated model), hub (id and revision) and local (a folder)")
        return self


class Lora(Section):
    """LoRA (Hu et al. 2021): training changes weights by products of low rank alone, over a frozen base.

    The paper trains all weights, so this is a departure from it. The stage's checkpoint is then an adapter: the sum of
    the one that it started from and its own.
    """

    rank: Count = Field(16, description="Rank of a layer's change B A")
    alpha: Positive = Field(32.0, description="The change is alpha / rank times B A")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Layers with a change: all linear ones below the head, or names such as q_proj"
    )
    bits: Literal[4] | None = Field(
        None, description="4: the base in 4 bits (NF4, bitsandbytes). Default: in the stage's dtype"
    )


class Optimisation(Section):
    """Optimisation settings of the supervised stages. Batch sizes count sequences per optimiser step."""

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
    lora: Lora | None = Field(None, description="Train an adapter; default: all weights")

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> "Optimisation":
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self


class Base(Section):
    """Pretraining of the mini world's base models."""

    learning_rate: Positive
    batch_size: Count
    epochs: Positive = 1


class Sft(Optimisation):
    """Supervised fine-tuning: one run for each SFT model that a replicate, a method or `alpha` names."""

    train: TrainingData
    test: TrainingData
    sample: Fraction = Field(
        1.0, description="Share of the demonstrations that each seed draws at random and trains on"
    )


class Soup(Section):
    """How soups are stored."""

    shard_size: str = "4GB"
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="Dtype of the soup's weights. Default: that of the first ingredient, tensor by tensor"
    )


class Reward(Optimisation):
    """The reward model, trained on preference pairs and normalised on SFT 1's answers."""

    train: TrainingData
    test: TrainingData
    normalisation_samples: Count = Field(
        256, description="Number of SFT 1's answers on which the score gets mean 0 and std 1"
    )
    normalisation_prompts: TrainingData
    max_new_tokens: Count
    held_out: Count | None = Field(
        None,
        description="Seed of a second reward model for scoring alone, because a policy always looks good to the model "
        "it was trained against. Each of both is then trained on another half of the pairs",
    )


VLLM_ROWS = 512  # requests that vLLM answers at a time on a GPU; with more its CUDA graphs end


class GenerateSettings(Section):
    """How policies answer the benchmarks."""

    engine: Engine = "transformers"
    batch_size: Count = Field(64, description="Questions per batch with transformers; for vLLM set vllm.max_num_seqs")
    dtype: Literal["float32", "bfloat16"] = "float32"
    vllm: dict[str, Any] = Field(default_factory=dict, description="Arguments of vLLM's LLM class")


class Download(Section):
    """A file on the web with a known sha256."""

    url: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BenchmarkSettings(Section):
    """One benchmark: kind, questions and protocol settings. None means the protocol's default."""

    kind: str = Field(description="mt_bench, arena_hard, ultrafeedback, or your own .py file")
    questions: DataSource
    references: str | None = Field(None, description="MT-Bench: JSONL of reference answers")
    judge_prompts: str | None = Field(
        None, description="FastChat's judge_prompts.jsonl; our own templates where it has none, and by default"
    )
    max_new_tokens: Count
    temperature: NonNegative | None = None
    grade: bool = Field(False, description="Also grade single answers, beside pairwise comparison")
    download: dict[str, Download] = Field(default_factory=dict, description="Local path: where to download it from")


class Score(Section):
    """Scoring of answers: reward, KL, length, diversity."""

    batch_size: Count = 64
    distinct_n: list[Count] = Field(default_factory=lambda: [1, 2])
    dtype: Literal["float32", "bfloat16"] = "float32"


class Alpha(Section):
    """Reward and SFT loss of soups along the line between two SFT models, in each replicate."""

    between: tuple[str, str] = ("sft-1", "sft-2")
    points: list[Fraction] = Field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    also: list[Checkpoint] = Field(
        default_factory=list,
        description="Further checkpoints to measure, in the first replicate only: other SFT models, soups",
    )
    prompts: TrainingData
    samples: Count
    max_new_tokens: Count
    batch_size: Count = 64
    dtype: Literal["float32", "bfloat16"] = "float32"


class Frontier(Section):
    """Reward against KL at several betas, by which methods are compared at equal KL.

    Each method is also trained at each beta, as a method METHOD-bBETA. It answers the benchmarks only if a comparison
    names it. All runs, and the checkpoints that `checkpoints_at` keeps, are measured on the prompts of `alpha`.
    With `against`, all runs also answer the benchmarks and are judged against this method.

    A method with one policy has no curve. It is compared with another method's curve at its own KL, and with another
    such method by how far each is above the curve of the method `curve`.
    """

    methods: list[Name] = Field(min_length=1, description="Methods with training")
    betas: list[NonNegative] | dict[Name, list[NonNegative]] = Field(
        default_factory=list, description="Betas beside each method's own: of all methods, or by method"
    )
    against: Name | None = Field(
        None, description="A method that all runs are judged against, for win rates at equal KL"
    )
    curve: Name | None = Field(
        None, description="A method with several betas, by whose curve methods with one policy each are compared"
    )

    @model_validator(mode="after")
    def _methods_agree(self) -> "Frontier":
        if self.curve is not None and (self.curve not in self.methods or not self.betas_of(self.curve)):
            raise ValueError(f"curve: {self.curve} is no method with betas of its own: correct it")
        if isinstance(self.betas, dict) and (others := sorted(self.betas.keys() - {*self.methods})):
            raise ValueError(
                f"betas: {others[0]} is not among the methods {', '.join(self.methods)}: add it or remove it"
            )
        return self

    def betas_of(self, method: str) -> list[float]:
        """Betas of a method beside its own."""
        return self.betas.get(method, []) if isinstance(self.betas, dict) else self.betas


class Comparison(Section):
    """Method `a` against method `b`, in each replicate, RL seed by RL seed."""

    a: str
    b: str


class ArchiveFile(Section):
    """A file of verdicts from another tool, for `python -m eval import` (docs/formats.md)."""

    format: Literal["fastchat_single", "fastchat_pair", "arena_hard_battles"]
    path: str
    questions: str | None = Field(None, description="A file of questions, for their categories")


class Calibration(Section):
    """Calibration of the judge: archived judge prompts are sent to it again (`python -m eval calibrate`)."""

    archive: str = Field(description="A ledger with verdicts and their prompts")
    files: dict[Name, ArchiveFile] = Field(default_factory=dict, description="Files imported into the archive first")
    items: Count | None = Field(
        None, description="Answers or matches to draw for each benchmark and archived judge; default: all"
    )
    templates: str | None = Field(
        None, description="FastChat's judge_prompts.jsonl, for system prompts; default: our own templates"
    )
    resamples: Count = Field(2000, description="Bootstrap resamples of the card's rank correlations")


class Tables(Section):
    """Intervals and coverage of the tables."""

    headline: str = Field(description="The comparison that a run prints at its end")
    confidence: Fraction = 0.95
    coverage_floor: Fraction = Field(0.98, description="Smallest share of a cell's judgments that must have a verdict")
    below_floor: Literal["fail", "mark"] = Field(
        "fail", description="Cells below the floor are marked in the tables; `fail` also fails the run at its end"
    )
