"""What all figures share: style, labels, colours, markers, legends."""

from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for colour-blind readers.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "D", "^", "v", "P", "X"]
LABELS = {  # of measures
    "reward": "learned reward",
    "reward_trained_on": "reward trained against",
    "reward_held_out": "held-out reward model",
    "gold": "gold reward",
    "win_rate": "win rate",
    "kl_sft": "KL to SFT 1 (nats)",
    "sft_loss": "SFT loss (nats per token)",
}
INCHES_A_NAME = 1.3
MANY = 4  # more replicates or runs than this are drawn as one
STYLE: dict[str, Any] = {
    "svg.hashsalt": "salsa",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def colours_of(names: list[str]) -> dict[str, Any]:
    """A colour for each name; from a larger, less distinct palette if there are many."""
    palette = COLOURS if len(names) <= len(COLOURS) else plt.get_cmap("tab20").colors
    return {name: palette[i % len(palette)] for i, name in enumerate(names)}


def legend_columns(figure: Figure, names: list[str]) -> int:
    """Number of legend columns that fit the figure's width."""
    return max(1, min(len(names), int(figure.get_size_inches()[0] / INCHES_A_NAME)))
