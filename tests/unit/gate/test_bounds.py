"""The bounds: what they promise for Brownian motion, and how few blocks widen them."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from scipy import stats

from perennial.gate import bounds
from perennial.gate.bounds import boundary, student

MANY = 1e9


def test_at_the_plan_the_bound_is_nearly_that_of_a_single_test_of_either_side():
    """2.13 standard errors, where one look would take 1.64 and a bound that holds forever alone 2.45 at the least."""
    assert boundary(1, MANY, 0.05) == pytest.approx(2.13, abs=0.01)
    assert NormalDist().inv_cdf(0.95) < boundary(1, MANY, 0.05) < math.sqrt(2 * math.log(20))


def test_it_is_finite_and_positive_at_all_times():
    """Early it is wide, later it widens with the logarithm of the logarithm."""
    widths = [boundary(10.0**power, MANY, 0.05) for power in range(-6, 7)]
    assert all(map(math.isfinite, widths))
    assert widths[-1] < 6
    assert widths[:7] == sorted(widths[:7], reverse=True)
    assert widths[6:] == sorted(widths[6:])


@pytest.mark.parametrize("alpha", [1e-6, 0.01, 0.05, 0.2, 0.5])
def test_the_planned_part_is_crossed_with_the_share_of_alpha(alpha):
    """The closed form is solved to the last digits, and agrees with reflection where the line adds nothing."""
    spent = alpha * bounds.PLANNED_SHARE
    c = bounds._planned_sum(spent)
    assert bounds._crosses(c) == pytest.approx(spent, rel=1e-9)
    assert 2 * NormalDist().cdf(-c) < spent


def test_the_crossing_probability_is_that_of_the_integral():
    """The closed form equals numerical integration over where the path stands at the plan."""
    from scipy.integrate import quad

    c, b = 1.7, bounds._SLOPE
    stayed = lambda x: stats.norm.pdf(x) * (1 - math.exp(-2 * c * (c - x)))  # noqa: E731
    later, _ = quad(lambda x: stayed(x) * math.exp(-2 * b * (c - x)), -12, c)
    assert bounds._crosses(c) == pytest.approx(2 * stats.norm.sf(c) + later, rel=1e-8)


@pytest.mark.parametrize(("z", "df"), [(1.96, 5), (1.96, 30), (3.0, 10), (3.5, 20), (2.13, 19)])
def test_student_quantiles_are_those_of_the_table(z, df):
    """Wallace's approximation is good to 2 % wherever the gate uses it."""
    assert student(z, df) == pytest.approx(stats.t.isf(stats.norm.sf(z), df), rel=0.02)


@pytest.mark.parametrize(("fraction", "df"), [(0.0, 10), (0.5, 0), (0.5, -1)])
def test_without_labels_or_blocks_there_is_no_bound(fraction, df):
    """Nothing known is told as infinity, not as an error."""
    assert boundary(fraction, df, 0.05) == math.inf


def test_a_bound_beyond_floats_is_infinite():
    """Part of one degree of freedom and a far quantile overflow quietly."""
    assert student(40.0, 0.01) == math.inf


def test_less_alpha_is_wider():
    """At every fraction."""
    for fraction in (0.01, 0.3, 1, 2, 50):
        widths = [boundary(fraction, 30, alpha) for alpha in (0.2, 0.05, 0.01, 0.001)]
        assert widths == sorted(widths)
