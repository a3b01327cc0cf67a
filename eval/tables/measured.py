"""Tables without a judge: scores, improvements, soup, reward_model, training, data, overlap, runs."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from eval.benchmarks.overlap import RUN_OF_WORDS, SHARE_ALIKE
from eval.grid import aggregate, run_versions
from eval.grid.results import GridResults
from eval.tables.formats import NOTHING, number, with_interval
from eval.tables.judged import interval_note
from eval.tables.table import Column, Table, copied, figure, has, interval, only_if
from salsa.data.rows import CHOICES, FAULTS
from salsa.runtime.texts import counted

CELL = ["model", "benchmark", "method"]


def scores_by_method(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per method, one column per measure."""
    wide = rows.assign(text=with_interval(rows, "mean")).pivot_table(
        index=CELL, columns="measure", values="text", aggfunc="first", sort=False
    )
    counts = rows.groupby(CELL, sort=False)[["n", "seeds"]].first().reset_index()
    return wide.reset_index().fillna(NOTHING).merge(counts, on=CELL)


SCORES = Table(
    "scores",
    "Scores without a judge",
    lambda results: aggregate.score_table(results.scores, results.grid),
    [
        *map(copied, CELL),
        *(only_if(has(measure), copied(measure)) for measure in aggregate.MEASURES),
        *(copied("n"), copied("seeds")),
    ],
    [
        interval_note,
        "reward: learned reward, normalised to mean 0 and std 1 on SFT 1's samples. reward_held_out: that of a reward "
        "model that no policy was trained against. kl_*: nats per response, summed "
        "over its tokens. tokens: length of the response. ended: share with EOS. seeds: number of training runs.",
    ],
    layout=scores_by_method,
)
IMPROVEMENTS = Table(
    "improvements",
    "Differences in reward and KL, paired by question",
    lambda results: results.improvements,
    [
        *map(copied, ("comparison", "model", "benchmark", "measure")),
        interval("difference", "difference"),
        copied("n"),
    ],
    [interval_note, "First method minus the second, paired by question."],
)


def checkpoint_label(path: Path) -> str:
    """The checkpoint's name: sft-1, or a soup by its weights."""
    return f"sft-{path.name}" if path.parent.parent.name == "sft" else path.name


def with_error(measure: str) -> Column:
    """A mean with its standard error; left out if it was not measured."""
    return Column(
        measure,
        lambda rows: [
            f"{number(value)} ± {number(error)}"
            for value, error in zip(rows[measure], rows[f"{measure}_se"], strict=True)
        ],
        lambda rows: not rows[measure].isna().all(),
    )


def several_replicates(rows: pd.DataFrame) -> bool:
    """Whether the rows are of named replicates."""
    return bool(rows["replicate"].any())


REPLICATE = only_if(
    several_replicates, Column("replicate", lambda rows: [name or "shared" for name in rows["replicate"]])
)
SOUP = Table(
    "soup",
    "Soups between two SFT models",
    lambda results: results.soups,
    [
        copied("model"),
        REPLICATE,
        figure("alpha", digits=2),
        Column("checkpoint", lambda rows: [checkpoint_label(Path(path)) for path in rows["checkpoint"]]),
        *(with_error("reward"), with_error("gold")),
        figure("sft_loss", "SFT loss", digits=4),
        figure("kl_sft", "KL from SFT 1"),
        figure("tokens", digits=1),
        copied("samples", "n"),
    ],
    [
        "± is one standard error over prompts. KL: from the soup to SFT 1 on the soup's samples, in nats per response. "
        "tokens: mean length of the samples. n: number of samples."
    ],
)


def several_versions(rows: pd.DataFrame) -> bool:
    """Whether methods combine several reward models."""
    return bool(rows["version"].any())


def version_names(rows: pd.DataFrame) -> list[str]:
    """Number of a reward model, or how many are combined and how."""
    return [name.replace("-", " of ") or "1" for name in rows["version"]]


def has_gold(rows: pd.DataFrame) -> bool:
    """Whether the reward models were compared with the gold reward."""
    return not rows["accuracy_gold"].isna().all()


