"""The next token: greedy, drawn, cut by top_p and top_k, repeatable by seed."""

from collections import Counter

import pytest
import torch

from tuningfork_serving.engine.sampling import SHORTLIST, Sampling, choose

LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))


def draws(sampling: Sampling, logits: torch.Tensor = LOGITS, times: int = 400) -> set[int]:
    return set(choose(logits.repeat(times, 1), [sampling] * times))


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        pytest.param(Sampling(temperature=0), {0}, id="temperature 0 takes the most likely"),
        pytest.param(Sampling(seed=1), {0, 1, 2, 3}, id="temperature 1 draws from all"),
        pytest.param(Sampling(top_p=0.49, seed=1), {0}, id="top_p 0.49 is filled by the first"),
        pytest.param(Sampling(top_p=0.51, seed=1), {0, 1}, id="top_p just above needs the second"),
        pytest.param(Sampling(top_p=0.95, seed=1), {0, 1, 2}, id="top_p 0.95 leaves the last out"),
        pytest.param(Sampling(top_k=2, seed=1), {0, 1}, id="top_k 2"),
        pytest.param(Sampling(top_k=3, top_p=0.6, seed=1), {0, 1}, id="top_p counts within top_k"),
        pytest.param(Sampling(temperature=0.01, seed=1), {0}, id="a low temperature is nearly greedy"),
    ],
)
def test_what_can_be_drawn(sampling: Sampling, possible: set[int]) -> None:
    assert draws(sampling) == possible


def test_the_share_of_each_token_is_its_probability() -> None:
    times = 4000
    counts = Counter(choose(LOGITS.repeat(times, 1), [Sampling(seed=3)] * times))
    assert [counts[token] / times for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_the_same_seed_draws_the_same_tokens_whoever_is_beside() -> None:
    alone = [choose(LOGITS, [one])[0] for one in [Sampling(seed=7)] for _ in range(20)]
    mine = Sampling(seed=7)
    beside = [choose(LOGITS.repeat(2, 1), [Sampling(seed=step), mine])[1] for step in range(20)]
    assert alone == beside


def test_a_flat_vocabulary_larger_than_the_shortlist_is_sorted_as_a_whole() -> None:
    flat = torch.zeros(1, SHORTLIST * 2)
    assert any(token >= SHORTLIST for token in draws(Sampling(top_p=0.9, seed=1), flat, times=100))
