"Exactly solvable models: posteriors against plain enumeration, distributions against the chain rule."
import itertools, math
import numpy as np, pytest, torch, torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare
from remask.core.exact import Chain, Enumerated, brackets, decode, hidden_markov, markov, sudoku, tv_to_exact


CLOSE = dict(rtol=1e-12, atol=1e-12)


def allowing_mask(V, L):
    "Every row of V clean ids and MASK, which is V: every pattern with every content"
    return torch.cartesian_prod(*[torch.arange(V+1)]*L)


def context_of(row, V):
    "The ids of a row, None where it is masked"
    return [c if c < V else None for c in row]


def contradictions(context, row, i):
    "How many unmasked tokens of `context`, but for position i, the row contradicts"
    given = [(c, r) for j, (c, r) in enumerate(zip(context, row)) if c is not None and j != i]
    return sum(c != r for c, r in given)


def normalised(p):
    total = sum(p)
    return [q/total for q in p] if total else None


def posterior(rows, weight, context, i, V):
    "Plain p(x_i | the other tokens of `context`), None where no row is left; masked tokens are None"
    p = [0.]*V
    for row, w in zip(rows, weight):
        if not contradictions(context, row, i): p[row[i]] += w
    return normalised(p)


def over_states(chain, row):
    "Plain p(row): the sum over every path of states; None in a row fits every character"
    first, step, emit = chain.first.tolist(), chain.step.tolist(), chain.emit.tolist()
    total = 0.
    for path in itertools.product(range(len(first)), repeat=len(row)):
        steps = math.prod(step[a][b] for a, b in zip(path, path[1:]))
        emissions = math.prod(emit[s][c] for s, c in zip(path, row) if c is not None)
        total += first[path[0]]*steps*emissions
    return total


def softened(rows, context, i, V, eps):
    "The same with a factor eps for each contradiction"
    p = [0.]*V
    for row in rows: p[row[i]] += eps**contradictions(context, row, i)
    return normalised(p)


@pytest.mark.parametrize('concentration,seed', [(.1, 0), (.5, 1), (3., 2)])
def test_chain_posterior_for_every_mask_pattern_and_every_content(concentration, seed):
    V, L = 3, 4
    chain = markov(V, L, concentration, seed)
    rows, p = chain.distribution()
    x = allowing_mask(V, L)
    rows, p = rows.tolist(), p.tolist()
    got = chain.logits(x).exp()
    assert got.shape == (256, L, V+2) and got.dtype == torch.float64
    assert (got[..., V:] == 0).all()
    for row, g in zip(x.tolist(), got):
        context = context_of(row, V)
        for i in range(L):
            np.testing.assert_allclose(g[i, :V], posterior(rows, p, context, i, V), rtol=1e-9)


def test_chain_distribution_is_a_product_of_transitions():
    chain = markov(3, 5, .7, seed=4)
    rows, p = chain.distribution()
    assert rows.tolist() == [list(r) for r in itertools.product(range(3), repeat=5)]
    def plain(r): return chain.first[r[0]]*math.prod(chain.step[a, b] for a, b in zip(r, r[1:]))
    np.testing.assert_allclose(p, [plain(r) for r in rows.tolist()], rtol=1e-12)
    assert abs(float(p.sum()) - 1) < 1e-12


def double(p): return torch.tensor(p, dtype=torch.double)


TYPED_STEP, TYPED_EMIT = double([[.9, .1], [.3, .7]]), double([[.5, .5, 0, 0], [0, .25, .25, .5]])
TYPED = Chain(double([.6, .4]), TYPED_STEP, 3, TYPED_EMIT)  # does not start in its stationary distribution
HMM = {'more ids than states': hidden_markov(3, 2, 4, .5, .5, seed=1),
       'more states than ids': hidden_markov(2, 3, 4, .1, .1, seed=2), 'impossible emissions': TYPED}


