"""Spherical averages: known answers, and files compared with the definition in torch."""

import json
import math
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salsa.checkpoints import floats
from salsa.runtime.command import main
from salsa.runtime.errors import UserError
from salsa.soups.library import average_checkpoints
from salsa.soups.slerp import arc_factors, arc_weights
from salsa.soups.soup import soup
from tests.salsa.soups.test_soup import SHAPES, checkpoint, same_bits, tensors_of

shares = st.floats(0, 1)


def test_known_arcs():
    half = math.sqrt(0.5)
    assert arc_weights(0.0, 0.5) == pytest.approx((half, half))  # orthogonal
    assert arc_weights(1.0, 0.3) == pytest.approx((0.7, 0.3))  # equal
    assert arc_weights(0.5, 0.5) == pytest.approx((1 / math.sqrt(3), 1 / math.sqrt(3)))  # 60 degrees
    for cosine in (-0.9, 0.0, 0.7, 1.0):
        assert arc_weights(cosine, 0.0) == pytest.approx((1, 0)) and arc_weights(cosine, 1.0) == pytest.approx((0, 1))


@given(st.floats(-0.99, 0.99), shares)
def test_arc_keeps_lengths_and_is_symmetric(cosine, t):
    """Two vectors of length 1: so are all between them, at the share t of the angle."""
    one, other = arc_weights(cosine, t)
    assert one**2 + other**2 + 2 * one * other * cosine == pytest.approx(1, abs=1e-6)
    assert one + other * cosine == pytest.approx(math.cos(t * math.acos(cosine)), abs=1e-6)
    assert arc_weights(cosine, 1 - t) == pytest.approx((other, one), abs=1e-6)


def test_three_orthogonal_changes_end_with_their_common_length():
    factors = arc_factors(np.eye(3), [1 / 3, 1 / 3, 1 / 3])
    assert sum(factor**2 for factor in factors) == pytest.approx(1)
    assert factors[:2] == pytest.approx([factors[0]] * 2) and all(factor > 0 for factor in factors)
    assert arc_factors(np.eye(3), [0.0, 0.0, 1.0]) == pytest.approx([0, 0, 1])
    assert arc_factors(np.zeros((2, 2)), [0.4, 0.6]) == pytest.approx([0.4, 0.6])  # nothing has changed


def defined(base: torch.Tensor, one: torch.Tensor, other: torch.Tensor, t: float, share: float) -> torch.Tensor:
    """The definition, in float64."""
    start, u, v = base.double(), (one.double() - base.double()), (other.double() - base.double())
    lengths = u.norm() * v.norm()
    if lengths == 0:
        return start + (1 - share) * ((1 - t) * u + t * v)
    angle = torch.arccos((u * v).sum() / lengths)
    moved = (torch.sin((1 - t) * angle) * u + torch.sin(t * angle) * v) / torch.sin(angle)
    return start + (1 - share) * (moved if angle.sin() > 1e-6 else (1 - t) * u + t * v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_files_equal_the_definition(tmp_path, monkeypatch, dtype, share):
    monkeypatch.setattr(floats, "PIECE", 64)  # several pieces a tensor
    base, one, other = (checkpoint(tmp_path / str(seed), seed, dtype) for seed in range(3))
    weights = {one: 0.75 * (1 - share), other: 0.25 * (1 - share)} | ({base: share} if share else {})
    runs = {"out": (1, weights), "two": (2, weights), "turned": (1, dict(reversed(weights.items())))}
    for name, (processes, ingredients) in runs.items():
        (tmp_path / name).mkdir()
        soup(ingredients, tmp_path / name, processes=processes, slerp_from=base)
    found, again, turned = (tensors_of(tmp_path / name) for name in ("out", "two", "turned"))
    start, first, second = (tensors_of(folder) for folder in (base, one, other))
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-6, "rtol": 2**-8}
    for name in SHAPES:
        expected = defined(start[name], first[name], second[name], 0.25, share)
        torch.testing.assert_close(found[name].double(), expected, **close)
        assert found[name].dtype == dtype and same_bits(found[name], again[name])
        torch.testing.assert_close(found[name], turned[name], **close)


def test_ends_of_the_arc_are_the_ingredients(tmp_path):
    base, one, other = (checkpoint(tmp_path / str(seed), seed, torch.float32) for seed in range(3))
    for name, weights, expected in (("a", {one: 1.0, other: 0.0}, one), ("b", {one: 0.0, other: 1.0}, other)):
        (tmp_path / name).mkdir()
        soup(weights, tmp_path / name, slerp_from=base)
        for key, tensor in tensors_of(expected).items():
            torch.testing.assert_close(tensors_of(tmp_path / name)[key], tensor, atol=1e-6, rtol=1e-6)


def test_memory_does_not_grow_with_the_tensors(tmp_path):
    large = {"large.weight": torch.ones(4_000_000)}  # 16 MB
    base, one, other = (checkpoint(tmp_path / str(seed), seed, torch.float32, **large) for seed in range(3))
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    try:
        soup({one: 0.5, other: 0.5}, tmp_path / "out", slerp_from=base)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def command(monkeypatch, tmp_path: Path, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["salsa", "soup", *words, "--out", str(tmp_path / "out")])
    return main("salsa", {"soup": ("salsa.soups.soup", "")})


def test_command_and_its_mistakes(tmp_path, monkeypatch, capsys):
    base, one = (checkpoint(tmp_path / str(seed), seed, torch.float32) for seed in range(2))
    assert (
        command(
            monkeypatch,
            tmp_path,
            "--ingredient",
            f"{one}=0.5",
            "--ingredient",
            f"{base}=0.5",
            "--slerp-from",
            str(base),
        )
        == 0
    )
    half = (tensors_of(base)["e.weight"] + tensors_of(one)["e.weight"]) / 2
    torch.testing.assert_close(tensors_of(tmp_path / "out")["e.weight"], half)
    assert command(monkeypatch, tmp_path, "--ingredient", f"{base}=1", "--slerp-from", str(base)) == 1
    assert "all weight is on" in capsys.readouterr().err
    with pytest.raises(UserError, match="no negative weights"):
        soup({one: 1.5, base: -0.5}, tmp_path / "out", slerp_from=base)
    average_checkpoints({str(one): 0.5, str(base): 0.5}, tmp_path / "again", slerp_from=base)
    torch.testing.assert_close(tensors_of(tmp_path / "again")["e.weight"], half)
    assert "slerp_from" in json.loads((tmp_path / "again/run.json").read_text())["inputs"]
