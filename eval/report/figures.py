"""Stage `figures`: win rates, soups, training curves and over-optimisation, as deterministic SVG and PNG files."""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.grid.layout import ALL_MODELS, Grid
from eval.grid.results import GridResults
from eval.report.frontier_figure import frontier_figure
from eval.report.style import COLOURS, MARKERS, colours_of
from eval.tables.at_equal_kl import has_frontier
from eval.tables.of_grid import add_results_arguments, load_results
from salsa.runtime.outputs import output_folder

PANELS_IN_A_ROW = 4
INCHES_A_NAME = 1.3
STYLE = {
    "svg.hashsalt": "salsa",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
CURVES = {
    "reward": "learned reward",
    "gold": "gold reward",
    "kl_ref_k1": "KL to the reference (nats)",
    "kl_sft_k1": "KL to SFT 1 (nats)",
    "entropy": "entropy (nats per token)",
    "length": "response length (tokens)",
    "eos_share": "share with EOS",
    "explained_variance": "explained variance of the value",
}


def legend_columns(figure: Figure, names: list[str]) -> int:
    """Number of legend columns that fit the figure's width."""
    return max(1, min(len(names), int(figure.get_size_inches()[0] / INCHES_A_NAME)))


def win_rate_figure(results: GridResults) -> Figure:
    """One panel per comparison, one row per benchmark, one marker per model."""
    table, grid = results.win_rates, results.grid
    names = list(dict.fromkeys(table["model"]))
    colour = colours_of(names)
    height = 0.9 + 0.16 * len(names) * len(grid.benchmarks) + 0.35
    columns = min(len(grid.comparisons), PANELS_IN_A_ROW)
    rows = math.ceil(len(grid.comparisons) / columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(3.1 * columns + 1.2, height * rows), sharey=True, squeeze=False
    )
    for axes in panels.flat[len(grid.comparisons) :]:
        axes.set_visible(False)
    for axes, (comparison, sides) in zip(panels.flat, grid.comparisons.items(), strict=False):
        for m, model in enumerate(names):
            part = table[(table["comparison"] == comparison) & (table["model"] == model)]
            y = np.arange(len(part)) + (m - (len(names) - 1) / 2) * 0.17
            x = part["win_rate"].to_numpy()
            errors = [x - part["low"].to_numpy(), part["high"].to_numpy() - x]
            label = "all models" if model == ALL_MODELS else model
            axes.errorbar(
                x, y, xerr=errors, fmt=MARKERS[m % len(MARKERS)], color=colour[model], ms=4, lw=1.2, label=label
            )
        axes.axvline(0.5, color="0.4", lw=0.8, ls="--")
        axes.set_xlim(0, 1)
        axes.set_title(f"{sides.a} against {sides.b}", fontsize=10)
        axes.set_xlabel(f"adjusted win rate of {sides.a}")
        axes.set_yticks(range(len(grid.benchmarks)), grid.benchmarks)
        axes.grid(axis="y", visible=False)
    panels[0][0].invert_yaxis()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(figure, names))
    return figure


def soup_figure(results: GridResults) -> Figure:
    """Reward, gold reward, SFT loss and KL against alpha, one line per model and replicate."""
    grid, line = results.grid, results.soups[results.soups["alpha"].notna()]
    panels = {
        "reward": "learned reward",
        "gold": "gold reward",
        "sft_loss": "SFT loss (nats per token)",
        "kl_sft": "KL to SFT 1 (nats)",
    }
    panels = {key: text for key, text in panels.items() if not line[key].isna().all()}
    figure, axes = plt.subplots(1, len(panels), figsize=(2.8 * len(panels), 3.0), squeeze=False)
    for axis, (key, text) in zip(axes[0], panels.items(), strict=True):
        for m, model in enumerate(grid.models):
            for number, (_, part) in enumerate(line[line["model"] == model].groupby("replicate", sort=False)):
                axis.errorbar(
                    part["alpha"],
                    part[key],
                    yerr=part.get(f"{key}_se"),
                    color=COLOURS[m],
                    marker=MARKERS[m],
                    ms=4,
                    lw=1.2,
                    capsize=2,
                    label=None if number else model,
                )
        axis.set_xlabel("alpha, weight of the second model")
        axis.set_title(text, fontsize=10)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(figure, labels))
    return figure


def at_own_beta(results: GridResults) -> pd.DataFrame:
    """The training steps without the frontier's runs at other betas."""
    others = {run.name for run in results.grid.frontier if run.name != run.method}
    return results.training[~results.training["method"].isin(others)]


