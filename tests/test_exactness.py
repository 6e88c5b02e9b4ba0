"""With an exact denoiser at temperature 1 samples have the exact distribution, up to their sampling error."""
import pytest, torch
from helpers import heldout_limit
from remask.core.tokens import is_clean
from remask.core.schedules import linear, uniform_grid
from remask.core.denoiser import Denoised
from remask.core.sampler import Noise, Policy, Process, categorical, sample
from remask.policies.remdm import (
    balanced, by_confidence_n, cap, post_hoc, psi_score, remdm, schedule_budget, strategy_sigma)
from remask.policies.ranked import davis_count, llada, random_order
from remask.core.fast import deduplicated
from remask.core.exact import markov, sudoku, tv_to_exact

CHAIN, GRIDS, N = markov(3, 4, .5, seed=1), sudoku(), 6000


def position_schedules(t, real):
    "Another schedule at every position"
    return linear(t, real)**torch.linspace(.5, 3, real.shape[1], dtype=torch.float64)


def draw(model, policy, steps, n, seed=0, alpha=linear):
    def exact_denoiser(x, t, real): return Denoised(model.logits(x))
    x = torch.full((n, model.space.L), model.space.mask)
    proc = Process(deduplicated(exact_denoiser), alpha, model.space)
    noise = Noise(seed, torch.arange(n))
    return sample(proc, x, uniform_grid(steps), policy, categorical(), noise, check=False)


@pytest.fixture(scope='module')
def limits(): return {CHAIN: heldout_limit(CHAIN, N), GRIDS: heldout_limit(GRIDS, 3000)}


@pytest.mark.parametrize('steps', [4, 5, 11, 32])
def test_one_at_a_time_in_random_order_is_exact(steps, limits):
    assert tv_to_exact(CHAIN, draw(CHAIN, random_order(), steps, N)) < limits[CHAIN]


RATES = dict(mdlm=Policy(), remdm=remdm(cap(.04)))
RATES['borrowed'] = remdm(cap(.04), schedule_budget(linear))
RATES |= dict(balanced=balanced(), balanced_cap=balanced(strategy_sigma(cap(.04))))


@pytest.mark.parametrize('name', RATES)
def test_rates_become_exact_as_steps_grow(name, limits):
    """Fewer tokens are unmasked in one step, and so drawn independently, as steps grow. A balanced row below
    its schedule catches up in about sqrt(steps) steps, so its error falls with 1/sqrt(steps), not 1/steps"""
    def distance(steps): return tv_to_exact(CHAIN, draw(CHAIN, RATES[name], steps, N))
    far, nearer, near = distance(4), distance(11), distance(400 if 'balanced' in name else 64)
    assert far > nearer > limits[CHAIN] > near


@pytest.mark.parametrize('name', ['mdlm', 'borrowed', 'balanced_cap'])
def test_rates_are_exact_with_a_schedule_for_every_position(name, limits):
    x = draw(CHAIN, RATES[name], 96, N, alpha=position_schedules)
    assert tv_to_exact(CHAIN, x) < limits[CHAIN]


def test_remasking_by_confidence_is_not_exact_with_any_confidence(limits):
    "It remasks rare tokens more often, balanced or post-hoc, by confidence or psi"
    policies = [balanced(strategy_sigma(by_confidence_n)), post_hoc(davis_count, by_confidence_n)]
    policies.append(post_hoc(davis_count, by_confidence_n, trust=psi_score))
    for policy in policies: assert tv_to_exact(CHAIN, draw(CHAIN, policy, 32, N)) > limits[CHAIN]


def test_sixteen_steps_of_random_order_fill_a_sudoku_exactly(limits):
    x = draw(GRIDS, random_order(), 16, 3000)
    assert is_clean(GRIDS.space, x).all() and GRIDS.log_prob(x).isfinite().all()
    assert tv_to_exact(GRIDS, x) < limits[GRIDS]


@pytest.mark.parametrize('model,steps,n', [(CHAIN, 32, N), (GRIDS, 16, 3000)], ids=['chain', 'sudoku'])
def test_confidence_ordered_unmasking_is_not_exact(model, steps, n, limits):
    "It keeps the most probable draws, and so prefers likely rows, however many steps it takes"
    x = draw(model, llada(), steps, n)
    assert tv_to_exact(model, x) > 1.5*limits[model]
    exact = model.sample_exact(n)
    if model is CHAIN: assert model.log_prob(x).mean() > model.log_prob(exact).mean() + .1
