"""The e-process keeps its promise by simulation, and sees what a rollout must see soon enough."""

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuningfork.delivery.evidence import Counts, e_value

RUNS = 400
LOOKS = 60


def walk(rng: random.Random, candidate: float, baseline: float, per_look: int) -> Iterator[float]:
    """E after every look at two slices that grow by ``per_look`` requests each."""
    fc = fb = n = 0
    for _ in range(LOOKS):
        fc += sum(rng.random() < candidate for _ in range(per_look))
        fb += sum(rng.random() < baseline for _ in range(per_look))
        n += per_look
        yield e_value(Counts(fc, n), Counts(fb, n), MARGIN)


MARGIN = 0.02


@pytest.mark.parametrize(
    ("candidate", "baseline", "per_look"),
    [
        pytest.param(0.05, 0.05, 5, id="equal and rare"),
        pytest.param(0.52, 0.50, 5, id="worse by exactly the margin"),
        pytest.param(0.02, 0.0, 20, id="baseline never fails and the candidate stays within the margin"),
        pytest.param(0.97, 0.95, 10, id="nearly everything fails on both"),
    ],
)
def test_false_alarms_stay_below_alpha_however_often_one_looks(
    candidate: float, baseline: float, per_look: int
) -> None:
    rng = random.Random(20261124)
    alpha = 0.05
    alarms = sum(any(e >= 1 / alpha for e in walk(rng, candidate, baseline, per_look)) for _ in range(RUNS))
    assert alarms / RUNS <= alpha


@pytest.mark.parametrize(
    ("bad", "good", "margin", "within"),
    [
        pytest.param(0.80, 0.02, 0.1, 16, id="80 % against 2 % bad answers"),
        pytest.param(1.00, 0.10, 0.1, 12, id="every answer bad against 10 %"),
        pytest.param(1.00, 0.00, 0.01, 10, id="every request fails against none"),
        pytest.param(0.20, 0.00, 0.01, 60, id="20 % errors against none, where a z-test has no variance"),
        pytest.param(0.10, 0.01, 0.0, 250, id="10 % against 1 %"),
    ],
)
def test_harm_is_seen_within_that_many_requests_a_slice(bad: float, good: float, margin: float, within: int) -> None:
    rng = random.Random(7)
    needed = []
    for _ in range(100):
        fc = fb = 0
        for n in range(1, 2000):
            fc += rng.random() < bad
            fb += rng.random() < good
            if e_value(Counts(fc, n), Counts(fb, n), margin) >= 40:
                break
        needed.append(n)
    assert sorted(needed)[len(needed) // 2] <= within, "median over 100 runs, two metrics sharing alpha 0.05"


@given(
    st.floats(0, 500), st.floats(0, 500), st.floats(0, 500), st.floats(0, 500), st.sampled_from([0.0, 0.01, 0.3, 1.0])
)
def test_it_is_a_non_negative_number_for_all_counts(fc: float, sc: float, fb: float, sb: float, margin: float) -> None:
    assert e_value(Counts(fc, fc + sc), Counts(fb, fb + sb), margin) >= 0


@pytest.mark.parametrize(
    ("own", "production", "margin"),
    [
        pytest.param((9, 9), (0, 9), 0.1, id="all against none"),
        pytest.param((12, 15), (2, 14), 0.2, id="many against some"),
        pytest.param((1, 50), (1, 50), 0.1, id="inside the null"),
        pytest.param((7, 20), (0, 0), 0.1, id="no baseline"),
    ],
)
def test_it_is_the_formula(own: tuple[int, int], production: tuple[int, int], margin: float) -> None:
    """Against brute force: midpoint integrals for the mixtures, a fine grid for the maximum over the null."""
    steps = 2000
    grid = [(i + 0.5) / steps for i in range(steps)]

    def likelihood(counts: tuple[int, int], p: float) -> float:
        return p ** counts[0] * (1 - p) ** (counts[1] - counts[0])

    def mixture(counts: tuple[int, int]) -> float:
        def averaged(a: float, b: float) -> float:  # substitution p = sin^2 tames the ends
            angles = [(p * math.pi / 2) for p in grid]
            weights = [2 * math.sin(t) ** (2 * a - 1) * math.cos(t) ** (2 * b - 1) for t in angles]
            values = [w * likelihood(counts, math.sin(t) ** 2) for w, t in zip(weights, angles, strict=True)]
            return sum(values) / sum(weights)

        return (averaged(0.5, 9.5) + averaged(0.5, 0.5)) / 2

    edges = [i / 400 for i in range(401)]
    highest = max(
        likelihood(own, p) * likelihood(production, q) for p in edges for q in edges if p <= q + margin + 1e-12
    )
    expected = mixture(own) * mixture(production) / highest
    assert e_value(Counts(*own), Counts(*production), margin) == pytest.approx(expected, rel=2e-3)


def test_no_samples_are_no_evidence() -> None:
    assert e_value(Counts(0, 0), Counts(0, 0), 0.1) == pytest.approx(1)
    assert e_value(Counts(0, 0), Counts(5, 10), 0.1) <= 1


def test_a_better_candidate_is_no_harm() -> None:
    assert e_value(Counts(0, 1000), Counts(500, 1000), 0) < 1


def test_evidence_beyond_floats_is_infinite_and_no_error() -> None:
    assert e_value(Counts(5000, 5000), Counts(0, 5000), 0) == float("inf")
