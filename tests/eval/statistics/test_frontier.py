"""Curves against KL and their differences: known answers, and no difference between equal methods."""

import numpy as np
import pytest

from eval.statistics.frontier import Curve, at_equal_kl


def gao(kl: np.ndarray, a: float, b: float) -> np.ndarray:
    """d (a - b d), Gao et al. (2022)."""
    return np.sqrt(kl) * (a - b * np.sqrt(kl))


def test_curve_through_points_of_a_parabola_is_the_parabola():
    kl = np.array([0.5, 1.0, 3.0, 6.0])
    curve = Curve.fit(list(kl), list(gao(kl, 1.2, 0.3)), start=0.0)
    assert curve is not None
    assert (curve.low, curve.high) == (0.5, 6.0)
    between = np.array([0.7, 2.0, 5.0])
    assert curve.at(between) == pytest.approx(gao(between, 1.2, 0.3))


def test_difference_at_equal_kl_is_that_of_the_parabolas():
    """a reaches further than b, and is better by 0.2 d at each KL."""
    kl_a, kl_b = np.array([0.5, 1.0, 4.0, 9.0]), np.array([0.25, 1.0, 2.0, 4.0])
    a, b = Curve.fit(list(kl_a), list(gao(kl_a, 1.4, 0.3)), 0.0), Curve.fit(list(kl_b), list(gao(kl_b, 1.2, 0.3)), 0.0)
    found = at_equal_kl(a, b)
    assert found is not None
    assert (found.low, found.high) == (0.5, 4.0)
    assert found.at_parts == pytest.approx([0.2 * np.sqrt(0.5 + part * 3.5) for part in (0.25, 0.5, 0.75)])
    # The mean of 0.2 sqrt(k) over [0.5, 4].
    assert found.mean == pytest.approx(0.2 * (2 / 3) * (4**1.5 - 0.5**1.5) / 3.5)
    back = at_equal_kl(b, a)
    assert [back.mean, *back.at_parts] == pytest.approx([-found.mean, *(-part for part in found.at_parts)])


def test_methods_on_one_frontier_do_not_differ():
    """The same parabola with noise, at other KLs (a weaker penalty): the mean difference is 0 on average."""
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(300):
        kl_a, kl_b = rng.uniform(0.3, 3, size=6), rng.uniform(1, 6, size=6)
        a, b = (Curve.fit(list(kl), list(gao(kl, 1.2, 0.25) + 0.1 * rng.normal(size=6)), 0.0) for kl in (kl_a, kl_b))
        if (found := at_equal_kl(a, b)) is not None:
            drawn.append(found.mean)
    assert len(drawn) > 250
    assert abs(np.mean(drawn)) < 3 * np.std(drawn) / np.sqrt(len(drawn))


def test_methods_without_a_common_kl_are_not_compared():
    near, far = ([0.1, 0.2, 0.3], [2.0, 3.0, 4.0])
    a, b = (Curve.fit(kl, [0.1, 0.2, 0.3]) for kl in (near, far))
    assert at_equal_kl(a, b) is None


def test_single_policy_is_compared_with_the_other_curve_at_its_kl():
    kl = np.array([0.5, 1.0, 3.0, 6.0])
    curve = Curve.fit(list(kl), list(gao(kl, 1.2, 0.3)), start=0.0)
    policy = Curve.fit([2.0], [0.9], start=0.0)
    found = at_equal_kl(policy, curve)
    expected = 0.9 - gao(np.array(2.0), 1.2, 0.3)
    assert (found.low, found.high) == (2.0, 2.0)
    assert [found.mean, *found.at_parts] == pytest.approx([expected] * 4)
    assert at_equal_kl(curve, policy).mean == pytest.approx(-expected)
    assert at_equal_kl(Curve.fit([7.0], [0.9]), curve) is None, "beyond the curve's last policy"
    assert at_equal_kl(policy, Curve.fit([2.5], [0.8])) is None, "two policies with different KL"


def test_too_few_points_give_no_curve():
    assert Curve.fit([1.0, 2.0], [0.1, 0.2]) is None
    assert Curve.fit([1.0, 1.0, 1.0], [0.1, 0.2, 0.3], start=0.0) is None
    assert Curve.fit([1.0, 2.0], [0.1, 0.2], start=0.0) is not None
