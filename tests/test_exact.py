"The exact worlds are exact: every posterior against plain enumeration, every law against its own chain rule."
import itertools, math
import numpy as np, pytest, torch, torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare
from remask.core.exact import Chain, Enumerated, brackets, hidden_markov, markov, decode, sudoku, tv_to_exact


def posterior(rows, weight, context, i, V):
    "Plain p(x_i | the other tokens of `context`), None where nothing is left; hidden tokens are None"
    p = [0.]*V
    for row, w in zip(rows, weight):
        if all(c is None or j == i or c == r for j, (c, r) in enumerate(zip(context, row))): p[row[i]] += w
    return [q/sum(p) for q in p] if sum(p) else None


def over_states(chain, row):
    "Plain p(row): the sum over every path of states; None in a row fits every character"
    first, step, emit = chain.first.tolist(), chain.step.tolist(), chain.emit.tolist()
    total = 0.
    for z in itertools.product(range(len(first)), repeat=len(row)):
        p = first[z[0]]*math.prod(step[a][b] for a, b in zip(z, z[1:]))
        total += p*math.prod(1. if c is None else emit[s][c] for s, c in zip(z, row))
    return total


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
    rows, p = chain.distribution()
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
    rows, p = chain.distribution()
    assert rows.tolist() == [list(r) for r in itertools.product(range(3), repeat=5)]
    plain = [chain.first[r[0]]*math.prod(chain.step[a, b] for a, b in zip(r, r[1:])) for r in rows.tolist()]
    np.testing.assert_allclose(p, plain, rtol=1e-12)
    assert abs(float(p.sum()) - 1) < 1e-12


exact = lambda p: torch.tensor(p, dtype=torch.double)
TYPED = Chain(exact([.6, .4]), exact([[.9, .1], [.3, .7]]), 3,  # starts unsettled
              exact([[.5, .5, 0, 0], [0, .25, .25, .5]]))


@pytest.mark.parametrize('chain', [hidden_markov(3, 2, 4, .5, .5, seed=1), hidden_markov(2, 3, 4, .1, .1, seed=2), TYPED],
                         ids=['more ids than states', 'more states than ids', 'impossible emissions'])
def test_hidden_chain_against_the_sum_over_all_paths(chain):
    V, L = chain.space.mask, chain.L
    x = torch.cartesian_prod(*[torch.arange(V+1)]*L)  # V is MASK: every pattern with every content
    contexts = [[None if c == V else c for c in row] for row in x.tolist()]
    plain = {tuple(c): over_states(chain, c) for c in contexts}
    with np.errstate(divide='ignore'): want = np.log([plain[tuple(c)] for c in contexts])
    np.testing.assert_allclose(chain.log_prob(x), want, rtol=1e-12, atol=1e-14)
    rows, p = chain.distribution()
    np.testing.assert_allclose(p, [plain[tuple(r)] for r in rows.tolist()], rtol=1e-12)
    assert abs(float(p.sum()) - 1) < 1e-12
    for c, got in zip(contexts, chain.logits(x).exp()):
        for i in range(L):
            q = [plain[(*c[:i], v, *c[i+1:])] for v in range(V)]
            if sum(q): np.testing.assert_allclose(got[i], [a/sum(q) for a in q] + [0, 0], rtol=1e-11)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 3), st.integers(1, 5), st.floats(.02, 2),
       st.floats(.02, 2), st.floats(.001, 1))
