"The exact worlds are exact: every posterior against plain enumeration, every law against its own chain rule."
import itertools, math
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from remask.worlds import Chain, Listed, brackets, markov, spell, sudoku, tv


def posterior(rows, weight, context, i, V):
    "Plain p(x_i | the other tokens of `context`), None where nothing is left; hidden tokens are None"
    p = [0.]*V
    for row, w in zip(rows, weight):
        if all(c is None or j == i or c == r for j, (c, r) in enumerate(zip(context, row))): p[row[i]] += w
    return [q/sum(p) for q in p] if sum(p) else None


def softened(rows, context, i, V, eps):
    "The same with a factor eps for each contradiction"
    p = [0.]*V
    for row in rows:
        p[row[i]] += eps**sum(c is not None and j != i and c != r for j, (c, r) in enumerate(zip(context, row)))
    return [q/sum(p) for q in p]


@pytest.mark.parametrize('concentration,seed', [(.1, 0), (.5, 1), (3., 2)])
def test_chain_posterior_for_every_visible_pattern_and_every_content(concentration, seed):
    V, L = 3, 4
    chain = markov(V, L, concentration, seed)
    rows, p = chain.law()
    x = torch.cartesian_prod(*[torch.arange(V+1)]*L)  # V is MASK: all 256 patterns with all their contents
    got = chain.logits(x).exp()
    assert got.shape == (256, L, V+2) and got.dtype == torch.float64
    assert (got[..., V:] == 0).all()
    for row, g in zip(x.tolist(), got):
        context = [None if c == V else c for c in row]
        for i in range(L):
            np.testing.assert_allclose(g[i, :V], posterior(rows.tolist(), p.tolist(), context, i, V), rtol=1e-9)


def test_chain_law_is_a_product_of_transitions():
    chain = markov(3, 5, .7, seed=4)
    rows, p = chain.law()
    assert rows.tolist() == [list(r) for r in itertools.product(range(3), repeat=5)]
    plain = [chain.first[r[0]]*math.prod(chain.step[a, b] for a, b in zip(r, r[1:])) for r in rows.tolist()]
    np.testing.assert_allclose(p, plain, rtol=1e-12)
    assert abs(float(p.sum()) - 1) < 1e-12


