"""Stage `combine`: several reward models as one reward, evaluated and normalised as a single one is.

weights    a reward model with their average weights: WARM (Ramé et al. 2024, arXiv 2401.12187)
mean, min  an ensemble: the mean or the minimum of their normalised scores (Coste et al. 2023, arXiv 2310.02743)

Mean and minimum vary less than one model's score, so they are normalised once more, on SFT 1's samples. A beta and a
penalty then mean the same against every reward.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from salsa.checkpoints.ensembles import Combine, Ensemble, combined
from salsa.checkpoints.loading import check_vocabularies, load_reward, load_tokenizer
from salsa.checkpoints.shards import read_json
from salsa.config.sections import Reward
from salsa.data.token_cache import prepare
from salsa.data.training_sets import reward_sets
from salsa.models.scoring import Scorer
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file, output_folder
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed, run_seed
from salsa.runtime.settings import load_settings
from salsa.soups.soup import soup
from salsa.supervised.reward_figures import batch_size, measured, raw_scores

NORMALISATION = ("reward_mean", "reward_std")


def ensemble_scores(
    models: Sequence[Path], combine: Combine, settings: Reward, sequences: list[list[int]]
) -> list[float]:
    """The ensemble's scores, not yet normalised. One model is in memory at a time."""
    return combined(combine, [Scorer(folder, settings.dtype)(sequences, batch_size(settings)) for folder in models])


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Reward)
    models: list[Path] = arguments.reward
    if len(set(models)) < max(2, len(models)):
        raise UserError("--reward: name two reward models or more, each once")
    tokenizer = load_tokenizer(models[0])
    check_vocabularies(tokenizer, [("--reward", path) for path in models[1:]] + [("--sft", arguments.sft)])
    inputs = {f"reward_{number}": path for number, path in enumerate(models, 1)} | {"sft": arguments.sft}
    sources = {"test": settings.test, "normalisation_prompts": settings.normalisation_prompts}
    inputs |= {key: Path(source.path) for key, source in sources.items() if source.path}
    seeds = {"seed": arguments.seed, "reward_seed": arguments.reward_seed, "run": arguments.run}
    root = derive_seed(run_seed(arguments.seed, arguments.run), "reward", arguments.reward_seed)
    sets = reward_sets(settings, arguments.seed)
    data = {
        f"reward.{key}": prepare(f"reward.{key}", sets[f"reward.{key}"], tokenizer, arguments.prepared)
        for key in sources
    }
    record = Run("combine", {**settings.model_dump(), "combine": arguments.by}, inputs, seeds)
    with output_folder(arguments.out, record) as folder:
        if arguments.by == "weights":
            equal = {path: 1 / len(models) for path in models}
            record.extra = soup(equal, folder, may_differ=NORMALISATION)
            score = partial(raw_scores, load_reward(folder, settings.dtype), settings)
        else:
            score = partial(ensemble_scores, models, arguments.by, settings)
        card = measured(score, data, arguments.sft, settings, root)
        if arguments.by == "weights":
            config = read_json(folder / "config.json")
            config |= dict(zip(NORMALISATION, (card["mean"], card["std"]), strict=True))
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        else:
            Ensemble(models, arguments.by, card["mean"], card["std"]).write(folder, arguments.out)
        record.extra |= {"card": card, "data": {name: prepared.counts for name, prepared in data.items()}}
    log.info("combine: accuracy %s of %d held-out pairs", card["accuracy"], card["pairs_test"])
    with output_file(arguments.card) as path:
        path.write_text(json.dumps(card, indent=2) + "\n")
