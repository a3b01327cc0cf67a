"""Figures of differences: one panel per measure, one row per comparison, one marker per model."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.figures.style import LABELS, MARKERS, colours_of, legend_columns
from eval.grid.aggregate import DIFFERENCES
from eval.grid.layout import ALL_MODELS
from eval.grid.results import GridResults
from eval.tables.at_equal_kl import COMPARED, equal_kl_rows, on_the_frontier
from salsa.config.sections import Comparison

PANELS_IN_A_ROW = 2
LABELLED = 5  # intervals between ticks that have room for their labels


def differences_figure(results: GridResults) -> Figure:
    """Differences over the questions of all benchmarks."""
    grid = results.grid
    table = results.improvements
    if len(grid.benchmarks) > 1:
        table = table[table["benchmark"] == ALL_MODELS]
    return draw(table, DIFFERENCES, grid.comparisons)


def equal_kl_figure(results: GridResults) -> Figure:
    """Differences at equal KL, on the prompts of `alpha`."""
    return draw(equal_kl_rows(results), COMPARED, on_the_frontier(results.grid))


def draw(table: pd.DataFrame, known: Sequence[str], comparisons: Mapping[str, Comparison]) -> Figure:
    """Rows of (comparison, model, measure, difference, low, high), for the measures that the table has."""
    measures = [name for name in known if name in set(table["measure"])]
    names = list(dict.fromkeys(table["model"]))
    colour = colours_of(names)
    columns = max(1, min(len(measures), PANELS_IN_A_ROW))
    rows = max(1, math.ceil(len(measures) / columns))
    height = 0.9 + 0.16 * len(names) * len(comparisons)
    figure, panels = plt.subplots(
        rows, columns, figsize=(4.2 * columns + 1.4, height * rows), sharey=True, squeeze=False
    )
    for axes in panels.flat[len(measures) :]:
        axes.set_visible(False)
    places = {comparison: number for number, comparison in enumerate(comparisons)}
    for axes, measure in zip(panels.flat, measures, strict=False):
        for m, model in enumerate(names):
            part = table[(table["measure"] == measure) & (table["model"] == model)]
            y = part["comparison"].map(places).to_numpy() + (m - (len(names) - 1) / 2) * 0.17
            x = part["difference"].to_numpy()
            reach = np.nan_to_num([x - part["low"].to_numpy(), part["high"].to_numpy() - x])
            label = "all models" if model == ALL_MODELS else model
            marker = MARKERS[m % len(MARKERS)]
            axes.errorbar(x, y, xerr=reach, fmt=marker, color=colour[model], ms=4, lw=1.2, label=label)
        axes.axvline(0, color="0.4", lw=0.8, ls="--")
        axes.set_title(LABELS[measure], fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(LABELLED))
        texts = [f"{sides.a} − {sides.b}" for sides in comparisons.values()]
        axes.set_yticks(range(len(texts)), texts)
        axes.grid(axis="y", visible=False)
    panels[0][0].set_ylim(len(places) - 0.5, -0.5)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(figure, labels))
    return figure
