"""Reference strategies: how a config names them, and what they compute."""

import pytest
import torch

from salsa.config.references import (
    Ema,
    Fixed,
    MeanKl,
    Strategy,
    parse_reference,
    parse_strategy,
    strategies,
    strategy_json,
)
from salsa.runtime.errors import UserError

SOUP = {"soup": {"sft-1": 0.5, "sft-2": 0.5}}


def test_every_strategy_has_a_name():
    assert {"fixed", "mean_kl", "ema"} <= strategies().keys()


@pytest.mark.parametrize(
    ("line", "strategy", "checkpoints"),
    [
        ("sft-1", Fixed(), ["sft-1"]),
        (SOUP, Fixed(), [SOUP]),
        ({"mean_kl": {"of": ["sft-1", SOUP]}}, MeanKl(), ["sft-1", SOUP]),
        (
            {"mean_kl": {"of": ["sft-1", "sft-2"], "weights": [0.2, 0.8]}},
            MeanKl(weights=[0.2, 0.8]),
            ["sft-1", "sft-2"],
        ),
        ({"ema": {"of": "sft-1", "rate": 0.1}}, Ema(rate=0.1), ["sft-1"]),
    ],
)
def test_config_and_command_line_name_the_same_strategy(line, strategy, checkpoints):
    found, parts = parse_reference(line)
    assert (found, parts) == (strategy, checkpoints)
    assert parse_strategy(strategy_json(found), len(parts)) == found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"warp": {"of": "sft-1"}},
            "warp: unknown reference: name one of soup, slerp, greedy, ",
        ),
        ({"ema": {"rate": 0.1}}, "ema: name its checkpoints"),
        ({"ema": {"of": ["sft-1", "sft-2"]}}, "ema: takes one checkpoint, not 2"),
        ({"ema": {"of": "sft-1", "rat": 1}}, "rat"),
        ({"mean_kl": {"of": "sft-1"}}, "mean_kl: takes two checkpoints or more"),
        ({"mean_kl": {"of": ["sft-1", "sft-2"], "weights": [1.0]}}, "1 weights for 2 checkpoints"),
        ({"mean_kl": {"of": ["sft-1", "sft-2"], "weights": [0.5, 0.6]}}, r"sum to 1\.1, not 1"),
        ({}, "name a checkpoint"),
    ],
)
def test_mistakes_in_the_config(line, message):
    with pytest.raises(ValueError, match=message):
        parse_reference(line)


@pytest.mark.parametrize("text", ["ema", '{"ema": 1}', "[]", '{"ema": {"rate": 2}}', '{"nothing": {}}'])
def test_mistakes_on_the_command_line_are_one_line(text):
    with pytest.raises(UserError, match="--strategy ") as caught:
        parse_strategy(text, 1)
    assert "\n" not in str(caught.value)


def test_mean_kl_averages_log_probabilities():
    each = [torch.tensor([0.0, -2.0]), torch.tensor([-4.0, -4.0])]
    assert MeanKl().combine(each).tolist() == [-2.0, -3.0]
    assert MeanKl(weights=[0.75, 0.25]).combine(each).tolist() == [-1.0, -2.5]
    assert MeanKl().combine([1.0, 3.0]) == 2.0, "and therefore the KL"


def test_moving_average_moves_by_its_rate():
    mine, policy = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    start = [parameter.detach().clone() for parameter in mine.parameters()]
    with torch.no_grad():
        for step in (1, 2, 3):
            Ema(rate=0.1).after_step([mine], policy, step)
    for moved, before, target in zip(mine.parameters(), start, policy.parameters(), strict=True):
        assert torch.allclose(moved, target + 0.9**3 * (before - target), atol=1e-6)


def test_fixed_reference_stays():
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    Fixed().after_step([model], torch.nn.Linear(2, 2), 1)
    assert torch.equal(model.weight, before)
    assert not Fixed.moves and not MeanKl.moves and Ema.moves
    assert issubclass(Fixed, Strategy)
