"""The runs of a frontier: each of its methods at each beta."""

from salsa.config.config import Config, at_beta
from salsa.config.fields import NonNegative, Section


class FrontierRun(Section):
    """A method of the frontier at one beta; `name` is the method in the config that trains it."""

    method: str
    beta: NonNegative
    name: str


def frontier_runs(config: Config) -> list[FrontierRun]:
    """All runs of the frontier, by method and beta; none without the section."""
    if config.frontier is None:
        return []
    runs = []
    for method in config.frontier.methods:
        named = {config.beta_of(method): method} | {beta: at_beta(method, beta) for beta in config.frontier.betas}
        runs += [FrontierRun(method=method, beta=beta, name=named[beta]) for beta in sorted(named)]
    return runs
