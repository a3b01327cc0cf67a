"""What the figures draw."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from eval.figures.differences import differences_figure
from eval.figures.soup import soup_figure
from eval.figures.style import MANY
from eval.figures.training import reward_kl_figure, training_figure
from eval.grid.layout import Grid
from eval.grid.results import GridResults
from tests.eval.synthetic import REPLICATED, write_results

DRAWS = {f"r{n}": {"sft": {"sft-1": 2 * n - 1, "sft-2": 2 * n}, "rl_seeds": [1]} for n in range(1, MANY + 2)}
MANY_REPLICATES = Grid.model_validate({**REPLICATED.model_dump(), "replicates": DRAWS})
TRAINED = 2  # methods


@pytest.fixture(params=[REPLICATED, MANY_REPLICATES], ids=["few", "many"])
def results(request, tmp_path):
    yield GridResults(write_results(tmp_path / "results", grid=request.param), request.param)
    plt.close("all")


def test_many_runs_are_drawn_as_one(results):
    replicates = len(results.grid.replicates)
    is_many = replicates > MANY
    for panel in training_figure(results).axes:
        assert len(panel.lines) == TRAINED * (1 if is_many else replicates + 1)
        assert len(panel.collections) == (TRAINED if is_many else 0), "shaded"
    for panel in reward_kl_figure(results).axes:
        steps = results.training["step"].nunique()
        assert [len(cloud.get_offsets()) for cloud in panel.collections] == [
            steps * (1 if is_many else replicates)
        ] * TRAINED
    models = len(results.grid.models)
    for panel in soup_figure(results).axes:
        assert len(panel.containers) == models * (1 if is_many else replicates)


@pytest.mark.parametrize(
    ("algorithm", "label"), [("ppo", "PPO step"), ("rloo", "PPO or RLOO step")], ids=["one", "two algorithms"]
)
def test_steps_are_those_of_the_algorithms(tmp_path, algorithm, label):
    settings = REPLICATED.model_dump()
    settings["methods"]["salsa"]["algorithm"] = algorithm
    grid = Grid.model_validate(settings)
    figure = training_figure(GridResults(write_results(tmp_path, grid=grid), grid))
    assert {panel.get_xlabel() for panel in figure.axes} == {label, ""}
    plt.close(figure)


@pytest.mark.parametrize("results", [MANY_REPLICATES], indirect=True)
def test_mean_of_many_soups_has_its_standard_error(results):
    rewards = results.soups.query("model == 'one-mini' and alpha == 0.5")["reward"]
    line, _, bars = soup_figure(results).axes[0].containers[0]
    assert line.get_ydata()[1] == pytest.approx(rewards.mean())
    (_, low), (_, high) = bars[0].get_segments()[1]
    assert (high - low) / 2 == pytest.approx(rewards.std(ddof=1) / np.sqrt(len(rewards)))


def test_differences_are_those_of_the_table(results):
    table = results.improvements.query("benchmark == 'all'")
    panels = {panel.get_title(): panel for panel in differences_figure(results).axes}
    assert list(panels) == ["learned reward", "held-out reward model", "gold reward", "KL to SFT 1 (nats)"]
    for title, measure in zip(panels, ("reward", "reward_held_out", "gold", "kl_sft"), strict=True):
        for model, drawn in zip(("one-mini", "two_mini", "all"), panels[title].containers, strict=True):
            rows = table[(table["measure"] == measure) & (table["model"] == model)]
            assert drawn[0].get_xdata() == pytest.approx(rows["difference"].to_numpy())
            for (x, _), low in zip((s[0] for s in drawn[2][0].get_segments()), rows["low"], strict=True):
                assert x == pytest.approx(low)
