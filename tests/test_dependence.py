"The order that reveals what tells most about the rest: exact where it says so, and lawful."
import pytest, torch
from remask.core.denoiser import Denoised
from remask.policies.ranked import random_order
from remask.core.sampler import Noise, Process, categorical, sample
from remask.core.schedules import cosine, linear, uniform_grid
from remask.methods.registry import dependence_method
from remask.policies.dependence import pairwise_dependence, conditional_dependence, geometric_grid, resample_implausible, select_independent
from remask.core.tokens import hide
from remask.core.exact import markov, sudoku, tv_to_exact

N = 4000


def draw(world, policy, ts, n=N, alpha=linear, **more):
    proc = Process(lambda x, t, real: Denoised(world.logits(x)), alpha, world.space)
    x = hide(world.space, torch.ones(n, world.space.L) > 0)
    return sample(proc, x, ts, policy, categorical(), Noise(5, torch.arange(n)), **more)


def floor(world, n=N):
    g = torch.Generator().manual_seed(0)
    d = torch.tensor([tv_to_exact(world, world.sample_exact(n, g)) for _ in range(12)])
    return float(d.mean() + 4*d.std())


@pytest.mark.parametrize('L,passes', [(3, 2), (6, 3)])
def test_a_chain_is_exact_in_as_many_passes_as_bisection_needs(L, passes):
    "ceil(log2(L+1)), with a coupling learned from rows; random order in as many passes is not, nor is one pass fewer"
    w = markov(3, L, .4, seed=1)
    m = dependence_method(pairwise_dependence(w.sample_exact(4000, torch.Generator().manual_seed(1))))
    ts = lambda T: m.times(T, linear, torch.ones(1, L) > 0)
    limit = floor(w)
    assert tv_to_exact(w, draw(w, m.policy, ts(passes))) < limit
    assert tv_to_exact(w, draw(w, random_order(), uniform_grid(passes))) > limit
    assert tv_to_exact(w, draw(w, m.policy, ts(passes - 1))) > limit


def test_sudoku_is_exact_in_eight_passes_and_mended_in_four():
    w, real = sudoku(), torch.ones(1, 16) > 0
    r = pairwise_dependence(w.data)
    eight, four = dependence_method(r), dependence_method(r, growth=1., mends=3)
    x = draw(w, eight.policy, eight.times(8, linear, real), 2000)
    assert w.log_prob(x).isfinite().double().mean() > .99 and tv_to_exact(w, x) < floor(w, 2000)
    valid = lambda p: w.log_prob(draw(w, p, four.times(4, linear, real), 2000)).isfinite().double().mean()
    assert valid(four.policy) > .85 and valid(four.policy._replace(edit=eight.policy.edit)) < .1


@pytest.mark.parametrize('alpha', [linear, cosine])
@pytest.mark.parametrize('growth,mends', [(1., 0), (1.5, 0), (2., 0), (1., 2), (1., 3)])
def test_it_keeps_the_law_of_ranked_methods(alpha, growth, mends):
    w, log = markov(4, 9, .5, seed=1), []
    m = dependence_method(pairwise_dependence(w.sample_exact(500)), growth, mends)
    ts = m.times(6, alpha, torch.ones(1, 9) > 0)
    draw(w, m.policy, ts, 50, alpha, callback=lambda st, x, keep: log.append((st, x)))
    assert ts[0] == 1 and ts[-1] == 0 and len(ts) == 7
    for st, x in log: assert ((x != w.space.mask).sum(1, keepdim=True) == st.n_unmasked).all()


def test_mending_touches_only_what_is_impossible():
    w, seen = sudoku(), []
    m, real = dependence_method(pairwise_dependence(w.data), 1., 2), torch.ones(1, 16) > 0
    draw(w, m.policy, m.times(5, linear, real), 300, callback=lambda st, x, keep: seen.append((st, x)))
    for st, new in seen:
        moved = st.decoded & (new != st.x)
        assert (st.p[moved] < .05).all()
    assert sum((st.decoded & (new != st.x)).sum() for st, new in seen) > 0


def test_a_visible_position_stands_between_and_tells_nothing():
    r = .6**(torch.arange(8)[:, None] - torch.arange(8)).abs().double()
    hidden = torch.ones(1, 8) > 0
    hidden[0, 4] = False
    c = conditional_dependence(r, hidden)[0]
    assert c[:4, 5:].max() < 1e-12 and c[4].max() == 0 and c[0, 1] > .3
    taken = select_independent(c[None], hidden.double(), hidden, torch.tensor([[2]]))
    assert taken[0, :4].sum() == 1 and taken[0, 5:].sum() == 1       # one on either side


@pytest.mark.parametrize('make', [lambda: geometric_grid(.5), lambda: resample_implausible(share=2), lambda: resample_implausible(bar=-1)])
def test_what_means_nothing_is_refused(make):
    with pytest.raises(ValueError): make()
