"""How many standard errors a mean must be away before one may look at it at any time and as often as one likes.

The test is planned for a number of labels and stays valid beyond it. ``alpha`` is spent in two parts, which add up
(union bound), and the bound is the lower of the two:

* 90 % on a constant bound for the *sum* up to the planned number of labels, and a rising line after it. It is the
  boundary of O'Brien and Fleming: hard to cross early, nearly that of a single test at the planned number. The line
  is as steep as costs little there (2.13 standard errors instead of 2.04 if it were twice as steep, 2.48 if half).
* 10 % on a mixture that is valid for ever: it lets through what is plain early, or only after a long time.

Both are exact for Brownian motion, which is what sums of blocks come to (Waudby-Smith et al., section 2). That few
blocks tell their own spread badly is mended by the step from normal to Student quantiles.

References
----------
O'Brien and Fleming (1979), A multiple testing procedure for clinical trials, Biometrics 35: the constant bound.
Siegmund (1985), Sequential Analysis, chapter III: crossing probabilities by reflection, and of a line.
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), Time-uniform central limit theory and asymptotic confidence
sequences, Annals of Statistics 52 (arXiv 2103.06476): the one-sided normal mixture.
Jennison and Turnbull (2000), Group Sequential Methods, section 3.8: Student quantiles at the same significance level.
Wallace (1959), Bounds on normal approximations to Student's and the chi-square distributions, Annals of Mathematical
Statistics 30: the quantile without a table.
"""

from __future__ import annotations

import math
from functools import lru_cache

PLANNED_SHARE = 0.9  #: of alpha, for the bound that is sharpest at the planned number of labels
_SLOPE = 2.0  # of the sum's bound beyond the plan, in sd of the planned sum per planned number of labels
_TUNED = 0.25  # the fraction of the plan at which the mixture is narrowest


def boundary(fraction: float, df: float, alpha: float) -> float:
    """Standard errors between a mean and a one-sided bound that holds at all times with probability ``1 - alpha``.

    Parameters
    ----------
    fraction : float
        Labels so far over labels planned; positive, and may exceed 1.
    df : float
        Degrees of freedom of the standard error. There is no bound, that is infinity, where it has none.
    alpha : float
        The probability that the true mean is ever on the wrong side.

    Examples
    --------
    >>> [round(boundary(fraction, 1e9, 0.05), 2) for fraction in (0.1, 0.5, 1, 1.1, 4)]
    [3.64, 3.01, 2.13, 2.22, 3.82]
    """
    if df <= 0 or fraction <= 0:
        return math.inf
    crossed = _planned_sum(alpha * PLANNED_SHARE) + _SLOPE * max(fraction - 1, 0.0)
    return student(min(crossed / math.sqrt(fraction), _mixture(fraction, alpha * (1 - PLANNED_SHARE))), df)


def student(z: float, df: float) -> float:
    """The Student quantile with ``df`` degrees of freedom at the normal quantile ``z``'s level (Wallace 1959).

    Examples
    --------
    >>> round(student(1.959964, 10), 2)  # tables say 2.228
    2.23
    """
    power = (z * (8 * df + 3) / (8 * df + 1)) ** 2 / df
    return math.sqrt(df * math.expm1(power)) if power < 700 else math.inf


def _mixture(fraction: float, alpha: float) -> float:
    """Waudby-Smith et al., one-sided: ``sqrt(2 (x + 1) / x * ln(1 + sqrt(x + 1) / (2 alpha)))`` with x = n rho^2."""
    doubled = -2 * math.log(2 * alpha)
    x = fraction / _TUNED * (doubled + math.log(doubled) + 1)
    return math.sqrt(2 * (x + 1) / x * math.log1p(math.sqrt(x + 1) / (2 * alpha)))


@lru_cache(maxsize=256)
def _planned_sum(alpha: float) -> float:
    """The bound ``c`` that standard Brownian motion crosses with probability ``alpha``: c up to 1, then a line."""
    low, high = 0.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if _crosses(middle) <= alpha else (middle, high)
    return high


def _crosses(c: float) -> float:
    """P(B(t) >= c for some t <= 1, or B(t) >= c + b (t - 1) for some t > 1), b the slope.

    Reflection gives ``2 P(B(1) >= c)`` and the density at 1 of paths that stayed below, ``phi(x) (1 - exp(-2 c (c -
    x)))``; from there the line is crossed with probability ``exp(-2 b (c - x))``, and the integral is closed.
    """
    b = _SLOPE
    after = _scaled_tail(2 * b - c, 2 * b * (b - c)) - _scaled_tail(2 * b + c, 2 * b * (b + c))
    return 2 * _scaled_tail(c, 0.0) + after


def _scaled_tail(x: float, log_scale: float) -> float:
    """``exp(log_scale) P(Z >= x)``, also where the tail alone would underflow."""
    if x < 30:
        return math.exp(log_scale) * 0.5 * math.erfc(x / math.sqrt(2))
    return math.exp(log_scale - x * x / 2) / (x * math.sqrt(2 * math.pi))