def chain_rule(world, x, order):
    "log p of the rows x, revealed one by one in the given order through the denoiser"
    seen, total = torch.full_like(x, world.space.mask), 0.
    for i in order:
        total = total + world.logits(seen)[:, i].gather(-1, x[:, i:i+1])[:, 0]
        seen[:, i] = x[:, i]
    return total


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(.02, 5.), st.integers(2, 6), st.integers(1, 40))
def test_revealing_one_by_one_in_any_order_gives_the_chains_law(seed, concentration, V, L):
    chain, order = markov(V, L, concentration, seed), np.random.default_rng(seed).permutation(L)
    x = torch.randint(V, (7, L), generator=torch.Generator().manual_seed(seed))  # unlikely rows, too
    torch.testing.assert_close(chain_rule(chain, x, order), chain.log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('world', [brackets(8), brackets(12), sudoku()], ids=['brackets8', 'brackets12', 'sudoku'])
def test_revealing_one_by_one_in_any_order_gives_the_lists_law(world):
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(world.space.L)
        torch.testing.assert_close(chain_rule(world, world.data, order), world.log_prob(world.data), rtol=0, atol=1e-4)


@pytest.mark.parametrize('eps', [1e-8, 1e-3, .1, 1.])
@pytest.mark.parametrize('make', [sudoku, lambda eps: brackets(8, eps)], ids=['sudoku', 'brackets'])
def test_listed_posterior_against_plain_counting(make, eps):
    world = make(eps)
    V, L, rows = len(world.names), world.space.L, world.data.tolist()
    g = torch.Generator().manual_seed(1)
    x = world.sample_exact(12, g)
    wrong = torch.rand(x.shape, generator=g) < torch.linspace(0, .5, 12)[:, None]  # from consistent to hopeless
    x = torch.where(wrong, torch.randint(V, x.shape, generator=g), x)
    x = torch.where(torch.rand(x.shape, generator=g) < .5, world.space.mask, x)
    got = world.logits(x).exp()
    assert (got[..., V:] == 0).all()
    for row, p in zip(x.tolist(), got):
        context = [None if c == V else c for c in row]
        for i in range(L):
            np.testing.assert_allclose(p[i, :V], softened(rows, context, i, V, eps), rtol=1e-7, atol=1e-15)


def test_with_a_small_eps_a_consistent_context_has_the_hard_posterior():
    world = sudoku()
    g = torch.Generator().manual_seed(2)
    x = world.sample_exact(20, g)
    x = torch.where(torch.rand(x.shape, generator=g) < .7, world.space.mask, x)
    rows = world.data.tolist()
    for row, p in zip(x.tolist(), world.logits(x).exp()):
        context = [None if c == 4 else c for c in row]
        for i in range(16):
            np.testing.assert_allclose(p[i, :4], posterior(rows, [1]*288, context, i, 4), atol=1e-4)


def test_the_grids_are_the_sudoku_grids():
    def good(g):
        g = [g[4*r:4*r+4] for r in range(4)]
        groups = g + [list(c) for c in zip(*g)]
        groups += [[g[r+i][c+j] for i in (0, 1) for j in (0, 1)] for r in (0, 2) for c in (0, 2)]
        return all(sorted(q) == [0, 1, 2, 3] for q in groups)
    data = sudoku().data.tolist()
    assert len(set(map(tuple, data))) == 288 and all(map(good, data))


def test_brackets_are_the_balanced_strings():
    def balanced(s):
        while '()' in s: s = s.replace('()', '')
        return s == ''
    for L in (2, 6, 10):
        every = {''.join(s) for s in itertools.product('()', repeat=L)}
        world = brackets(L)
        assert set(spell(world.data, world.names)) == {s for s in every if balanced(s)}


@pytest.mark.parametrize('world', [markov(4, 6, .5, 3), markov(3, 9, 1.), sudoku(), brackets(10)],
                         ids=['chain', 'long chain', 'sudoku', 'brackets'])
def test_memory_and_company_do_not_change_a_row(world):
    g = torch.Generator().manual_seed(3)
    x = torch.where(torch.rand((50, world.space.L), generator=g) < .5, world.space.mask, world.sample_exact(50, g))
    whole = world.logits(x)
    torch.testing.assert_close(torch.cat([world.logits(r[None]) for r in x]), whole, rtol=1e-12, atol=1e-12)
    if isinstance(world, Listed): torch.testing.assert_close(world.logits(x, cells=1), whole, rtol=1e-12, atol=1e-12)


def test_long_sharp_chains_do_not_underflow():
    chain = markov(8, 400, .02, seed=1)
    x = torch.randint(9, (5, 400), generator=torch.Generator().manual_seed(0))  # contexts the chain would hardly give
    p = chain.logits(x).exp()
    assert p.isfinite().all()
    torch.testing.assert_close(p.sum(-1), torch.ones(5, 400).double())


@pytest.mark.parametrize('world', [markov(3, 4, 1.), sudoku(), brackets(8)], ids=['chain', 'sudoku', 'brackets'])
def test_exact_samples_sit_on_the_floor_of_total_variation(world):
    n = 20_000
    rows, p = world.law()
    x = world.sample_exact(n, torch.Generator().manual_seed(5))
    floor = .5*float((2*p*(1-p)/(math.pi*n)).sqrt().sum())  # mean of |share - p| of a normal law
    assert .6*floor < tv(world, x) < 1.4*floor
    assert tv(world, rows[:1].expand(100, -1)) == pytest.approx(1 - float(p[0]))


def test_total_variation_counts_impossible_rows():
    world = brackets(4)
    x = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert tv(world, x) == pytest.approx(.5)
    assert world.log_prob(x).exp().tolist() == pytest.approx([.5, .5, 0, 0])


@pytest.mark.parametrize('bad,why', [
    (lambda: markov(concentration=0), 'must be positive'), (lambda: markov(8, 32).law(), 'too many to list'),
    (lambda: brackets(7), 'even number'), (lambda: brackets(40), 'even number'), (lambda: sudoku(eps=0), r'eps=0'),
    (lambda: Listed(torch.tensor([[0, 5]]), 'ab'), 'outside 0..1'),
    (lambda: Chain(torch.ones(2)/2, torch.eye(2), 4), 'must be positive and sum to one'),
    (lambda: Chain(torch.ones(2)/2, torch.ones(3, 3)/3, 4), 'need L >= 1')])
def test_bad_worlds_are_refused_with_the_reason(bad, why):
    with pytest.raises(ValueError, match=why): bad()