def versions_note(results: GridResults, rows: pd.DataFrame) -> Iterable[str]:
    """What the versions are, if there are several."""
    if several_versions(rows):
        yield (
            "Versions: 1, 2, … differ in the order of their pairs; weights of 3, the model with the average weights of "
            "three (WARM); mean or min of 3, the mean or minimum of their scores."
        )


REWARD_MODEL = Table(
    "reward_model",
    "Reward models",
    lambda results: results.reward_cards,
    [
        copied("model"),
        REPLICATE,
        only_if(several_versions, Column("version", version_names)),
        copied("pairs_test", "pairs"),
        interval("accuracy", "accuracy", "accuracy_low", "accuracy_high"),
        only_if(has_gold, copied("pairs_gold", "pairs by gold")),
        only_if(has_gold, interval("accuracy by gold", "accuracy_gold", "accuracy_gold_low", "accuracy_gold_high")),
    ],
    [
        "Held-out pairs without ties, with Wilson's 95% intervals. By gold: agreement with the gold reward.",
        versions_note,
    ],
)
TRAINING = Table(
    "training",
    "Training runs",
    lambda results: aggregate.training_table(results.training),
    [
        *(copied("model"), copied("policy")),
        *map(figure, ("reward", "gold", "kl_ref_k1", "kl_ref_k3", "kl_sft_k1", "entropy", "length", "eos_share")),
        figure("explained_variance"),
    ],
    ["Means over the last quarter of the steps; see docs/metrics.md."],
)


def tokens_per_row(rows: pd.DataFrame) -> list[str]:
    """Mean number of tokens of the used rows."""
    return [number(tokens / used, 0) for tokens, used in zip(rows["tokens"], rows["used"], strict=True)]


DATA = Table(
    "data",
    "Data sets",
    lambda results: results.data_sets,
    [
        *map(copied, ("model", "set", "source", "rows", "used")),
        *(copied(reason, reason.replace("_", " ")) for reason in (*CHOICES, *FAULTS, "cut")),
        copied("limit"),
        Column("tokens a row", tokens_per_row),
    ],
    [
        "Left out: empty, a turn is empty; equal, both answers are the same; tied, both answers have the same score; "
        "too long, more tokens than the limit (demonstrations: no assistant token within it); malformed, a turn has no "
        "role or no text; roles, an unknown role, no user turn, or no answer at the end; mismatched, chosen and "
        "rejected answer different dialogues; refused, the chat template raises an error. Cut: used, but truncated at "
        "the limit. Tokens a row: over used rows; both dialogues of a pair count.",
    ],
)


def share(kind: str) -> Column:
    """Number and share of the questions of a kind."""
    return Column(
        kind,
        lambda rows: [
            f"{count} ({count / questions:.1%})" for count, questions in zip(rows[kind], rows["questions"], strict=True)
        ],
    )


OVERLAP = Table(
    "overlap",
    "Benchmark questions among training prompts",
    lambda results: results.overlap,
    [*map(copied, ("set", "benchmark", "questions")), share("equal"), share("alike")],
    [
        "Benchmark questions among the training prompts. Equal: the first turn equals a user turn, up to case and "
        f"punctuation. Alike, and not equal: at least {SHARE_ALIKE:.0%} of the question's words are in "
        f"{RUN_OF_WORDS}-grams that also occur in the user turns of one training row. No question is removed for this; "
        "overlap.json has the ids.",
    ],
)


def runs_note(results: GridResults, rows: pd.DataFrame) -> Iterable[str]:
    """On how many kinds of processor the grid ran, and why that matters."""
    kinds = len(results.made_with.get("processor", {}))
    yield (
        f"The runs behind the tables, on {counted(kinds, 'kind')} of processor. Besides the machines, only "
        "properties that differ between runs are shown. Another processor, other vector instructions or another number "
        "of threads round sums differently, and training amplifies that: every figure changes, as with another seed. "
        "See docs/howto-resume.md."
    )


RUNS = Table(
    "runs",
    "Commits, versions and machines of the runs",
    lambda results: run_versions.table(results.made_with),
    [*map(copied, ("property", "value", "runs", "which"))],
    [runs_note],
    layout=run_versions.shown,
)
