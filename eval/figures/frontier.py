"""Figure of the frontier: reward against KL, a curve for each method, and their difference at equal KL."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eval.claims.frontier import curves, is_measured
from eval.figures.style import COLOURS, LABELS, MARKERS, colours_of, legend_columns
from eval.grid.layout import ALL_MODELS
from eval.grid.results import GridResults
from eval.statistics.frontier import Curve
from eval.tables.at_equal_kl import COMPARED, MEASURES, equal_kl_rows, on_the_frontier

POINTS = 61
LABELLED = 4  # intervals between ticks that have room for their labels


def frontier_figure(results: GridResults) -> Figure:
    """One row per reward, one column per model.

    If the grid has one comparison of methods on the frontier, the last column has the mean differences at equal KL.
    """
    grid, points = results.grid, results.frontier
    measures = [name for name in MEASURES if is_measured(points, name)]
    compared = list(on_the_frontier(grid).values())
    columns = len(grid.models) + (len(compared) == 1)
    figure, panels = plt.subplots(
        len(measures), columns, figsize=(2.7 * columns + 0.4, 2.2 * len(measures)), squeeze=False
    )
    methods = list(dict.fromkeys(run.method for run in grid.frontier))
    colour = colours_of(methods)
    marker = {method: MARKERS[m % len(MARKERS)] for m, method in enumerate(methods)}
    equal = equal_kl_rows(results) if len(compared) == 1 else pd.DataFrame()
    for row, measure in enumerate(measures):
        every = list(curves(points, grid, measure))
        for column, model in enumerate(grid.models):
            axis: Axes = panels[row][column]
            part = points[points["model"] == model]
            for method in methods:
                own = part[part["method"] == method]
                axis.scatter(
                    own["kl_sft"],
                    own[measure],
                    s=9,
                    alpha=0.5,
                    color=colour[method],
                    marker=marker[method],
                    lw=0,
                )
                fitted = [curve for place, _, name, curve in every if (place, name) == (model, method)]
                draw_mean(axis, fitted, colour[method], marker[method], grid.tables.confidence)
            if row == 0:
                axis.set_title(model, fontsize=10)
            if row == len(measures) - 1:
                axis.set_xlabel(LABELS["kl_sft"])
            if column == 0:
                axis.set_ylabel(LABELS[measure])
        if len(compared) == 1:
            draw_differences(panels[row][-1], equal[equal["measure"] == measure] if len(equal) else equal, grid.models)
            panels[row][-1].set_visible(measure in COMPARED)
    if len(compared) == 1:
        panels[0][-1].set_title(f"{compared[0].a} minus {compared[0].b}", fontsize=10)
        panels[-1][-1].set_xlabel("mean difference at equal KL")
    lines = [Line2D([], [], color=colour[method], marker=marker[method], ms=4, label=method) for method in methods]
    figure.legend(handles=lines, loc="outside upper center", ncols=legend_columns(figure, methods))
    return figure


def draw_mean(axis: Axes, fitted: list[Curve], colour: Any, marker: str, confidence: float) -> None:
    """The mean of the replicates' curves where all are valid, with its interval over replicates.

    Of a method with one policy: the mean over replicates of its KL and figure.
    """
    if not fitted:
        return
    if all(curve.is_single for curve in fitted):
        kl = np.array([curve.low for curve in fitted])
        figures = [curve.mean(curve.low, curve.high) for curve in fitted]
        axis.plot([kl.mean()], [np.mean(figures)], color=colour, marker=marker, ms=7)
        return
    low, high = max(curve.low for curve in fitted), min(curve.high for curve in fitted)
    if low >= high:
        return
    x = np.linspace(low, high, POINTS)
    values = np.array([curve.at(x) for curve in fitted])
    middle = values.mean(axis=0)
    axis.plot(x, middle, color=colour, lw=1.6)
    if len(fitted) > 1:
        t = scipy.stats.t.ppf((1 + confidence) / 2, len(fitted) - 1)
        reach = t * values.std(axis=0, ddof=1) / np.sqrt(len(fitted))
        axis.fill_between(x, middle - reach, middle + reach, color=colour, alpha=0.15, lw=0)


def draw_differences(axis: Axes, rows: pd.DataFrame, models: list[str]) -> None:
    """Mean differences with their intervals, a line per model and one for all."""
    names = [*models, ALL_MODELS]
    if len(rows):
        x = rows["difference"].to_numpy()
        reach = np.nan_to_num([x - rows["low"].to_numpy(), rows["high"].to_numpy() - x])
        y = [names.index(name) for name in rows["model"]]
        axis.errorbar(x, y, xerr=reach, fmt=MARKERS[0], color=COLOURS[-1], ms=4, lw=1.2)
    axis.axvline(0, color="0.4", lw=0.8, ls="--")
    axis.xaxis.set_major_locator(MaxNLocator(LABELLED))
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