def panels_by_model(
    training: pd.DataFrame,
    models: list[str],
    curves: Mapping[str, str],
    height: float,
    draw: Callable[[Axes, str, pd.DataFrame], None],
    x_label: str,
    y_style: Mapping[str, Any],
) -> tuple[Figure, np.ndarray]:
    """One row per curve and one column per model; `draw` fills a panel from the model's training steps."""
    figure, axes = plt.subplots(
        len(curves),
        len(models),
        figsize=(2.9 * len(models) + 0.4, height * len(curves)),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for row, key in enumerate(curves):
        for column, model in enumerate(models):
            axis: Axes = axes[row][column]
            draw(axis, key, training[training["model"] == model])
            if row == 0:
                axis.set_title(model, fontsize=10)
            if row == len(curves) - 1:
                axis.set_xlabel(x_label)
            if column == 0:
                axis.set_ylabel(curves[key], **y_style)
    return figure, axes


def add_legend(figure: Figure, axes: np.ndarray, **options: Any) -> None:
    """A legend of the first panel's curves above all panels."""
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=legend_columns(figure, labels), **options)


def training_figure(results: GridResults) -> Figure:
    """One row per metric, one column per model; thin lines are runs, thick lines their mean."""
    training = at_own_beta(results)
    curves = {
        key: "\n".join(_lines(text))
        for key, text in CURVES.items()
        if key in training and not training[key].isna().all()
    }
    methods = list(dict.fromkeys(training["method"]))
    colour = colours_of(methods)

    def draw(axis: Axes, key: str, steps: pd.DataFrame) -> None:
        for method in methods:
            part = steps[steps["method"] == method]
            for _, run in part.groupby("policy", sort=False):
                axis.plot(run["step"], run[key], color=colour[method], lw=0.6, alpha=0.45)
            mean = part.groupby("step")[key].mean()
            axis.plot(mean.index, mean, color=colour[method], lw=1.6, label=method)

    figure, axes = panels_by_model(training, results.grid.models, curves, 1.7, draw, "PPO step", {"fontsize": 8})
    figure.align_ylabels()
    add_legend(figure, axes)
    return figure


def _lines(text: str) -> list[str]:
    """Split a label into at most two lines."""
    words = text.split()
    half = math.ceil(len(words) / 2)
    return [text] if len(text) <= 18 else [" ".join(words[:half]), " ".join(words[half:])]


def reward_kl_figure(results: GridResults) -> Figure:
    """Learned and gold reward against the square root of the KL to SFT 1 (over-optimisation, Gao et al. 2022)."""
    training = at_own_beta(results)
    curves = {key: CURVES[key] for key in ("reward", "gold") if not training[key].isna().all()}
    methods = list(dict.fromkeys(training["method"]))
    colour = colours_of(methods)

    def draw(axis: Axes, key: str, steps: pd.DataFrame) -> None:
        for m, method in enumerate(methods):
            part = steps[steps["method"] == method]
            marker = MARKERS[m % len(MARKERS)]
            x = np.sqrt(part["kl_sft_k3"])
            axis.scatter(x, part[key], s=7, alpha=0.6, color=colour[method], marker=marker, lw=0, label=method)

    figure, axes = panels_by_model(training, results.grid.models, curves, 2.3, draw, "√KL to SFT 1 (k3, nats)", {})
    add_legend(figure, axes, markerscale=2)
    return figure


@dataclass(frozen=True)
class Plot:
    """A figure: the name of its files, the report's caption, and how it is drawn."""

    name: str
    caption: str
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
    Plot("win_rates", "Adjusted win rates with their intervals. The dashed line means no difference.", win_rate_figure),
    Plot(
        "soup",
        "Soups along the line between two SFT models, one curve for each model and replicate. Bars are one standard "
        "error over prompts.",
        soup_figure,
    ),
    Plot("training", "Training metrics. Thin lines are runs, thick lines their mean.", training_figure),
    Plot(
        "reward_kl",
        "Reward against distance from SFT 1, one point per step. Where the learned reward rises while the "
        "gold reward falls, the reward model is over-optimised.",
        reward_kl_figure,
    ),
    Plot(
        "frontier",
        "Reward against the KL to SFT 1, over all betas and the checkpoints on the way. Curves: parabolas in the "
        "square root of the KL, mean over replicates with its interval. Right: first method of the comparison minus "
        "the second at equal KL, mean over the KL that both reach, with its interval over replicates.",
        frontier_figure,
        is_made=has_frontier,
    ),
]


def plots(grid: Grid) -> list[Plot]:
    """The figures of a grid."""
    return [plot for plot in PLOTS if plot.is_made(grid)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    results, record = load_results(arguments, "figures")
    settings: dict[str, Any] = STYLE
    with plt.rc_context(settings), output_folder(arguments.out, record) as folder:
        for plot in plots(results.grid):
            plot.save(folder, results)
