"""Figure of the frontier: reward against KL, a curve for each method, and their difference at equal KL."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.claims.frontier import curves, is_measured
from eval.figures.style import COLOURS, LABELS, MARKERS, colours_of
from eval.grid.layout import ALL_MODELS, Grid
from eval.grid.results import GridResults
from eval.statistics.frontier import Curve
from eval.tables.at_equal_kl import COMPARED, MEASURES, equal_kl_rows

POINTS = 61
LABELLED = 4  # intervals between ticks that have room for their labels


def frontier_figure(results: GridResults) -> Figure:
    """One row per reward, one column per model; the last column has the mean differences at equal KL."""
    grid, points = results.grid, results.frontier
    measures = [name for name in MEASURES if is_measured(points, name)]
    columns = len(grid.models) + 1
    figure, panels = plt.subplots(
        len(measures), columns, figsize=(2.7 * columns + 0.4, 2.2 * len(measures)), squeeze=False
    )
    methods = list(dict.fromkeys(run.method for run in grid.frontier))
    colour = colours_of(methods)
    equal = equal_kl_rows(results)
    for row, measure in enumerate(measures):
        every = list(curves(points, grid, measure))
        for column, model in enumerate(grid.models):
            axis: Axes = panels[row][column]
            part = points[points["model"] == model]
            for m, method in enumerate(methods):
                own = part[part["method"] == method]
                axis.scatter(
                    own["kl_sft"],
                    own[measure],
                    s=9,
                    alpha=0.5,
                    color=colour[method],
                    marker=MARKERS[m % len(MARKERS)],
                    lw=0,
                )
                fitted = [curve for place, _, name, curve in every if (place, name) == (model, method)]
                draw_mean(axis, fitted, colour[method], method, grid.tables.confidence)
            if row == 0:
                axis.set_title(model, fontsize=10)
            if row == len(measures) - 1:
                axis.set_xlabel(LABELS["kl_sft"])
            if column == 0:
                axis.set_ylabel(LABELS[measure])
        draw_differences(panels[row][-1], equal[equal["measure"] == measure] if len(equal) else equal, grid.models)
        panels[row][-1].set_visible(measure in COMPARED)
    panels[0][-1].set_title(title_of(equal, grid), fontsize=10)
    panels[-1][-1].set_xlabel("mean difference at equal KL")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(1, len(labels)))
    return figure


def title_of(equal: pd.DataFrame, grid: Grid) -> str:
    """The difference's sides, if only one comparison has both on the frontier."""
    names = list(equal["comparison"].unique()) if len(equal) else []
    return " minus ".join((grid.comparisons[names[0]].a, grid.comparisons[names[0]].b)) if len(names) == 1 else ""


def draw_mean(axis: Axes, fitted: list[Curve], colour: Any, label: str, confidence: float) -> None:
    """The mean of the replicates' curves where all are valid, with its interval over replicates."""
    if not fitted:
        return
    low, high = max(curve.low for curve in fitted), min(curve.high for curve in fitted)
    if low >= high:
        return
    x = np.linspace(low, high, POINTS)
    values = np.array([curve.at(x) for curve in fitted])
    middle = values.mean(axis=0)
    axis.plot(x, middle, color=colour, lw=1.6, label=label)
    if len(fitted) > 1:
        t = scipy.stats.t.ppf((1 + confidence) / 2, len(fitted) - 1)
        reach = t * values.std(axis=0, ddof=1) / np.sqrt(len(fitted))
        axis.fill_between(x, middle - reach, middle + reach, color=colour, alpha=0.15, lw=0)


def draw_differences(axis: Axes, rows: pd.DataFrame, models: list[str]) -> None:
    """Mean differences of each comparison with their intervals, a line per model and one for all."""
    names = [*models, ALL_MODELS]
    for number, (comparison, part) in enumerate(rows.groupby("comparison", sort=False) if len(rows) else ()):
        y = np.array([names.index(name) for name in part["model"]]) + 0.18 * number
        x = part["difference"].to_numpy()
        reach = np.nan_to_num([x - part["low"].to_numpy(), part["high"].to_numpy() - x])
        marker, colour = MARKERS[number % len(MARKERS)], COLOURS[-1 - number % len(COLOURS)]
        style: dict[str, Any] = {"fmt": marker, "color": colour, "ms": 4, "lw": 1.2}
        axis.errorbar(x, y, xerr=reach, label=comparison, **style)
    axis.axvline(0, color="0.4", lw=0.8, ls="--")
    axis.xaxis.set_major_locator(MaxNLocator(LABELLED))
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    if len(rows) and rows["comparison"].nunique() > 1:
        axis.legend(fontsize=7, loc="lower right")
