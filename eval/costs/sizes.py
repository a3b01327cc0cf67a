"""Sizes of a grid's models and data: counted where they are on disk, otherwise assumed, with a note for each
assumption."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from eval.benchmarks import Question, load_questions
from eval.costs.assumed import Kind, Shape, SplitRows, assumed
from eval.grid.layout import data_file
from salsa.config import layout
from salsa.config.config import Config, with_local_copies
from salsa.config.sections import BenchmarkSettings, DataSource, LayerSizes
from salsa.data.rows import Row, Unusable, conversation, demonstration, load_rows, preference
from salsa.data.training_sets import DataSet, all_sets, training_sets
from salsa.runtime.errors import UserError
from salsa.runtime.provenance import run_file
from salsa.runtime.texts import counted

WORLD_ROWS = {
    "sft_train": "sft_train",
    "sft_test": "sft_test",
    "prefs_train": "preferences_train",
    "prefs_test": "preferences_test",
    "rl_prompts": "rl_prompts",
}
PREPARE = "run snakemake prepare for this config first"


@dataclass(frozen=True)
class Rows:
    """The number of used rows, and their mean length."""

    count: float
    tokens: float


@dataclass
class Sizes:
    """Sizes of a config's models, data and questions. `notes` maps each assumption to its source."""

    config: Config
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.local, self.hub = with_local_copies(self.config)
        self.world = layout.world_folder(self.config)
        self.answer_tokens = assumed().world.answer_tokens if self.config.world else assumed().answer_tokens
        self.questions = cache(self._questions)
        self._read = cache(self._in_file)
        where = assumed().sources.world if self.config.world else assumed().sources.answer_tokens
        self.note(f"answers have {self.answer_tokens:g} tokens, or their stage's limit if that is lower", where)

    def note(self, text: str, source: str) -> None:
        self.notes[text] = source

    def answer(self, limit: int) -> float:
        """Mean length of answers of at most `limit` tokens."""
        return min(self.answer_tokens, limit)

    def shape(self, model: str) -> Shape:
        """A model's shape: from the config, from a base checkpoint on disk, or from assumed.yaml."""
        entry = self.config.models[model]
        if entry.world is not None:
            assert self.config.world is not None
            sizes = entry.world.model_dump(include=set(LayerSizes.model_fields))
            return Shape(**sizes, vocabulary=self.config.world.vocabulary, tied=entry.world.architecture == "gemma")
        folder = Path(entry.local.path if entry.local else f"{layout.root(self.config)}/base/{model}")
        if (folder / "config.json").is_file():
            return shape_of_checkpoint(folder)
        known = assumed().models.get(entry.hub.id) if entry.hub else None
        if known is None:
            raise UserError(f"models.{model}: its size is unknown while {folder} does not exist: {PREPARE}")
        self.note(f"{model}: {known.parameters / 1e9:.3g} billion parameters", assumed().sources.models)
        return known

    def parameters(self, model: str) -> int:
        """A model's number of parameters."""
        return self.shape(model).parameters

    def rows(self, model: str, name: str, data_set: DataSet) -> Rows:
        """Rows of a data set of `all_sets`: counted if `snakemake prepare` has prepared it, otherwise assumed."""
        counted = self._counted(model, name, data_set)
        if counted is not None:
            return counted
        rows = self.of_source(data_set.source, data_set.kind)
        limit = data_set.max_length * (2 if data_set.kind == "preferences" else 1)
        return Rows(rows.count, min(rows.tokens, limit))

    def _counted(self, model: str, name: str, data_set: DataSet) -> Rows | None:
        """The counts of the model's data card, if it describes this data set."""
        card = data_file(Path(self.config.paths.results) / self.config.grid, model)
        if not card.exists() or not run_file(card).exists():
            return None
        prepared = json.loads(run_file(card).read_text())["settings"].get(name)
        if prepared != data_set.model_dump(mode="json", exclude_none=True):
            return None
        counts = json.loads(card.read_text())[name]
        return Rows(counts["used"], counts["tokens"] / max(1, counts["used"]))

    def sources(self, model: str) -> list[DataSource]:
        """Sources of a model's training and test sets."""
        return [data_set.source for data_set in all_sets(self.local, model).values()]

    def training_sources(self) -> list[DataSource]:
        """Sources of all models' training sets."""
        return [data_set.source for data_set in training_sets(self.local).values()]

    def all_sets(self, model: str) -> dict[str, Rows]:
        """Rows of each of a model's training and test sets."""
        return {name: self.rows(model, name, data_set) for name, data_set in all_sets(self.local, model).items()}

    def of_source(self, source: DataSource, kind: Kind) -> Rows:
        """Rows of a source, estimated without a tokenizer."""
        assert source.path is not None, "hub data sets have local names"
        path = Path(source.path)
        if path.is_relative_to(self.world) and path.stem in WORLD_ROWS:
            rows = getattr(self.config.world, WORLD_ROWS[path.stem])
            self.note(
                f"the mini world: {assumed().world.tokens[kind]:g} tokens per row of {kind}", assumed().sources.world
            )
            return Rows(min(rows, source.limit or rows), assumed().world.tokens[kind])
        if path.exists():
            read = self._read(source.path, kind)
            return Rows(min(read.count, source.limit or read.count), read.tokens)
        if source.path in self.hub:
            hub = self.hub[source.path]
            known = assumed().data_sets.get(hub.hub or "", {}).get(hub.split or "")
            if known is not None and kind in known.tokens:
                rows = min(known.rows, source.limit or known.rows) * (known.used if kind == "preferences" else 1)
                self._note_rows(f"{hub.hub} {hub.split}", kind, known)
                return Rows(rows, known.tokens[kind])
        raise UserError(f"{source.path}: its number of rows is unknown while it does not exist: {PREPARE}")

    def _note_rows(self, name: str, kind: Kind, split: SplitRows) -> None:
        """Note what is assumed of a split of a data set."""
        sources = assumed().sources
        self.note(f"{name}: {split.rows:,} rows", sources.rows)
        if kind == "preferences":
            self.note(f"{name}: {split.used:.0%} of the rows are used", sources.row_tokens)
        self.note(f"{name}: {split.tokens[kind]:g} tokens per row of {kind}", sources.row_tokens)

    def _in_file(self, path: str, kind: Kind) -> Rows:
        """All rows of a local file or folder; tokens are estimated from bytes."""
        rows = load_rows(DataSource(path=path), 0)
        size = sum(text_bytes(row, kind) for row in rows)
        tokens = size / assumed().bytes_per_token / max(1, len(rows))
        self.note(f"{path}: {tokens:.0f} tokens per row of {kind}", "counted: its bytes, 4 per token")
        return Rows(len(rows), tokens)

    def _questions(self, name: str) -> list[Question]:
        """A benchmark's questions, or placeholders of the assumed number and length while their file does not exist."""
        settings = self.local.benchmarks[name]
        path = Path(settings.questions.path or "")
        if path.exists():
            return load_questions(settings.model_copy(update=self._missing_files(settings)), self.config.seed)
        count, turns, tokens = self._assumed_questions(name, settings)
        length = round(tokens * assumed().bytes_per_token)
        # All different, because identical judge prompts are paid only once.
        return [
            Question(f"{name}-{number}", "unknown", (f"{number} ".ljust(length, "x"),) * turns)
            for number in range(round(count))
        ]

    @staticmethod
    def _missing_files(settings: BenchmarkSettings) -> dict[str, None]:
        """None for each of the benchmark's files that does not exist yet."""
        files = {key: getattr(settings, key) for key in ("references", "judge_prompts")}
        return {key: None for key, file in files.items() if file is not None and not Path(file).exists()}

    def _assumed_questions(self, name: str, settings: BenchmarkSettings) -> tuple[float, int, float]:
        """The number of questions, turns per question, and tokens per turn."""
        source = settings.questions
        path, known = Path(source.path or ""), assumed().questions.get(settings.kind)
        if path.is_relative_to(self.world):
            world = self.config.world
            assert world is not None
            counts = {
                "mt_bench": 8 * world.mt_bench_per_category,
                "arena_hard": world.arena_hard_questions,
                "ultrafeedback": world.ultrafeedback_questions,
            }
            if path.stem in counts:
                turns, tokens = 2 if path.stem == "mt_bench" else 1, assumed().world.tokens["prompts"] / 2
                self._note_questions(name, counts[path.stem], turns, tokens, assumed().sources.world)
                return counts[path.stem], turns, tokens
        elif source.path in self.hub:
            rows = self.of_source(source, "prompts")  # notes its rows
            return rows.count, 1, rows.tokens
        elif known is not None and source.path in settings.download:
            count = min(known.rows, source.limit or known.rows)
            self._note_questions(name, count, known.turns, known.tokens, assumed().sources.questions)
            return count, known.turns, known.tokens
        raise UserError(
            f"benchmarks.{name}: its number of questions is unknown while {source.path} does not exist: {PREPARE}"
        )

    def _note_questions(self, name: str, count: float, turns: int, tokens: float, source: str) -> None:
        """Note what is assumed of a benchmark's questions."""
        length = f"{turns * tokens:g} tokens in {counted(turns, 'turn')}"
        self.note(f"{name}: {count:g} questions of {length}", source)


def text_bytes(row: Row, kind: Kind) -> int:
    """Bytes of the text that a stage reads from a row; 0 for a row that it skips."""
    try:
        match kind:
            case "demonstrations":
                messages = demonstration(row)
            case "preferences":
                messages = [message for side in preference(row) for message in side]
            case _:
                messages = conversation(row)
    except Unusable:
        return 0
    return sum(len(message["content"].encode()) for message in messages)


def shape_of_checkpoint(folder: Path) -> Shape:
    """A checkpoint's shape, from its config.json and the architecture's defaults. Raises UserError if it has none."""
    from transformers import AutoConfig  # imported only if a checkpoint is on disk: it takes seconds

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).get_text_config()
        return Shape(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            key_value_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
        )
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder}/config.json: cannot read the model's shape ({str(error).splitlines()[0]}): correct the file"
        ) from None