def test_hidden_posterior_leaves_one_out_and_never_says_mask_or_pad(seed, S, V, L, steps, emissions, mix):
    chain = hidden_markov(V, S, L, steps, emissions, mix, seed)
    rows, p = (a.tolist() for a in chain.distribution())
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(V+2, (3, L), generator=g)  # visible, hidden and PAD alike, likely or not
    other = torch.randint(V+2, (3, L), generator=g)
    got = chain.logits(x)
    assert (got[..., V:] == -torch.inf).all()
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(3, L).double(), rtol=0, atol=1e-12)
    for i in range(L):
        changed = torch.where(torch.arange(L) == i, other, x)
        torch.testing.assert_close(chain.logits(changed)[:, i], got[:, i], rtol=1e-12, atol=1e-12)
        for row, q in zip(x.tolist(), got[:, i].exp()):
            np.testing.assert_allclose(q[:V], posterior(rows, p, [c if c < V else None for c in row], i, V), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20), st.integers(1, 256), st.floats(.02, 5.))
def test_states_that_write_themselves_are_the_markov_chain(seed, V, L, concentration):
    "The chain's own formulas, and its own draws, number for number"
    chain, g, h = markov(V, L, concentration, seed), *(torch.Generator().manual_seed(seed) for _ in 'gh')
    def one(p): # (5,V) laws, by inverse CDF
        up = p.cumsum(1)
        return (up/up[:, -1:] <= torch.rand(5, 1, generator=h, dtype=torch.double)).sum(1)
    x = [one(chain.first.expand(5, -1))]
    for _ in range(L-1): x.append(one(chain.step[x[-1]]))
    assert torch.equal(chain.sample_exact(5, g), torch.stack(x, 1)) and torch.equal(g.get_state(), h.get_state())
    x = torch.randint(V, (5, L), generator=g)
    plain = chain.first.log()[x[:, 0]] + chain.step.log()[x[:, :-1], x[:, 1:]].sum(1)
    torch.testing.assert_close(chain.log_prob(x), plain, rtol=1e-12, atol=1e-12)
    ends = torch.ones(5, 1, V).double()  # all visible: only the two neighbours speak
    left = torch.cat([chain.first.expand(5, 1, -1), chain.step[x[:, :-1]]], 1)
    w = left*torch.cat([chain.step.T[x[:, 1:]], ends], 1)
    torch.testing.assert_close(chain.logits(x)[..., :V].exp(), w/w.sum(-1, keepdim=True), rtol=1e-12, atol=0)


