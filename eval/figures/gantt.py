"""The schedule of a plan: a bar for each job, by model and stage, and the devices in use below."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from eval.figures.style import STYLE, colours_of

HOUR = 3600.0
ROW_INCHES, SMALLEST_INCHES, WIDTH_INCHES = 0.22, 3.0, 11.0
SHOWN = 0.002  # share of the whole time that a bar has at least, to be seen


@dataclass(frozen=True)
class Bar:
    """A job: when it begins and ends, in seconds, on how many devices, and whether the grid's end waits for it."""

    model: str
    stage: str
    begin: float
    end: float
    devices: int
    critical: bool


def draw_jobs(axes: Axes, bars: Sequence[Bar]) -> None:
    """A row for each model and stage, from top to bottom in the order of the bars."""
    rows = list(dict.fromkeys((bar.model, bar.stage) for bar in bars))
    places = {row: place for place, row in enumerate(rows)}
    colours = colours_of(list(dict.fromkeys(bar.model for bar in bars)))
    least = SHOWN * max(bar.end for bar in bars) / HOUR
    for bar in bars:
        axes.barh(
            places[bar.model, bar.stage],
            max(least, (bar.end - bar.begin) / HOUR),
            left=bar.begin / HOUR,
            height=0.8,
            color=colours[bar.model],
            alpha=1.0 if bar.critical else 0.35,
            edgecolor="black" if bar.critical else "white",
            linewidth=1.0 if bar.critical else 0.3,
        )
    axes.set_yticks(range(len(rows)), [f"{model}  {stage}" for model, stage in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def devices_in_use(bars: Sequence[Bar]) -> tuple[list[float], list[int]]:
    """Times in hours, ascending, and the number of devices in use from each on."""
    changes: dict[float, int] = {0.0: 0}
    for bar in bars:
        changes[bar.begin] = changes.get(bar.begin, 0) + bar.devices
        changes[bar.end] = changes.get(bar.end, 0) - bar.devices
    times, used = sorted(changes), list[int]()
    for time in times:
        used.append(changes[time] + (used[-1] if used else 0))
    return [time / HOUR for time in times], used


def save_gantt(bars: Sequence[Bar], devices: int, title: str, file: Path) -> None:
    """Draw the schedule into an SVG file. The jobs of the critical path are dark and framed."""
    rows = len({(bar.model, bar.stage) for bar in bars})
    height = SMALLEST_INCHES + ROW_INCHES * rows
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(WIDTH_INCHES, height), sharex=True, height_ratios=[height - 1.5, 1.5]
        )
        draw_jobs(above, bars)
        above.set_title(title, loc="left")
        times, used = devices_in_use(bars)
        below.fill_between(times, used, step="post", color="0.6", linewidth=0)
        below.axhline(devices, color="black", linewidth=0.8)
        below.set_ylabel("devices")
        below.set_ylim(0, devices * 1.1)
        below.set_xlabel("hours from the start; framed: the critical path, for which the end of the grid waits")
        figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)
