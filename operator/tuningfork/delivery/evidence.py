"""Evidence that one rate exceeds another by more than a margin, safe to look at after every request.

A walk is looked at every few seconds, and a test made for one look (z, chi-square, Mann-Whitney) then alarms far more often than its
alpha says. This is an e-process instead. With failures f and successes s of candidate (c) and baseline (b), and the null hypothesis
p_c <= p_b + margin:

    E = m(f_c, s_c) * m(f_b, s_b) / max over the null of p_c^f_c (1-p_c)^s_c p_b^f_b (1-p_b)^s_b
    m(f, s) = mean over the priors Beta(a, b) of B(a + f, b + s) / B(a, b)        the averaged likelihood

Under any truth of the null the denominator is at least the true likelihood, so E is at most a non-negative martingale that starts
at 1, and by Ville's inequality E ever reaches 1/alpha with a probability of at most alpha: at any number of looks, any sample size
and any split. (Universal inference: Wasserman, Ramdas, Balakrishnan, PNAS 2020, section 7; mixtures: Robbins 1970.) The priors
decide only how fast evidence grows, not whether it is valid. Beta(0.5, 9.5) is quick with the rare failures of a healthy service
(1 % against 5 %); alone it needs 25 requests a slice to see 80 % against 2 %. Half of Beta(0.5, 0.5) beside it needs 13 for that, and
costs at most a factor of 4 in the evidence elsewhere.

Rejected: the sequential z-test of A/B platforms, which is asymptotic (7-11 % false alarms for 5 % at a 90/10 split) and says nothing
at all while the baseline has no failure, the one case that a rollout must catch.
"""

from math import exp, inf, lgamma, log, log1p
from typing import Final, NamedTuple

PRIORS: Final = ((0.5, 9.5), (0.5, 0.5))
"""Failures and successes of the two Beta priors, equally weighted."""

_HALVINGS: Final = 60
"""Of an interval of length 1: beyond the precision of a float."""


class Counts(NamedTuple):
    """Trials and how many of them failed; real numbers, because Prometheus extrapolates increases."""

    failures: float
    samples: float

    @property
    def successes(self) -> float:
        return max(0.0, self.samples - self.failures)

    @property
    def rate(self) -> float | None:
        return self.failures / self.samples if self.samples > 0 else None


def e_value(candidate: Counts, baseline: Counts, margin: float) -> float:
    """Evidence against "the candidate's rate is at most the baseline's plus ``margin``"; 1 without samples, infinite if beyond floats."""
    log_e = _log_mixture(candidate) + _log_mixture(baseline) - _log_null_maximum(candidate, baseline, margin)
    return exp(log_e) if log_e < 700 else inf


def _log_mixture(counts: Counts) -> float:
    low, high = sorted(_log_beta(a + counts.failures, b + counts.successes) - _log_beta(a, b) for a, b in PRIORS)
    return high + log1p(exp(low - high)) - log(len(PRIORS))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _log_null_maximum(candidate: Counts, baseline: Counts, margin: float) -> float:
    """The largest log likelihood with p_c <= p_b + margin: the free maximum if it lies there, else one on the border p_c = p_b + margin."""
    free_c, free_b = candidate.rate or 0.0, baseline.rate or 0.0
    if candidate.samples == 0 or free_c <= free_b + margin:
        return _log_likelihood(candidate, free_c) + _log_likelihood(baseline, free_b)
    border = _border_maximum(candidate, baseline, margin)
    return _log_likelihood(candidate, border + margin) + _log_likelihood(baseline, border)


def _border_maximum(candidate: Counts, baseline: Counts, margin: float) -> float:
    """The baseline's rate that maximises the joint likelihood on the border: the likelihood is concave, so its slope has one root."""

    def slope(p: float) -> float:
        return _slope(candidate, p + margin) + _slope(baseline, p)

    low, high = 0.0, 1.0 - margin
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if slope(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _slope(counts: Counts, p: float) -> float:
    up = counts.failures / p if counts.failures > 0 else 0.0
    down = counts.successes / (1 - p) if counts.successes > 0 else 0.0
    return up - down


def _log_likelihood(counts: Counts, p: float) -> float:
    """0 log 0 is 0: an outcome that did not occur costs nothing."""
    total = 0.0
    for n, q in ((counts.failures, p), (counts.successes, 1 - p)):
        if n > 0:
            total += n * log(q) if q > 0 else -inf
    return total
