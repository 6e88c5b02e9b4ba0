"""Special ids are never clean tokens, whatever their numbers, and of equal scores the first is picked."""
from itertools import product
import pytest, torch
from remask.core.tokens import TokenSpace, top

V = 4
PLACES = [(mask, pad) for mask, pad in product(range(V), range(-1, V)) if mask != pad]


@pytest.mark.parametrize('mask, pad', PLACES)
def test_no_special_id_is_a_clean_token_whatever_its_number(mask, pad):
    special = [i for i in (mask, pad) if i >= 0]
    legal = torch.ones(2, V, dtype=torch.bool)
    legal[:, special] = False
    assert TokenSpace(mask, pad, legal).V == V
    for i in special:
        also = legal.clone()
        also[1, i] = True
        with pytest.raises(ValueError, match='never clean tokens'): TokenSpace(mask, pad, also)


@pytest.mark.parametrize('k', [0, 1, 40, 100])
def test_of_equal_scores_the_first_are_picked(k):
    among = torch.arange(100).expand(2, -1) % 3 != 0
    got = top(torch.zeros(2, 100), among, torch.tensor([[k], [3]]))
    for row, allowed, n in zip(got, among, (k, 3)):
        want = allowed.nonzero()[:n, 0]
        assert row.nonzero()[:, 0].equal(want)
