"""Figure of the win rates: one panel per comparison, one row per benchmark, one marker per model."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from eval.figures.style import MARKERS, colours_of, legend_columns
from eval.grid.layout import ALL_MODELS
from eval.grid.results import GridResults

PANELS_IN_A_ROW = 3


def win_rates_figure(results: GridResults) -> Figure:
    """Adjusted win rates with their intervals."""
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
