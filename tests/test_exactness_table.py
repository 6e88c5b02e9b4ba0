"""The measures of the exactness table agree with their definitions, and a run keeps to its budget."""
import math
import pytest, torch
from remask.core.exact import markov, sudoku, tv_to_exact
from remask.core.sampler import categorical
from remask.methods.exactness import (
    ExactCase, distinct_share, learned_dependence, neighbour_tv, nfe_per_step, row_kl, run_exact,
    score_exact, select_dependence, token_nll, valid_share, validation_loss)
from remask.methods.catalogue import CATALOGUE

PAIR, CHAIN, GRIDS = markov(3, 2, .5, seed=1), markov(3, 4, .5, seed=1), sudoku()


def generator(seed=0): return torch.Generator().manual_seed(seed)
def make(seed): return markov(3, 4, .5, seed)


CASE = ExactCase('L4', make, 300, (2, 4), dict(kl=row_kl, nll=token_nll))


def test_kl_is_the_sum_over_the_sampled_rows():
    x = CHAIN.sample_exact(40, generator())
    rows, counts = x.unique(dim=0, return_counts=True)
    q = counts.double()/len(x)
    expected = (q*(q.log() - CHAIN.log_prob(rows))).sum()
    assert row_kl(CHAIN, x) == pytest.approx(float(expected), abs=1e-6)


def test_kl_of_exact_rows_falls_with_one_over_n():
    few, many = (row_kl(CHAIN, CHAIN.sample_exact(n, generator())) for n in (1000, 16_000))
    assert 0 < many < few/8


def test_kl_counts_an_impossible_row_as_far_away():
    wrong = torch.zeros(2, 16).long()
    assert row_kl(GRIDS, wrong) > 100


def test_pair_distance_of_two_positions_is_the_total_variation_of_rows():
    x = PAIR.sample_exact(500, generator())
    assert neighbour_tv(PAIR, x) == pytest.approx(tv_to_exact(PAIR, x), abs=1e-6)


def test_nll_is_the_mean_log_probability_per_token():
    x = CHAIN.sample_exact(50, generator())
    assert token_nll(CHAIN, x) == pytest.approx(-float(CHAIN.log_prob(x).mean())/4)
    assert token_nll(GRIDS, GRIDS.sample_exact(5, generator())) == pytest.approx(math.log(288)/16)
    assert token_nll(GRIDS, torch.zeros(1, 16).long()) == pytest.approx(99/16)


def test_shares_of_valid_and_distinct_rows():
    x = GRIDS.sample_exact(4, generator())[[0, 0, 0, 0]]
    x[3, 0] = x[3, 1]
    assert (valid_share(GRIDS, x), distinct_share(GRIDS, x)) == (3/4, 2/4)


@pytest.mark.parametrize('name', ['fixed_count', 'informed', 'remdm_cap'])
@pytest.mark.parametrize('nfe', [2, 4])
def test_a_run_keeps_to_its_budget(name, nfe):
    per_step = nfe_per_step(CHAIN, CATALOGUE[name])
    found = score_exact(CASE, 1, CATALOGUE[name], nfe, categorical())
    assert found['nfe'] <= max(nfe, per_step) and [*found] == ['nfe', 'seconds', 'kl', 'nll']


def test_a_run_is_reproducible_and_its_rows_do_not_depend_on_the_batch():
    from remask.core.fast import NFECounter
    from remask.core.schedules import linear
    method = CATALOGUE['remdm_cap']
    ts = method.times(4, linear, torch.ones(1, 4) > 0)
    def rows(n): return run_exact(CHAIN, method.policy, ts, torch.arange(n), 3, categorical(), NFECounter())
    assert rows(20).equal(rows(40)[:20])


def test_selection_takes_the_least_loss_that_fits_the_budget():
    choices = [(1., 0), (2., 0), (1., 2)]
    def loss(choice, seed):
        method = learned_dependence(CASE, seed, *choice)
        return validation_loss(score_exact(CASE, seed, method, 2, categorical(), CASE.n//2))
    losses = {choice: loss(choice, 100) + loss(choice, 101) for choice in choices[:2]}
    assert select_dependence(CASE, 2, choices) == min(losses, key=losses.get)


def test_validation_prefers_the_kl_and_rewards_valid_rows():
    assert validation_loss(dict(kl=.2, tv=.9)) == .2
    assert validation_loss(dict(tv=.5, valid=.75)) == pytest.approx(-.25)
