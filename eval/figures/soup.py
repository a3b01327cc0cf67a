"""Figure of the soups: reward, SFT loss and KL along the line between two SFT models."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from eval.figures.style import COLOURS, LABELS, MANY, MARKERS, legend_columns
from eval.grid.results import GridResults

MEASURES = ("reward", "gold", "sft_loss", "kl_sft")


def soup_figure(results: GridResults) -> Figure:
    """Reward, gold reward, SFT loss and KL against alpha, one line per model and replicate."""
    grid, line = results.grid, results.soups[results.soups["alpha"].notna()]
    panels = [key for key in MEASURES if not line[key].isna().all()]
    figure, axes = plt.subplots(1, len(panels), figsize=(2.8 * len(panels), 3.0), squeeze=False)
    for axis, key in zip(axes[0], panels, strict=True):
        for m, model in enumerate(grid.models):
            for number, (part, errors) in enumerate(soup_lines(line[line["model"] == model], key)):
                axis.errorbar(
                    part["alpha"],
                    part[key],
                    yerr=errors,
                    color=COLOURS[m],
                    marker=MARKERS[m],
                    ms=4,
                    lw=1.2,
                    capsize=2,
                    label=None if number else model,
                )
        axis.set_xlabel("alpha, weight of the second model")
        axis.set_title(LABELS[key], fontsize=10)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(figure, labels))
    return figure


def soup_lines(points: pd.DataFrame, key: str) -> list[tuple[pd.DataFrame, pd.Series | None]]:
    """Lines with their errors, which may be unknown: of each replicate over prompts; of many, the mean's over them."""
    replicates = [part for _, part in points.groupby("replicate", sort=False)]
    if len(replicates) <= MANY:
        return [(part, part.get(f"{key}_se")) for part in replicates]
    mean = points.groupby("alpha")[key].agg(["mean", "sem"]).reset_index()
    return [(mean.rename(columns={"mean": key}), mean["sem"])]
