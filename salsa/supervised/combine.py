"""Stage `combine`: several reward models as one reward, evaluated and normalised as a single one is.

weights    a reward model with their average weights: WARM (Ramé et al. 2024, arXiv 2401.12187)
mean, min  an ensemble: the mean or the minimum of their normalised scores (Coste et al. 2023, arXiv 2310.02743)

Mean and minimum vary less than one model's score, so they are normalised once more, on SFT 1's samples. A beta and a
penalty then mean the same against every reward.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
from salsa.supervised.reward_card import Score, batch_size, raw_scores, reward_card

NORMALISATION = ("reward_mean", "reward_std")
Card = dict[str, Any]
Measure = Callable[[Score], Card]  # makes the card of a reward from its scores


def average(models: Sequence[Path], folder: Path, settings: Reward, measure: Measure) -> tuple[Card, dict[str, Any]]:
    """Write the reward model with the average weights of `models`. Returns its card, and facts for run.json."""
    facts = soup({path: 1 / len(models) for path in models}, folder, may_differ=NORMALISATION)
    card = measure(partial(raw_scores, load_reward(folder, settings.dtype), settings))
    config = {**read_json(folder / "config.json"), "reward_mean": card["mean"], "reward_std": card["std"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return card, facts


def ensemble(
    models: list[Path], combine: Combine, folder: Path, place: Path, settings: Reward, measure: Measure
) -> Card:
    """Write an ensemble of `models` into `folder`, which will be moved to `place`. Returns its card."""

    def score(sequences: list[list[int]]) -> list[float]:
        # One model is in memory at a time.
        scores = [Scorer(model, settings.dtype)(sequences, batch_size(settings)) for model in models]
        return combined(combine, scores)

    card = measure(score)
    Ensemble(models, combine, card["mean"], card["std"]).write(folder, place)
    return card


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
    record = Run("combine", {**settings.model_dump(), "combine": arguments.by}, inputs, seeds)
    sets = reward_sets(settings, arguments.seed)
    names = [f"reward.{key}" for key in sources]
    data = {name: prepare(name, sets[name], tokenizer, arguments.prepared) for name in names}
    root = derive_seed(run_seed(arguments.seed, arguments.run), "reward", arguments.reward_seed)
    measure = partial(reward_card, data=data, sft=arguments.sft, settings=settings, seed=root)
    with output_folder(arguments.out, record) as folder:
        if arguments.by == "weights":
            card, record.extra = average(models, folder, settings, measure)
        else:
            card = ensemble(models, arguments.by, folder, arguments.out, settings, measure)
        record.extra |= {"card": card, "data": {name: prepared.counts for name, prepared in data.items()}}
    log.info("combine: accuracy %s of %d held-out pairs", card["accuracy"], card["pairs_test"])
    with output_file(arguments.card) as path:
        path.write_text(json.dumps(card, indent=2) + "\n")