def test_states_that_write_each_others_names_are_the_chain_renamed():
    chain, new = markov(5, 30, .3, seed=2), torch.tensor([3, 0, 4, 1, 2])
    renamed = Chain(chain.first, chain.step, 30, torch.eye(5)[new])
    g = torch.Generator().manual_seed(0)
    x = torch.randint(6, (9, 30), generator=g)
    y = torch.cat([new, torch.tensor([5])])[x]
    torch.testing.assert_close(renamed.log_prob(y), chain.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(renamed.logits(y)[..., new], chain.logits(x)[..., :5], rtol=1e-12, atol=1e-12)


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


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 9), st.integers(1, 40), st.floats(.02, 5.))
def test_revealing_one_by_one_in_any_order_gives_the_teachers_law(seed, S, V, L, concentration):
    teacher, order = hidden_markov(V, S, L, concentration, seed=seed), np.random.default_rng(seed).permutation(L)
    x = torch.randint(V, (4, L), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(chain_rule(teacher, x, order), teacher.log_prob(x), rtol=1e-9, atol=1e-9)


def test_and_at_the_length_of_a_text():
    teacher, order = hidden_markov(L=256), np.random.default_rng(0).permutation(256)
    x = teacher.sample_exact(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(chain_rule(teacher, x, order), teacher.log_prob(x), rtol=1e-10, atol=0)


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
        assert set(decode(world.data, world.names)) == {s for s in every if balanced(s)}


@pytest.mark.parametrize('world', [markov(4, 6, .5, 3), markov(3, 9, 1.), hidden_markov(L=20), sudoku(), brackets(10)],
                         ids=['chain', 'long chain', 'teacher', 'sudoku', 'brackets'])
def test_memory_and_company_do_not_change_a_row(world):
    g = torch.Generator().manual_seed(3)
    x = torch.where(torch.rand((50, world.space.L), generator=g) < .5, world.space.mask, world.sample_exact(50, g))
    whole = world.logits(x)
    torch.testing.assert_close(torch.cat([world.logits(r[None]) for r in x]), whole, rtol=1e-12, atol=1e-12)
    if isinstance(world, Enumerated): torch.testing.assert_close(world.logits(x, cells=1), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('chain', [markov(8, 400, .02, seed=1), hidden_markov(8, 40, 400, .02, .02, 1e-6, seed=1)],
                         ids=['visible', 'hidden'])
def test_long_sharp_chains_do_not_underflow(chain):
    x = torch.randint(9, (5, 400), generator=torch.Generator().manual_seed(0))  # contexts the chain would hardly give
    p = chain.logits(x).exp()
    assert p.isfinite().all() and chain.log_prob(x).isfinite().all()
    torch.testing.assert_close(p.sum(-1), torch.ones(5, 400).double())


@pytest.mark.parametrize('world', [markov(3, 4, 1.), hidden_markov(3, 4, 4, .5, .5, .3, seed=1), TYPED, sudoku(),
                                   brackets(8)], ids=['chain', 'teacher', 'typed', 'sudoku', 'brackets'])
def test_exact_samples_sit_on_the_floor_of_total_variation(world):
    n = 20_000
    rows, p = world.distribution()
    x = world.sample_exact(n, torch.Generator().manual_seed(5))
    floor = .5*float((2*p*(1-p)/(math.pi*n)).sqrt().sum())  # mean of |share - p| of a normal law
    assert .6*floor < tv_to_exact(world, x) < 1.4*floor
    assert tv_to_exact(world, rows[:1].expand(100, -1)) == pytest.approx(1 - float(p[0]))


@pytest.mark.parametrize('seed', range(3))
def test_hidden_samples_have_the_laws_frequencies(seed):
    teacher, n = hidden_markov(3, 5, 4, .1, .1, mix=.5, seed=seed), 50_000
    rows, p = teacher.distribution()
    x = teacher.sample_exact(n, torch.Generator().manual_seed(seed))
    counts = (x @ 3**torch.arange(3, -1, -1)).bincount(minlength=len(rows))
    assert (n*p).min() > 10 and chisquare(counts, n*p).pvalue > 1e-3


@pytest.mark.parametrize('chain', [markov(3, 5, .5, seed=3), TYPED, hidden_markov(3, 4, 5, seed=4)],
                         ids=['visible', 'typed', 'teacher'])
def test_ngrams_are_those_of_the_law(chain):
    rows, p = chain.distribution()
    for n in range(1, chain.L+1):
        want = torch.zeros((chain.space.mask,)*n).double()
        for i in range(chain.L-n+1): want.index_put_(tuple(rows[:, i:i+n].T), p/(chain.L-n+1), accumulate=True)
        torch.testing.assert_close(chain.ngram_law(n), want, rtol=1e-11, atol=1e-15)


def test_ngrams_of_a_long_sample_have_the_exact_law():
    teacher = hidden_markov(5, 12, 60, mix=.05, seed=5)
    x = teacher.sample_exact(2000, torch.Generator().manual_seed(0))
    triples = F.one_hot(x.unfold(1, 3, 1) @ torch.tensor([25, 5, 1]), 125).double().mean(1)  # shares, row by row
    law = teacher.ngram_law(3).flatten()
    z = ((triples.mean(0) - law)/(triples.std(0)/2000**.5))[law > 1e-3]
    assert len(z) > 40 and .7 < z.square().mean().sqrt() < 1.4 and z.abs().max() < 5


@pytest.mark.parametrize('chain', [markov(3, 6, .5, seed=3), markov(4, 1), Chain(TYPED.first, TYPED.step, 7)])
def test_entropy_of_a_visible_chain_is_exact(chain):
    want = float(torch.special.entr(chain.distribution()[1]).sum())/chain.L
    assert chain.entropy_rate() == (pytest.approx(want, rel=1e-12), 0)


def test_entropy_of_a_hidden_chain_lies_within_its_own_error():
    teacher, g = hidden_markov(3, 4, 5, .3, .3, mix=.1, seed=1), torch.Generator().manual_seed(0)
    exact = float(torch.special.entr(teacher.distribution()[1]).sum())/5
    z = torch.tensor([(mean - exact)/error for mean, error in (teacher.entropy_rate(200, g) for _ in range(200))])
    assert abs(z.mean()) < .3 and .8 < z.std() < 1.25


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 30), st.floats(.005, 5), st.floats(.005, 5),
       st.floats(1e-4, 1))
def test_no_teacher_is_caught_in_a_state_or_lacks_a_character(seed, S, V, steps, emissions, mix):
    t = hidden_markov(V, S, 9, steps, emissions, mix, seed)
    assert t.step.min() >= .99*mix/S and t.emit.min() >= .99*mix/V and t.first.min() >= .99*mix/S
    torch.testing.assert_close(t.first @ t.step, t.first, rtol=0, atol=1e-12)
    slow = torch.linalg.eigvals(t.step).abs().sort().values[:-1]  # all but the one of the stationary law
    assert (slow <= 1 - mix + 1e-6).all()


def test_a_teacher_is_its_seed():
    first, again, other = (torch.cat([t.step, t.emit], 1) for t in map(lambda s: hidden_markov(seed=s), (3, 3, 4)))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_total_variation_counts_impossible_rows():
    world = brackets(4)
    x = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert tv_to_exact(world, x) == pytest.approx(.5)
    assert world.log_prob(x).exp().tolist() == pytest.approx([.5, .5, 0, 0])


@pytest.mark.parametrize('bad,why', [
    (lambda: markov(concentration=0), 'must be positive'), (lambda: markov(8, 32).distribution(), 'too many to list'),
    (lambda: brackets(7), 'even number'), (lambda: brackets(40), 'even number'), (lambda: sudoku(eps=0), r'eps=0'),
    (lambda: Enumerated(torch.tensor([[0, 5]]), 'ab'), 'outside 0..1'),
    (lambda: Chain(torch.ones(2)/2, torch.eye(2), 4), 'must be positive and sum to one'),
    (lambda: Chain(torch.ones(2)/2, torch.ones(3, 3)/3, 4), 'need L >= 1'),
    (lambda: Chain(torch.ones(2)/2, torch.ones(2, 2)/2, 0), 'need L >= 1'),
    (lambda: Chain(torch.ones(2)/2, torch.ones(2, 2)/2, 4, torch.ones(3, 2)/2), 'each of the 2 states'),
    (lambda: Chain(torch.ones(2)/2, torch.ones(2, 2)/2, 4, torch.ones(2, 2)), 'sum to one'),
    (lambda: Chain(torch.ones(2)/2, torch.ones(2, 2)/2, 4, torch.tensor([[1.5, -.5], [.5, .5]])), 'sum to one'),
    (lambda: Chain(torch.ones(2)/2, torch.ones(2, 2)/2, 4, torch.tensor([[1., 0], [1, 0]])), 'every id to some state'),
    (lambda: Chain(torch.ones(2)/2, torch.ones(2, 2)/2, 4, torch.full((2, 2), torch.nan)), 'sum to one'),
    (lambda: hidden_markov(emissions=0), 'must be positive'), (lambda: hidden_markov(mix=1.1), 'mix=1.1'),
    (lambda: hidden_markov(S=0), 'S=0'), (lambda: hidden_markov().entropy_rate(1), 'at least 2'),
    (lambda: hidden_markov().ngram_law(0), 'between 1 and'), (lambda: markov(2, 3).ngram_law(4), 'the 3 positions'),
    (lambda: hidden_markov(101).ngram_law(3), 'take a smaller n')])
def test_bad_worlds_are_refused_with_the_reason(bad, why):
    with pytest.raises(ValueError, match=why): bad()