@pytest.mark.parametrize('chain', HMM.values(), ids=HMM)
def test_hidden_markov_chain_against_the_sum_over_all_paths(chain):
    V, L = chain.space.mask, chain.L
    x = allowing_mask(V, L)
    contexts = [context_of(row, V) for row in x.tolist()]
    plain = {tuple(c): over_states(chain, c) for c in contexts}
    with np.errstate(divide='ignore'): want = np.log([plain[tuple(c)] for c in contexts])
    np.testing.assert_allclose(chain.log_prob(x), want, rtol=1e-12, atol=1e-14)
    rows, p = chain.distribution()
    np.testing.assert_allclose(p, [plain[tuple(r)] for r in rows.tolist()], rtol=1e-12)
    assert abs(float(p.sum()) - 1) < 1e-12
    for c, got in zip(contexts, chain.logits(x).exp()):
        for i in range(L):
            q = normalised([plain[(*c[:i], v, *c[i+1:])] for v in range(V)])
            if q: np.testing.assert_allclose(got[i], q + [0, 0], rtol=1e-11)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 3), st.integers(1, 5), st.floats(.02, 2),
       st.floats(.02, 2), st.floats(.001, 1))
def test_hidden_markov_posterior_is_leave_one_out_without_mask_and_pad(seed, S, V, L, steps, emissions, mix):
    chain = hidden_markov(V, S, L, steps, emissions, mix, seed)
    rows, p = (a.tolist() for a in chain.distribution())
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(V+2, (3, L), generator=g)  # unmasked, masked and PAD alike, likely or not
    other = torch.randint(V+2, (3, L), generator=g)
    got = chain.logits(x)
    contexts = [context_of(row, V) for row in x.tolist()]
    assert (got[..., V:] == -torch.inf).all()
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(3, L).double(), rtol=0, atol=1e-12)
    for i in range(L):
        changed = torch.where(torch.arange(L) == i, other, x)
        torch.testing.assert_close(chain.logits(changed)[:, i], got[:, i], **CLOSE)
        for context, q in zip(contexts, got[:, i].exp()):
            np.testing.assert_allclose(q[:V], posterior(rows, p, context, i, V), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20), st.integers(1, 256), st.floats(.02, 5.))
def test_states_that_emit_themselves_are_the_markov_chain(seed, V, L, concentration):
    "The chain's own formulas, and its own draws, number for number"
    chain = markov(V, L, concentration, seed)
    g, h = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    def one(p): # (5,V) distributions, by inverse CDF
        up = p.cumsum(1)
        u = torch.rand(5, 1, generator=h, dtype=torch.double)
        return (up/up[:, -1:] <= u).sum(1)
    x = [one(chain.first.expand(5, -1))]
    for _ in range(L-1): x.append(one(chain.step[x[-1]]))
    assert torch.equal(chain.sample_exact(5, g), torch.stack(x, 1))
    assert torch.equal(g.get_state(), h.get_state())
    x = torch.randint(V, (5, L), generator=g)
    first = chain.first.log()[x[:, 0]]
    steps = chain.step.log()[x[:, :-1], x[:, 1:]]
    torch.testing.assert_close(chain.log_prob(x), first + steps.sum(1), **CLOSE)
    start = chain.first.expand(5, 1, -1)
    end = torch.ones(5, 1, V).double()
    # all tokens are unmasked: only the two neighbours count
    left = torch.cat([start, chain.step[x[:, :-1]]], 1)
    right = torch.cat([chain.step.T[x[:, 1:]], end], 1)
    w = left*right
    want = w/w.sum(-1, keepdim=True)
    torch.testing.assert_close(chain.logits(x)[..., :V].exp(), want, rtol=1e-12, atol=0)


def test_states_that_emit_each_others_ids_are_the_chain_renamed():
    chain, new = markov(5, 30, .3, seed=2), torch.tensor([3, 0, 4, 1, 2])
    renamed = Chain(chain.first, chain.step, 30, torch.eye(5)[new])
    g = torch.Generator().manual_seed(0)
    x = torch.randint(6, (9, 30), generator=g)
    y = torch.cat([new, torch.tensor([5])])[x]
    torch.testing.assert_close(renamed.log_prob(y), chain.log_prob(x), **CLOSE)
    torch.testing.assert_close(renamed.logits(y)[..., new], chain.logits(x)[..., :5], **CLOSE)


