"""The results of a grid as data frames, each read when a table or a figure first needs it."""

from functools import cached_property
from pathlib import Path

import pandas as pd

from eval.grid import aggregate, collect, run_versions
from eval.grid.layout import Grid, measured_files
from eval.statistics import length_control


class GridResults:
    """A grid's results folder."""

    def __init__(self, folder: Path, grid: Grid):
        self.folder, self.grid = folder, grid

    @cached_property
    def judgments(self) -> pd.DataFrame:
        return collect.judgments(self.folder, self.grid)

    @cached_property
    def grades(self) -> pd.DataFrame:
        return collect.grades(self.folder, self.grid)

    @cached_property
    def scores(self) -> pd.DataFrame:
        return collect.scores(self.folder, self.grid)

    @cached_property
    def training(self) -> pd.DataFrame:
        return collect.training(self.folder, self.grid)

    @cached_property
    def soups(self) -> pd.DataFrame:
        return collect.soups(self.folder, self.grid)

    @cached_property
    def frontier(self) -> pd.DataFrame:
        points = collect.frontier(self.folder, self.grid)
        against = self.grid.frontier_against
        return points if against is None else aggregate.with_win_rates(points, self.judgments, self.grid, against)

    @cached_property
    def reward_cards(self) -> pd.DataFrame:
        return collect.cards(self.folder, self.grid)

    @cached_property
    def data_sets(self) -> pd.DataFrame:
        return collect.data_sets(self.folder, self.grid)

    @cached_property
    def overlap(self) -> pd.DataFrame:
        return collect.overlap(self.folder)

    @cached_property
    def made_with(self) -> run_versions.Found:
        """Commits, versions and machines of the runs."""
        return run_versions.made_with(measured_files(self.folder, self.grid).values())

    @cached_property
    def improvements(self) -> pd.DataFrame:
        """Differences in reward and KL of all comparisons."""
        return aggregate.improvements(self.scores, self.grid)

    @cached_property
    def win_rates(self) -> pd.DataFrame:
        """Win rates of all comparisons; logs a warning where length may have decided."""
        rates = aggregate.win_rates(self.judgments, self.grid)
        length_control.warn(rates, ("comparison", "model", "benchmark"))
        return rates
