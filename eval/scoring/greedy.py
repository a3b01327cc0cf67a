"""Stage `greedy`: a soup of those SFT models that raise its reward (Wortsman et al. 2022, arXiv 2203.05482).

The models are tried in the order of their own rewards, the best first. A model stays if the soup of equal weights with
it has at least the reward of the soup without it. Rewards are means over the prompts of `alpha`, by the reward model
that no policy is trained against; all candidates have the same random numbers.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.scoring.probe import Probe
from salsa.config.sections import Alpha, Soup
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings
from salsa.soups.soup import soup

Models = tuple[Path, ...]


@dataclass(frozen=True)
class Trial:
    """A soup of equal weights, its reward, and whether its last model stayed."""

    models: Models
    reward: float
    kept: bool


def choose(models: Sequence[Path], reward_of: Callable[[Models], float]) -> tuple[Models, list[Trial]]:
    """The models of the greedy soup, and all trials. `reward_of` measures the soup of some models."""
    alone = {model: reward_of((model,)) for model in models}
    first, *rest = sorted(models, key=lambda model: -alone[model])
    trials = [Trial((model,), alone[model], model == first) for model in models]
    chosen: Models = (first,)
    best = alone[first]
    for model in rest:
        reward = reward_of((*chosen, model))
        trials.append(Trial((*chosen, model), reward, reward >= best))
        if reward >= best:
            chosen, best = (*chosen, model), reward
    return chosen, trials


def equal_weights(models: Sequence[Path]) -> dict[Path, float]:
    """The same weight for each model."""
    return {model: 1 / len(models) for model in models}


def run(arguments: argparse.Namespace) -> None:
    settings, stored = load_settings(arguments.settings, Alpha), load_settings(arguments.soup, Soup, "--soup")
    models = arguments.model
    inputs = {f"model_{number}": path for number, path in enumerate(models, 1)} | {"reward": arguments.reward}
    if settings.prompts.path is not None:
        inputs["prompts"] = Path(settings.prompts.path)
    recorded = {"alpha": settings.model_dump(), "soup": stored.model_dump()}
    record = Run("greedy", recorded, inputs, {"seed": arguments.seed, "run": arguments.run})
    given = {"reward": arguments.reward}
    probe = Probe(models[0], given, settings, None, False, arguments.seed, arguments.prepared, arguments.run)

    with output_folder(arguments.out, record) as folder, scratch(arguments.out) as work:

        def reward_of(parts: Models) -> float:
            place = parts[0]
            if len(parts) > 1:
                place = work / str(len(list(work.iterdir())))
                place.mkdir()
                soup(equal_weights(parts), place, stored.shard_size, dtype=stored.dtype)
            reward = float(probe.measure(place)["reward"])
            log.info("%s: reward %.3f", " + ".join(map(str, parts)), reward)
            return reward

        chosen, trials = choose(models, reward_of)
        record.extra = {
            **soup(equal_weights(chosen), folder, stored.shard_size, dtype=stored.dtype),
            "models": [str(model) for model in chosen],
            "trials": [{"models": list(map(str, t.models)), "reward": t.reward, "kept": t.kept} for t in trials],
        }