def chain_rule(model, x, order):
    "log p of the rows x, unmasked one by one in the given order by the exact denoiser"
    x_t, total = torch.full_like(x, model.space.mask), 0.
    for i in order:
        log_p = model.logits(x_t)[:, i]
        total = total + log_p.gather(-1, x[:, i:i+1])[:, 0]
        x_t[:, i] = x[:, i]
    return total


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(.02, 5.), st.integers(2, 6), st.integers(1, 40))
def test_unmasking_one_by_one_in_any_order_gives_the_chains_distribution(seed, concentration, V, L):
    chain = markov(V, L, concentration, seed)
    order = np.random.default_rng(seed).permutation(L)
    x = torch.randint(V, (7, L), generator=torch.Generator().manual_seed(seed))  # unlikely rows, too
    torch.testing.assert_close(chain_rule(chain, x, order), chain.log_prob(x), rtol=1e-9, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 9), st.integers(1, 40), st.floats(.02, 5.))
def test_unmasking_one_by_one_in_any_order_gives_the_teachers_distribution(seed, S, V, L, concentration):
    teacher = hidden_markov(V, S, L, concentration, seed=seed)
    order = np.random.default_rng(seed).permutation(L)
    x = torch.randint(V, (4, L), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(chain_rule(teacher, x, order), teacher.log_prob(x), rtol=1e-9, atol=1e-9)


def test_the_chain_rule_holds_at_the_length_of_a_text():
    teacher, order = hidden_markov(L=256), np.random.default_rng(0).permutation(256)
    x = teacher.sample_exact(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(chain_rule(teacher, x, order), teacher.log_prob(x), rtol=1e-10, atol=0)


LISTED = dict(brackets8=brackets(8), brackets12=brackets(12), sudoku=sudoku())


@pytest.mark.parametrize('model', LISTED.values(), ids=LISTED)
def test_unmasking_one_by_one_in_any_order_gives_the_lists_distribution(model):
    want = model.log_prob(model.data)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(model.space.L)
        torch.testing.assert_close(chain_rule(model, model.data, order), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize('eps', [1e-8, 1e-3, .1, 1.])
@pytest.mark.parametrize('make', [sudoku, lambda eps: brackets(8, eps)], ids=['sudoku', 'brackets'])
def test_enumerated_posterior_against_plain_counting(make, eps):
    model = make(eps)
    V, L, rows = len(model.names), model.space.L, model.data.tolist()
    g = torch.Generator().manual_seed(1)
    x = model.sample_exact(12, g)
    share = torch.linspace(0, .5, 12)[:, None]  # from consistent to hopeless
    wrong = torch.rand(x.shape, generator=g) < share
    x = torch.where(wrong, torch.randint(V, x.shape, generator=g), x)
    x = torch.where(torch.rand(x.shape, generator=g) < .5, model.space.mask, x)
    got = model.logits(x).exp()
    assert (got[..., V:] == 0).all()
    for row, p in zip(x.tolist(), got):
        context = context_of(row, V)
        for i in range(L):
            np.testing.assert_allclose(p[i, :V], softened(rows, context, i, V, eps), rtol=1e-7, atol=1e-15)


def test_with_a_small_eps_a_consistent_context_has_the_hard_posterior():
    model = sudoku()
    g = torch.Generator().manual_seed(2)
    x = model.sample_exact(20, g)
    x = torch.where(torch.rand(x.shape, generator=g) < .7, model.space.mask, x)
    rows = model.data.tolist()
    for row, p in zip(x.tolist(), model.logits(x).exp()):
        context = context_of(row, 4)
        for i in range(16):
            np.testing.assert_allclose(p[i, :4], posterior(rows, [1]*288, context, i, 4), atol=1e-4)


def test_the_grids_are_the_sudoku_grids():
    def good(g):
        rows = [g[4*r:4*r+4] for r in range(4)]
        columns = [list(c) for c in zip(*rows)]
        corners = [(0, 0), (0, 2), (2, 0), (2, 2)]
        boxes = [rows[r][c:c+2] + rows[r+1][c:c+2] for r, c in corners]
        return all(sorted(q) == [0, 1, 2, 3] for q in rows + columns + boxes)
    data = sudoku().data.tolist()
    assert len(set(map(tuple, data))) == 288 and all(map(good, data))


def test_brackets_are_the_balanced_strings():
    def balanced(s):
        while '()' in s: s = s.replace('()', '')
        return s == ''
    for L in (2, 6, 10):
        every = {''.join(s) for s in itertools.product('()', repeat=L)}
        model = brackets(L)
        assert set(decode(model.data, model.names)) == {s for s in every if balanced(s)}


MODELS = {'chain': markov(4, 6, .5, 3), 'long chain': markov(3, 9, 1.), 'teacher': hidden_markov(L=20),
          'sudoku': sudoku(), 'brackets': brackets(10)}


@pytest.mark.parametrize('model', MODELS.values(), ids=MODELS)
def test_the_memory_bound_and_the_other_rows_do_not_change_a_row(model):
    g = torch.Generator().manual_seed(3)
    masked = torch.rand((50, model.space.L), generator=g) < .5
    x = torch.where(masked, model.space.mask, model.sample_exact(50, g))
    whole = model.logits(x)
    torch.testing.assert_close(torch.cat([model.logits(r[None]) for r in x]), whole, **CLOSE)
    if isinstance(model, Enumerated): torch.testing.assert_close(model.logits(x, cells=1), whole, **CLOSE)


LONG = {'own ids': markov(8, 400, .02, seed=1),
        'latent states': hidden_markov(8, 40, 400, .02, .02, 1e-6, seed=1)}


@pytest.mark.parametrize('chain', LONG.values(), ids=LONG)
def test_long_sharp_chains_do_not_underflow(chain):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(9, (5, 400), generator=g)  # contexts that the chain would hardly give
    p = chain.logits(x).exp()
    assert p.isfinite().all() and chain.log_prob(x).isfinite().all()
    torch.testing.assert_close(p.sum(-1), torch.ones(5, 400).double())


SMALL = {'chain': markov(3, 4, 1.), 'teacher': hidden_markov(3, 4, 4, .5, .5, .3, seed=1), 'typed': TYPED,
         'sudoku': sudoku(), 'brackets': brackets(8)}


@pytest.mark.parametrize('model', SMALL.values(), ids=SMALL)
def test_exact_samples_score_the_expected_total_variation(model):
    n = 20_000
    rows, p = model.distribution()
    x = model.sample_exact(n, torch.Generator().manual_seed(5))
    deviation = (2*p*(1-p)/(math.pi*n)).sqrt()  # mean of |share - p| of a normal distribution
    expected = .5*float(deviation.sum())
    assert .6*expected < tv_to_exact(model, x) < 1.4*expected
    assert tv_to_exact(model, rows[:1].expand(100, -1)) == pytest.approx(1 - float(p[0]))


@pytest.mark.parametrize('seed', range(3))
def test_hidden_markov_samples_have_the_exact_frequencies(seed):
    teacher, n = hidden_markov(3, 5, 4, .1, .1, mix=.5, seed=seed), 50_000
    rows, p = teacher.distribution()
    x = teacher.sample_exact(n, torch.Generator().manual_seed(seed))
    counts = (x @ 3**torch.arange(3, -1, -1)).bincount(minlength=len(rows))
    assert (n*p).min() > 10 and chisquare(counts, n*p).pvalue > 1e-3


CHAINS = {'own ids': markov(3, 5, .5, seed=3), 'typed': TYPED, 'teacher': hidden_markov(3, 4, 5, seed=4)}


@pytest.mark.parametrize('chain', CHAINS.values(), ids=CHAINS)
def test_ngrams_are_those_of_the_distribution(chain):
    rows, p = chain.distribution()
    for n in range(1, chain.L+1):
        places = chain.L-n+1
        want = torch.zeros((chain.space.mask,)*n).double()
        for i in range(places): want.index_put_(tuple(rows[:, i:i+n].T), p/places, accumulate=True)
        torch.testing.assert_close(chain.ngram_distribution(n), want, rtol=1e-11, atol=1e-15)


def test_ngrams_of_a_long_sample_have_the_exact_distribution():
    teacher = hidden_markov(5, 12, 60, mix=.05, seed=5)
    x = teacher.sample_exact(2000, torch.Generator().manual_seed(0))
    triples = x.unfold(1, 3, 1) @ torch.tensor([25, 5, 1])
    shares = F.one_hot(triples, 125).double().mean(1)  # row by row
    p = teacher.ngram_distribution(3).flatten()
    error = shares.std(0)/2000**.5
    z = ((shares.mean(0) - p)/error)[p > 1e-3]
    assert len(z) > 40 and .7 < z.square().mean().sqrt() < 1.4 and z.abs().max() < 5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 30), st.floats(.005, 5), st.floats(.005, 5),
       st.floats(1e-4, 1))
def test_no_state_of_a_teacher_is_absorbing_and_no_character_is_impossible(seed, S, V, steps, emissions, mix):
    t = hidden_markov(V, S, 9, steps, emissions, mix, seed)
    assert t.emit.min() >= .99*mix/V
    assert min(t.step.min(), t.first.min()) >= .99*mix/S
    torch.testing.assert_close(t.first @ t.step, t.first, rtol=0, atol=1e-12)
    rates = torch.linalg.eigvals(t.step).abs().sort().values
    assert (rates[:-1] <= 1 - mix + 1e-6).all()


def test_a_seed_determines_the_teacher():
    first, again, other = hidden_markov(seed=3), hidden_markov(seed=3), hidden_markov(seed=4)
    assert torch.equal(first.step, again.step) and torch.equal(first.emit, again.emit)
    assert not torch.equal(first.step, other.step)


def test_total_variation_counts_impossible_rows():
    model = brackets(4)
    x = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert tv_to_exact(model, x) == pytest.approx(.5)
    assert model.log_prob(x).exp().tolist() == pytest.approx([.5, .5, 0, 0])


HALF, EVEN = torch.ones(2)/2, torch.ones(2, 2)/2


@pytest.mark.parametrize('emit,why', [
    (torch.ones(3, 2)/2, 'each of the 2 states'), (torch.ones(2, 2), 'sum to one'),
    (torch.tensor([[1.5, -.5], [.5, .5]]), 'sum to one'), (torch.full((2, 2), torch.nan), 'sum to one'),
    (torch.tensor([[1., 0], [1, 0]]), 'every id to some state')])
def test_impossible_emissions_are_refused_with_the_reason(emit, why):
    with pytest.raises(ValueError, match=why): Chain(HALF, EVEN, 4, emit)


@pytest.mark.parametrize('make,arguments,why', [
    (markov, dict(concentration=0), 'must be positive'), (sudoku, dict(eps=0), 'eps=0'),
    (brackets, dict(L=7), 'even number'), (brackets, dict(L=40), 'even number'),
    (Enumerated, dict(data=torch.tensor([[0, 5]]), names='ab'), 'outside 0..1'),
    (Chain, dict(first=HALF, step=torch.eye(2), L=4), 'must be positive and sum to one'),
    (Chain, dict(first=HALF, step=torch.ones(3, 3)/3, L=4), 'need L >= 1'),
    (Chain, dict(first=HALF, step=EVEN, L=0), 'need L >= 1'),
    (hidden_markov, dict(emissions=0), 'must be positive'), (hidden_markov, dict(mix=1.1), 'mix=1.1'),
    (hidden_markov, dict(S=0), 'S=0'),
    (markov(8, 32).distribution, {}, 'too many to list'),
    (hidden_markov().ngram_distribution, dict(n=0), 'between 1 and'),
    (markov(2, 3).ngram_distribution, dict(n=4), 'the 3 positions'),
    (hidden_markov(101).ngram_distribution, dict(n=3), 'take a smaller n')])
def test_bad_arguments_are_refused_with_the_reason(make, arguments, why):
    with pytest.raises(ValueError, match=why): make(**arguments)
