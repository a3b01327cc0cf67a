"""Stage `figures`: all figures of a grid, as deterministic SVG and PNG files.

To add one, draw it in a module of its own and list it here.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from eval.figures.differences import differences_figure, equal_kl_figure
from eval.figures.frontier import frontier_figure
from eval.figures.soup import soup_figure
from eval.figures.style import MANY, STYLE
from eval.figures.training import reward_kl_figure, training_figure
from eval.figures.win_rates import win_rates_figure
from eval.grid.layout import Grid
from eval.grid.results import GridResults
from eval.tables.at_equal_kl import has_frontier, has_several_comparisons
from eval.tables.of_grid import load_results
from salsa.runtime.outputs import output_folder


@dataclass(frozen=True)
class Plot:
    """A figure: the name of its files, its title and caption, the tables with its numbers, and how it is drawn."""

    name: str
    title: str
    caption: str
    tables: tuple[str, ...]
    draw: Callable[[GridResults], Figure]
    is_made: Callable[[Grid], bool] = lambda grid: True

    def save(self, folder: Path, results: GridResults) -> None:
        """Write NAME.svg and NAME.png, without matplotlib's date."""
        figure = self.draw(results)
        figure.savefig(folder / f"{self.name}.svg", metadata={"Date": None})
        figure.set_layout_engine("none")  # the layout is fixed by the first drawing
        figure.savefig(folder / f"{self.name}.png", dpi=150, metadata={"Software": None})
        plt.close(figure)


PLOTS = [  # in the report's order
    Plot(
        "win_rates",
        "Win rates",
        "Adjusted win rates with their intervals. The dashed line means no difference.",
        ("win_rates",),
        win_rates_figure,
    ),
    Plot(
        "improvements",
        "Differences in reward and KL",
        "First method of each comparison minus the second, over the questions of all benchmarks, with intervals. The "
        "dashed line means no difference.",
        ("improvements",),
        differences_figure,
    ),
    Plot(
        "soup",
        "Soups between two SFT models",
        f"Soups along the line between two SFT models, one curve for each model and replicate, with one standard error "
        f"over prompts. Of more than {MANY} replicates: their mean, with one standard error over replicates.",
        ("soup",),
        soup_figure,
    ),
    Plot(
        "training",
        "Training curves",
        f"Training metrics. Thin lines are runs, thick lines their mean. Of more than {MANY} runs the middle half is "
        "shaded.",
        ("training",),
        training_figure,
    ),
    Plot(
        "reward_kl",
        "Reward against KL during training",
        "Reward against distance from SFT 1, one point for each step of each run, or for the mean of more than "
        f"{MANY} runs. Where the learned reward rises while the gold reward falls, the reward model is over-optimised.",
        ("training", "scores"),
        reward_kl_figure,
    ),
    Plot(
        "frontier",
        "Reward at equal KL",
        "Reward against the KL to SFT 1, over all betas and the checkpoints on the way. Curves: parabolas in the "
        "square root of the KL, mean over replicates with its interval. A method with one policy: the mean over "
        "replicates. Right, if there is one comparison: its first method minus the second at equal KL, mean over the "
        "KL that both reach, with its interval over replicates.",
        ("equal_kl", "frontier"),
        frontier_figure,
        is_made=has_frontier,
    ),
    Plot(
        "equal_kl",
        "Differences at equal KL",
        "First method of each comparison minus the second at the same KL to SFT 1, mean over the KL that both reach, "
        "with intervals over replicates. The dashed line means no difference.",
        ("equal_kl",),
        equal_kl_figure,
        is_made=has_several_comparisons,
    ),
]


def plots(grid: Grid) -> list[Plot]:
    """The figures of a grid."""
    return [plot for plot in PLOTS if plot.is_made(grid)]


def run(arguments: argparse.Namespace) -> None:
    results, record = load_results(arguments, "figures")
    with plt.rc_context(STYLE), output_folder(arguments.out, record) as folder:
        for plot in plots(results.grid):
            plot.save(folder, results)
