"""Figures of training: metrics by step, and reward against KL."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.figures.style import LABELS, MANY, MARKERS, colours_of, legend_columns
from eval.grid.results import GridResults

CURVES = {
    **{name: LABELS[name] for name in ("reward", "gold")},
    "kl_ref_k1": "KL to the reference (nats)",
    "kl_sft_k1": LABELS["kl_sft"],
    "entropy": "entropy (nats per token)",
    "length": "response length (tokens)",
    "eos_share": "share with EOS",
    "explained_variance": "explained variance of the value",
}


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
    """One row per metric, one column per model; thick lines are means of runs."""
    training = at_own_beta(results)
    curves = {
        key: "\n".join(_lines(text))
        for key, text in CURVES.items()
        if key in training and not training[key].isna().all()
    }
    methods = list(dict.fromkeys(training["method"]))
    algorithms = dict.fromkeys(results.grid.methods[method].algorithm.upper() for method in methods)
    colour = colours_of(methods)

    def draw(axis: Axes, key: str, steps: pd.DataFrame) -> None:
        for method in methods:
            part = steps[steps["method"] == method]
            by_step = part.groupby("step")[key]
            if part["policy"].nunique() > MANY:
                low, high = by_step.quantile(0.25), by_step.quantile(0.75)
                axis.fill_between(low.index, low, high, color=colour[method], alpha=0.15, lw=0)
            else:
                for _, run in part.groupby("policy", sort=False):
                    axis.plot(run["step"], run[key], color=colour[method], lw=0.6, alpha=0.45)
            mean = by_step.mean()
            axis.plot(mean.index, mean, color=colour[method], lw=1.6, label=method)

    x_label = f"{' or '.join(algorithms)} step"
    figure, axes = panels_by_model(training, results.grid.models, curves, 1.7, draw, x_label, {"fontsize": 8})
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
            if part["policy"].nunique() > MANY:
                part = part.groupby("step")[["kl_sft_k3", key]].mean()
            marker = MARKERS[m % len(MARKERS)]
            x = np.sqrt(part["kl_sft_k3"])
            axis.scatter(x, part[key], s=7, alpha=0.6, color=colour[method], marker=marker, lw=0, label=method)

    figure, axes = panels_by_model(training, results.grid.models, curves, 2.3, draw, "√KL to SFT 1 (k3, nats)", {})
    add_legend(figure, axes, markerscale=2)
    return figure
