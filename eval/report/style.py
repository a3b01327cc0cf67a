"""Colours and markers of the figures."""

from typing import Any

import matplotlib.pyplot as plt

# Okabe and Ito's palette, safe for colour-blind readers.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "D", "^", "v", "P", "X"]


def colours_of(names: list[str]) -> dict[str, Any]:
    """A colour for each name; from a larger, less distinct palette if there are many."""
    palette = COLOURS if len(names) <= len(COLOURS) else plt.get_cmap("tab20").colors
    return {name: palette[i % len(palette)] for i, name in enumerate(names)}
