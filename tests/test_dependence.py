"The order by mutual information: exact in as many steps as it needs, and on schedule."
import pytest, torch
from helpers import heldout_limit
from remask.core.denoiser import Denoised
from remask.policies.ranked import random_order
from remask.core.sampler import Noise, Process, categorical, sample
from remask.core.schedules import cosine, linear, uniform_grid
from remask.methods.registry import dependence_method
from remask.policies.dependence import (
    conditional_dependence, geometric_grid, pairwise_dependence, resample_implausible,
    select_independent)
from remask.core.tokens import fully_masked
from remask.core.exact import markov, sudoku, tv_to_exact

N = 4000


def draw(model, policy, ts, n=N, alpha=linear, **more):
    def exact_denoiser(x, t, real): return Denoised(model.logits(x))
    proc = Process(exact_denoiser, alpha, model.space)
    x = fully_masked(model.space, torch.ones(n, model.space.L) > 0)
    return sample(proc, x, ts, policy, categorical(), Noise(5, torch.arange(n)), **more)


def limit(model, n=N): return heldout_limit(model, n, times=12, deviations=4)


@pytest.mark.parametrize('L,steps', [(3, 2), (6, 3)])
def test_a_chain_is_exact_in_as_many_steps_as_bisection_needs(L, steps):
    "ceil(log2(L+1)), with a dependence learned from rows; neither random order nor one step fewer is exact"
    chain = markov(3, L, .4, seed=1)
    m = dependence_method(pairwise_dependence(chain.sample_exact(4000, torch.Generator().manual_seed(1))))
    def ts(T): return m.times(T, linear, torch.ones(1, L) > 0)
    most = limit(chain)
    assert tv_to_exact(chain, draw(chain, m.policy, ts(steps))) < most
    assert tv_to_exact(chain, draw(chain, random_order(), uniform_grid(steps))) > most
    assert tv_to_exact(chain, draw(chain, m.policy, ts(steps - 1))) > most


def test_sudoku_is_exact_in_eight_steps_and_repaired_in_four():
    grids, real = sudoku(), torch.ones(1, 16) > 0
    r = pairwise_dependence(grids.data)
    eight, four = dependence_method(r), dependence_method(r, growth=1., resamples=3)
    x = draw(grids, eight.policy, eight.times(8, linear, real), 2000)
    assert grids.log_prob(x).isfinite().double().mean() > .99
    assert tv_to_exact(grids, x) < limit(grids, 2000)
    def valid(policy):
        x = draw(grids, policy, four.times(4, linear, real), 2000)
        return grids.log_prob(x).isfinite().double().mean()
    assert valid(four.policy) > .85
    assert valid(four.policy._replace(edit=eight.policy.edit)) < .1


@pytest.mark.parametrize('alpha', [linear, cosine])
@pytest.mark.parametrize('growth,resamples', [(1., 0), (1.5, 0), (2., 0), (1., 2), (1., 3)])
def test_the_count_of_unmasked_positions_is_kept(alpha, growth, resamples):
    chain, log = markov(4, 9, .5, seed=1), []
    m = dependence_method(pairwise_dependence(chain.sample_exact(500)), growth, resamples)
    ts = m.times(6, alpha, torch.ones(1, 9) > 0)
    def record(st, x, keep): log.append((st, x))
    draw(chain, m.policy, ts, 50, alpha, callback=record)
    assert ts[0] == 1 and ts[-1] == 0 and len(ts) == 7
    for st, x in log: assert ((x != chain.space.mask).sum(1, keepdim=True) == st.n_unmasked).all()


def test_only_implausible_tokens_are_resampled():
    grids, log = sudoku(), []
    m, real = dependence_method(pairwise_dependence(grids.data), 1., 2), torch.ones(1, 16) > 0
    ts = m.times(5, linear, real)
    def record(st, x, keep): log.append((st, x))
    draw(grids, m.policy, ts, 300, callback=record)
    resampled = 0
    for st, new in log:
        changed = st.decoded & (new != st.x)
        assert (st.p[changed] < .05).all()
        resampled += changed.sum()
    assert resampled > 0


def test_an_unmasked_position_separates_its_neighbours():
    r = .6**(torch.arange(8)[:, None] - torch.arange(8)).abs().double()
    masked = torch.ones(1, 8) > 0
    masked[0, 4] = False
    c = conditional_dependence(r, masked)[0]
    assert c[:4, 5:].max() < 1e-12 and c[4].max() == 0
    assert c[0, 1] > .3
    chosen = select_independent(c[None], masked.double(), masked, torch.tensor([[2]]))
    assert chosen[0, :4].sum() == 1 and chosen[0, 5:].sum() == 1       # one on either side


@pytest.mark.parametrize('make, arguments', [
    (geometric_grid, dict(growth=.5)),
    (resample_implausible, dict(share=2)),
    (resample_implausible, dict(below=-1)),
])
def test_bad_arguments_are_refused(make, arguments):
    with pytest.raises(ValueError): make(**arguments)
