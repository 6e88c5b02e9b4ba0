"""With an exact denoiser at temperature 1 the rows that come out have the world's law, up to the error of so many samples."""
import pytest, torch
from remask.core.tokens import is_clean
from remask.core.schedules import linear, uniform_grid
from remask.core.denoiser import Denoised
from remask.core.sampler import Noise, Policy, Process, categorical, sample
from remask.policies.remdm import balanced, by_confidence_n, cap, psi_score, schedule_budget, post_hoc, remdm, strategy_sigma
from remask.policies.ranked import by_budget, llada, random_order
from remask.core.fast import deduplicated
from remask.core.exact import markov, sudoku, tv_to_exact

CHAIN, GRIDS, N = markov(3, 4, .5, seed=1), sudoku(), 6000


def speeds(t, real):
    "Another pace at every position"
    return linear(t, real)**torch.linspace(.5, 3, real.shape[1], dtype=torch.float64)


def draw(world, policy, steps, n, seed=0, alpha=linear):
    x = torch.full((n, world.space.L), world.space.mask)
    proc = Process(deduplicated(lambda x, t, real: Denoised(world.logits(x))), alpha, world.space)
    return sample(proc, x, uniform_grid(steps), policy, categorical(), Noise(seed, torch.arange(n)), check=False)


def floor(world, n, times=25):
    "What as many exact samples score, and five standard deviations more"
    g = torch.Generator().manual_seed(0)
    d = torch.tensor([tv_to_exact(world, world.sample_exact(n, g)) for _ in range(times)])
    return float(d.mean() + 5*d.std())


@pytest.fixture(scope='module')
def limits(): return {w: floor(w, n) for w, n in ((CHAIN, N), (GRIDS, 3000))}


@pytest.mark.parametrize('steps', [4, 5, 11, 32])
def test_one_at_a_time_in_random_order_is_exact(steps, limits):
    assert tv_to_exact(CHAIN, draw(CHAIN, random_order(), steps, N)) < limits[CHAIN]


COINS = dict(plain=Policy(), remdm=remdm(cap(.04)), borrowed=remdm(cap(.04), schedule_budget(linear)), balanced=balanced(),
             balanced_cap=balanced(strategy_sigma(cap(.04))))


@pytest.mark.parametrize('name', COINS)
def test_coins_become_exact_as_steps_grow(name, limits):
    """Two tokens revealed in one step do not know of each other: ever rarer as steps grow. A balanced row that lags behind
    catches up within about sqrt(steps) steps, so there the error falls with 1/sqrt(steps) rather than 1/steps"""
    grid = (4, 11, 400 if 'balanced' in name else 64)
    far, nearer, near = (tv_to_exact(CHAIN, draw(CHAIN, COINS[name], steps, N)) for steps in grid)
    assert far > nearer > limits[CHAIN] > near


@pytest.mark.parametrize('name', ['plain', 'borrowed', 'balanced_cap'])
def test_and_where_every_position_has_its_own_pace(name, limits):
    assert tv_to_exact(CHAIN, draw(CHAIN, COINS[name], 96, N, alpha=speeds)) < limits[CHAIN]


def test_remasking_by_confidence_is_not_exact_and_psi_does_not_mend_it(limits):
    "It hides rather what is rare, on average or after the fact, whatever confidence it trusts"
    ways = [balanced(strategy_sigma(by_confidence_n)), post_hoc(by_budget, by_confidence_n), post_hoc(by_budget, by_confidence_n, trust=psi_score)]
    for policy in ways: assert tv_to_exact(CHAIN, draw(CHAIN, policy, 32, N)) > limits[CHAIN]


def test_sixteen_steps_of_random_order_fill_a_sudoku_fairly(limits):
    x = draw(GRIDS, random_order(), 16, 3000)
    assert is_clean(GRIDS.space, x).all() and GRIDS.log_prob(x).isfinite().all()
    assert tv_to_exact(GRIDS, x) < limits[GRIDS]


@pytest.mark.parametrize('world,steps,n', [(CHAIN, 32, N), (GRIDS, 16, 3000)], ids=['chain', 'sudoku'])
def test_the_order_of_confidence_is_not_exact(world, steps, n, limits):
    "It keeps the surest of the draws, and so prefers likely rows, however many steps it takes"
    x = draw(world, llada(), steps, n)
    assert tv_to_exact(world, x) > 1.5*limits[world]
    if world is CHAIN: assert world.log_prob(x).mean() > world.log_prob(world.sample_exact(n)).mean() + .1
