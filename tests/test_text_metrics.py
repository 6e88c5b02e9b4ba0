"""Every text metric against a second implementation in plain python; invariances; bad input."""
import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from helpers import refusal
from sklearn.metrics import roc_auc_score

from remask.evaluate import text_metrics as tm
from remask.core.denoiser import Denoised
from remask.core.files import save_net, save_tensors
from remask.core.forward import shifted
from remask.evaluate.text_metrics import Judge, judged_by, load_judge
from remask.core.tokens import TokenSpace
from remask.core.train import Recipe, fit
from remask.core.exact import Chain, markov


def some(seed, N=30, L=40, V=5):
    "Rows of few letters with long copies inside, and their real positions; some rows are empty"
    rng = np.random.default_rng(seed)
    x = rng.integers(0, V, (N, L))
    for r in x[::3]: r[20:32] = r[5:17]
    for r in x[1::3]: r[10:25] = r[10]
    n = np.where(rng.random(N) < .1, 0, rng.integers(1, L + 1, N))
    return x, np.arange(L) < n[:, None]


def rowlists(x, real): return [[int(a) for a, r in zip(*row) if r] for row in zip(x, real)]
def grams(row, n): return [tuple(row[i:i+n]) for i in range(len(row) - n + 1)]


def draw(model, n, seed):
    "Draw exact rows with a generator of their own"
    return model.sample_exact(n, torch.Generator().manual_seed(seed))


# ---- a second implementation, row by row

def entropy(v):
    shares = [c/len(v) for c in Counter(v).values()]
    return -sum(p*math.log(p) for p in shares)


def kl(p, q): return sum(v*math.log(v/q[k]) for k, v in p.items() if v)


def normalised(p, keys):
    total = sum(p.values())
    return {k: p.get(k, 0)/total for k in keys}


def js(p, q):
    keys = {*p, *q}
    p, q = normalised(p, keys), normalised(q, keys)
    m = {k: (p[k] + q[k])/2 for k in keys}
    return (kl(p, m) + kl(q, m))/2


def distinct_share(rows, n):
    every = [g for r in rows for g in grams(r, n)]
    return len(set(every))/len(every)


def copied(row, n):
    seen, hit = set(), set()
    for i, g in enumerate(grams(row, n)):
        if g in seen: hit |= set(range(i, i + n))
        seen.add(g)
    return len(hit)


def copied_share(rows, n): return sum(copied(r, n) for r in rows)/sum(map(len, rows))


def expected_precision(score, wrong, k):
    "Mean over all sets of k positions that ranking could return"
    k = min(k, len(score))
    if not k: return None
    worst = sorted(score)[:k]
    sets = combinations(range(len(score)), k)
    among = [s for s in sets if sorted(score[i] for i in s) == worst]
    return np.mean([sum(wrong[i] for i in s)/k for s in among])


def chain_grams(chain, n):
    "By summing over every row there is"
    out = Counter()
    for row, p in zip(*(v.tolist() for v in chain.distribution())):
        for g in grams(row, n): out[g] += p/(chain.L - n + 1)
    return out


def ngram_table(chain, n):
    "The same as an array over n ids"
    out = np.zeros((len(chain.first),)*n)
    for g, p in chain_grams(chain, n).items(): out[g] = p
    return out


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('whole', [True, False])
def test_everything_about_one_sample_is_what_counting_by_hand_gives(seed, whole):
    x, real = some(seed)
    if whole: real = np.ones_like(real)
    rows, flags = rowlists(x, real), None if whole else real
    for n in (1, 2, 3, 4, 9):
        assert tm.distinct(x, n, flags) == distinct_share(rows, n)
        assert tm.repeats(x, n, flags) == copied_share(rows, n)
    for n in (1, 2, 3, 4):
        table = tm.ngram_counts(x, n, 5, flags)
        counts = Counter(g for r in rows for g in grams(r, n))
        assert table.sum() == counts.total()
        assert all(table[g] == c for g, c in counts.items())
    assert math.isclose(tm.token_entropy(x, flags), np.mean([entropy(r) for r in rows if r]))


@pytest.mark.parametrize('n', [8, 10, 12, 30])
def test_long_ngrams_over_many_ids_do_not_overflow(n):
    rng = np.random.default_rng(n)
    x = rng.integers(0, 50_000, (20, 60))
    x[:, 25:40] = x[:, 5:20]
    x[::2, 40:60] = x[1::2, 40:60]
    assert tm.distinct(x, n) == distinct_share(x.tolist(), n)
    assert tm.repeats(x, n) == copied_share(x.tolist(), n)


@pytest.mark.parametrize('seed', range(4))
def test_ids_at_positions_that_are_not_real_change_nothing(seed):
    x, real = some(seed)
    teacher, flags = markov(5, 40), torch.from_numpy(real)
    def ragged_log_prob(x):
        steps = teacher.step.log()[x[:, :-1] % 5, x[:, 1:] % 5]
        return (steps*flags[:, 1:]).sum(1)
    def sure(x, t, real):
        logits = torch.arange(40.)[:, None]*torch.eye(78)[0]
        return Denoised(logits + 0*x[..., None])
    ngrams = {n: teacher.ngram_distribution(n) for n in (1, 2)}
    ref = tm.TextReference(5, ngrams, ragged_log_prob)
    other = np.where(real, x, 77)
    assert tm.evaluate_text(x, ref, real=real) == tm.evaluate_text(other, ref, real=flags)
    m = tm.evaluate_text(other, ref, sure, real)
    nll = tm.exact_nll(ragged_log_prob, x, real)
    assert (m['quality/nll'], m['quality/nll_se']) == nll != tm.exact_nll(ragged_log_prob, x)
    assert m['self/confidence'] == tm.self_confidence(sure, torch.from_numpy(other), flags)
    with pytest.raises(ValueError, match=r"id 77 at \(row, position\) .* clean ids are 0\.\.4"):
        tm.evaluate_text(other, ref)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=12))
def test_divergence_is_symmetric_within_0_and_ln2_and_0_for_equal_distributions_only(pairs):
    p, q = np.array(pairs).T
    if not (p.any() and q.any()):
        with pytest.raises(ValueError, match='not all zero'): tm.ngram_js(p, q)
        return
    d = tm.ngram_js(p, q)
    assert 0 <= d <= math.log(2)
    assert math.isclose(d, tm.ngram_js(q, p), abs_tol=1e-12)
    by_hand = js(dict(enumerate(p.tolist())), dict(enumerate(q.tolist())))
    assert math.isclose(d, max(by_hand, 0), abs_tol=1e-12)
    assert (d < 1e-9) == (p*q.sum() == q*p.sum()).all()
    assert math.isclose(tm.ngram_js(7*p, q/3), d, abs_tol=1e-12)
    if not (p*q).any(): assert math.isclose(d, math.log(2))


@pytest.mark.parametrize('n', [1, 2, 3])
def test_divergence_from_the_exact_distribution_falls_at_the_rate_of_the_held_out_reference(n):
    teacher, other = markov(V=3, L=6, seed=1), markov(V=3, L=6, seed=2)
    exact = ngram_table(teacher, n)
    def divergence(model, N, seed):
        counts = tm.ngram_counts(draw(model, N, seed), n, 3)
        return tm.ngram_js(counts, exact)
    few, many = (np.mean([divergence(teacher, N, s) for s in range(20)]) for N in (50, 2000))
    assert 20 < few/many < 80   # 40 times as many rows
    apart = divergence(other, 20000, 0)
    assert abs(apart - tm.ngram_js(ngram_table(other, n), exact)) < .01
    assert apart > 10*many


def test_two_samples_of_independent_letters_differ_by_the_bias_that_the_notebook_quotes():
    rng = np.random.default_rng(0)
    K, m = 64, 5000
    uniform = np.full(K, 1/K)
    two = [tm.ngram_js(*rng.multinomial(m, uniform, 2)) for _ in range(50)]
    one = [tm.ngram_js(rng.multinomial(m, uniform), np.ones(K)) for _ in range(50)]
    bias = (K - 1)/m
    assert .8 < np.mean(one)/(bias/8) < 1.25
    assert .8 < np.mean(two)/(bias/4) < 1.25


def test_nll_is_the_entropy_of_the_teacher_for_its_own_rows_and_its_standard_error_is_right():
    teacher = markov(V=3, L=6, seed=4)
    rows, p = teacher.distribution()
    exact = float(-(p*p.log()).sum()/6)
    got = [tm.exact_nll(teacher.log_prob, draw(teacher, 300, s)) for s in range(60)]
    means, errors = np.array(got).T
    assert abs(means.mean() - exact) < 4*means.std()/60**.5
    assert .75 < errors.mean()/means.std(ddof=1) < 1.33
    inside = abs(means - exact) < 1.96*errors
    assert inside.mean() > .85


def constant_log_prob(*values): return lambda x: torch.tensor(values)


def test_nll_of_rows_of_unequal_length_is_per_character():
    real = [[1, 1, 0, 0], [1, 1, 1, 0]]
    mean, se = tm.exact_nll(constant_log_prob(-2., -9.), np.zeros((2, 4), int), real)
    assert math.isclose(mean, 11/5)
    rest = np.array([2 - 2*11/5, 9 - 3*11/5])
    assert math.isclose(se, rest.std(ddof=1)/2.5/2**.5)
    mean, se = tm.exact_nll(constant_log_prob(-1.), [[0, 1]])
    assert math.isnan(se)


def test_nll_of_an_impossible_row_is_infinite():
    mean, se = tm.exact_nll(constant_log_prob(-1., -math.inf), [[0, 1], [1, 1]])
    assert mean == math.inf


@pytest.mark.parametrize('batch', [1, 7, 256])
def test_self_confidence_is_the_mean_over_real_positions_whatever_the_batch(batch):
    x, real = some(3)
    x = np.where(real, x, 6)   # PAD
    table = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    table[:, 5] = -torch.inf
    times, sizes = [], []
    def denoise(x, t, real):
        times.append(t)
        sizes.append(len(x))
        ids = x[..., None]
        logits = table + ids.float()*real[..., None]
        return Denoised(logits.masked_fill(ids == 6, 0.))
    got = tm.self_confidence(denoise, torch.from_numpy(x), torch.from_numpy(real), batch)
    want = []
    for row, on in zip(x, real):
        for i in on.nonzero()[0]:
            z = table[i].double().exp()
            want.append(math.log(z[row[i]]/z.sum()))
    assert math.isclose(got, np.mean(want), rel_tol=1e-6)
    assert times == [0.]*len(times)
    assert sum(sizes) == len(x) and max(sizes) <= batch


def test_self_confidence_rewards_copying_as_the_published_number_does():
    def copy_input(x, t, real): return Denoised(torch.nn.functional.one_hot(x, 9).float()*20)
    for x in (torch.randint(9, (4, 30)), torch.zeros(4, 30).long()):
        assert tm.self_confidence(copy_input, x) > -1e-6


@st.composite
def scored(draw):
    "Scores, which positions are wrong, and which positions count"
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 7)))
    score = arrays(np.int64, shape, elements=st.integers(0, 3))
    return draw(st.tuples(score, arrays(bool, shape), arrays(bool, shape)))


@settings(deadline=None)
@given(scored())
def test_area_is_the_share_of_pairs_in_order_and_what_scikit_learn_gives(given):
    score, wrong, among = given
    y, s = wrong[among], score[among]
    if y.all() or not y.any():
        with pytest.raises(ValueError, match='both wrong and right'): tm.roc_auc(score, wrong, among)
        return
    def in_order(a, b): return (a < b) + (a == b)/2
    share = np.mean([in_order(a, b) for a, b in product(s[y], s[~y])])
    assert math.isclose(tm.roc_auc(score, wrong, among), share, abs_tol=1e-12)
    assert math.isclose(tm.roc_auc(score, wrong, among), roc_auc_score(y, -s), abs_tol=1e-12)
    assert math.isclose(tm.roc_auc(-score, wrong, among), 1 - share, abs_tol=1e-12)


@settings(deadline=None)
@given(scored(), st.integers(1, 9))
def test_precision_shares_ties_as_breaking_them_at_random_would(given, k):
    score, wrong, among = given
    got = tm.precision_at(score, wrong, k, among)
    for g, s, w, on in zip(got, score, wrong, among):
        want = expected_precision(s[on].tolist(), w[on].tolist(), k)
        assert math.isnan(g) if want is None else math.isclose(g, want, abs_tol=1e-12)


def test_precision_may_read_another_number_of_positions_in_each_row():
    score = np.arange(8.).reshape(2, 4)
    wrong = np.array([[1, 0, 1, 1], [0, 1, 1, 0]], bool)
    assert tm.precision_at(score, wrong, torch.tensor([1, 3])).tolist() == [1, 2/3]
    assert tm.precision_at(torch.tensor(score), torch.tensor(wrong), wrong.sum(1)).tolist() == [2/3, .5]


def test_detection_is_area_and_precision_with_intervals_over_resampled_rows():
    rng = np.random.default_rng(1)
    wrong = rng.random((60, 30)) < .2
    among = rng.random((60, 30)) < .8
    score = rng.normal(size=(60, 30)).round(1) - wrong
    d = tm.detection(score, wrong, among, k=5, n=300, seed=3)
    assert d['auc'] == tm.roc_auc(score, wrong, among)
    assert math.isclose(d['precision'], tm.precision_at(score, wrong, 5, among).mean())
    assert math.isclose(d['wrong'], wrong[among].mean())
    W = np.random.default_rng(3).multinomial(60, np.full(60, 1/60), 300)
    areas, shares = [], []
    for counts in W:
        rows = np.repeat(np.arange(60), counts)
        s, w, use = score[rows], wrong[rows], among[rows]
        areas.append(roc_auc_score(w[use], -s[use]))
        shares.append(tm.precision_at(s, w, 5, use).mean())
    assert np.allclose([d['auc_low'], d['auc_high']], np.percentile(areas, [2.5, 97.5]))
    assert np.allclose([d['precision_low'], d['precision_high']], np.percentile(shares, [2.5, 97.5]))
    tensors = [torch.tensor(v) for v in (score, wrong, among)]
    assert d == tm.detection(*tensors, k=5, n=300, seed=3)


def test_intervals_cover_the_exact_area_as_often_as_they_claim():
    exact = .5*(1 + math.erf(1/2))   # two normals one apart
    hits = 0
    for s in range(80):
        rng = np.random.default_rng(s)
        wrong = rng.random((50, 20)) < .3
        d = tm.detection(rng.normal(size=wrong.shape) - wrong, wrong, k=4, n=100, seed=s)
        hits += d['auc_low'] < exact < d['auc_high']
    assert hits > 67   # .95 expected; 67 of 80 is 4 standard deviations below


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=8))
def test_kendall_counts_pairs_in_order(pairs):
    a, b = np.array(pairs).T
    def signs(v): return np.array([np.sign(y - x) for x, y in combinations(v, 2)])
    in_a, in_b = signs(a), signs(b)
    agreement, untied = in_a @ in_b, (in_a @ in_a)*(in_b @ in_b)
    got = tm.kendall(a.tolist(), b.tolist())
    if untied: assert math.isclose(got, agreement/math.sqrt(untied), abs_tol=1e-9)
    else: assert math.isnan(got)


def test_stability_of_a_good_a_noisy_and_a_constant_evaluation():
    rng, truth = np.random.default_rng(0), np.arange(4.)
    def evaluation(noise): return truth[:, None] + noise*rng.normal(size=(4, 200))
    good = tm.stability(evaluation(.1), truth)
    noisy = tm.stability(evaluation(2), truth)
    constant = tm.stability(np.ones((4, 200)), truth)
    assert good['kendall'] > .99 > noisy['kendall'] > 0 == constant['kendall']
    assert good['best'] > .99 > noisy['best'] > .25 == constant['best']
    assert good['separation'] > noisy['separation'] and 'separation' not in constant
    assert .5 < noisy['variance']/4 < 2 and constant['variance'] == 0
    s = rng.normal(size=(5, 3))
    within = np.array([[(v - r.mean())**2 for v in r] for r in s]).sum(1)/2
    between = ((s.mean(1) - s.mean())**2).sum()/4
    d = tm.stability(s, range(5))
    assert math.isclose(d['variance'], within.mean())
    assert math.isclose(d['separation']**2, between/within.mean())


def test_stability_of_figures_that_are_better_when_less():
    s, truth = np.random.default_rng(0).normal(size=(3, 5)), [1, 2, 3]
    assert tm.stability(s, truth, 'less') == tm.stability(-s, [-1, -2, -3])


def test_only_runs_of_equal_entropy_are_compared():
    seeds = np.array([0., .01, -.01])
    def entropies(*means): return np.array(means)[:, None] + seeds
    a = entropies(2., 1.9, 1.5), np.array([[1., 2, 3], [4, 4, 4], [0, 0, 0]])
    b = entropies(1.885, 1.99, 1.96), np.array([[9., 9, 9], [2, 2, 2], [7, 7, 7]])
    m = tm.at_equal_entropy(a, b)
    assert m.a.tolist() == [0, 1] and m.b.tolist() == [1, 0]
    assert np.allclose(m.entropy, [[.01]*3, [.015]*3])
    assert np.allclose(m.quality, [[-1, 0, 1], [-5]*3])
    assert tm.at_equal_entropy(a, b, .001).quality.shape == (0, 3)
    same = tm.at_equal_entropy(a, a)
    assert same.a.tolist() == same.b.tolist() == [0, 1, 2] and not same.quality.any()


def test_the_pair_is_the_nearest_and_never_beyond_the_tolerance():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = ((rng.random((n, 4))*.3, rng.random((n, 4))) for n in (5, 7))
        m = tm.at_equal_entropy(a, b)
        want = []
        for i, entropy_a in enumerate(a[0]):
            gaps = [abs(entropy_a.mean() - entropy_b.mean()) for entropy_b in b[0]]
            nearest = min(gaps)
            if nearest <= .02: want.append((i, gaps.index(nearest)))
        assert list(zip(m.a, m.b)) == want
        assert (abs(m.entropy.mean(1)) <= .02).all()


def test_evaluate_gives_what_each_part_gives_and_leaves_out_what_is_undefined():
    teacher = markov(V=4, L=20, seed=0)
    x = draw(teacher, 50, 0)
    def exact_denoiser(x, t, real): return Denoised(teacher.logits(x))
    ngrams = {n: teacher.ngram_distribution(n) for n in (1, 2, 3)}
    ref = tm.TextReference(4, ngrams, teacher.log_prob)
    m = tm.evaluate_text(x, ref, exact_denoiser)
    assert list(m) == sorted(m) and all(type(v) is float for v in m.values())
    assert m['quality/js_2'] == tm.ngram_js(tm.ngram_counts(x, 2, 4), ngrams[2])
    assert (m['quality/nll'], m['quality/nll_se']) == tm.exact_nll(teacher.log_prob, x)
    assert m['variety/distinct_3'] == tm.distinct(x, 3)
    assert m['variety/repeats'] == tm.repeats(x)
    assert m['self/confidence'] == tm.self_confidence(exact_denoiser, x)
    bare = tm.evaluate_text(x[:, :2], tm.text_reference(x, 4))
    assert set(bare) == {'quality/js_1', 'quality/js_2', 'variety/entropy', 'variety/repeats',
                         'variety/distinct_2'}
    assert tm.evaluate_text(x.to(torch.uint8).numpy(), ref, exact_denoiser) == m
    one = tm.evaluate_text(x[:1], ref)
    assert 'quality/nll' in one and 'quality/nll_se' not in one


def test_the_heldout_reference_evaluates_subsets_of_fresh_rows_and_nothing_else():
    teacher = markov(V=4, L=20, seed=0)
    fresh = draw(teacher, 80, 0)
    ref = tm.text_reference(draw(teacher, 500, 1), 4, teacher.log_prob)
    def judge(x, real): return tm.evaluate_text(x, ref, real=real)
    runs = tm.heldout_text_metrics(fresh, judge, 80, (0, 1))
    for k, v in tm.evaluate_text(fresh, ref).items():
        assert all(math.isclose(r[k], v, rel_tol=1e-9) for r in runs)   # all of them, in another order
    a, b = tm.heldout_text_metrics(fresh, judge, 40, (0, 1))
    assert a != b and set(a) == set(b) == set(tm.BETTER_TEXT) | {'quality/nll_se'}
    real = torch.arange(20) < torch.arange(80)[:, None] % 20 + 1
    part = tm.heldout_text_metrics(fresh, judge, 80, (0,), real)[0]
    assert math.isclose(part['variety/entropy'], tm.token_entropy(fresh, real))


def test_sharpening_looks_better_by_likelihood_and_is_caught_by_everything_else():
    teacher = markov(V=6, L=50, seed=3)
    def square(p): return p**2/(p**2).sum(-1, keepdim=True)
    sharpened = Chain(square(teacher.first), square(teacher.step), 50)
    ref = tm.TextReference(6, {2: teacher.ngram_distribution(2)}, teacher.log_prob)
    fair = tm.evaluate_text(draw(teacher, 500, 0), ref)
    sharp = tm.evaluate_text(draw(sharpened, 500, 0), ref)
    assert sharp['quality/nll'] < fair['quality/nll']
    assert sharp['quality/js_2'] > 10*fair['quality/js_2']
    assert sharp['variety/entropy'] < fair['variety/entropy'] - .02
    assert sharp['variety/repeats'] > fair['variety/repeats']


x22 = np.zeros((2, 2), int)
score22, wrong22 = np.zeros((2, 2)), np.eye(2, dtype=bool)
def per_character(x): return torch.zeros(2, 2)
def no_metrics(x, real): return {}


BAD = {}
BAD['real numbers'] = refusal('float32 of shape .* expected rows of ids', tm.token_entropy, [[.5]])
BAD['one row'] = refusal('expected rows of ids', tm.distinct, [1, 2], 2)
BAD['no rows'] = refusal('at least one true', tm.token_entropy, x22[:0])
BAD['other flags'] = refusal('one flag per id', tm.repeats, x22, real=[[1, 1]])
BAD['nothing real'] = refusal('at least one true', tm.token_entropy, x22, x22)
BAD['negative'] = refusal(r'id -1 at \(row, position\) \(0, 0\)', tm.token_entropy, x22 - 1)
BAD['beyond V'] = refusal(r'id 3 at .* clean ids are 0\.\.2', tm.ngram_counts, x22 + 3, 1, 3)
BAD['a table too large'] = refusal(r'V\^n <= 2\^27', tm.ngram_counts, x22, 9, 70)
BAD['no characters'] = refusal('n >= 1', tm.ngram_counts, x22, 0, 70)
BAD['no n-gram'] = refusal('one character at least', tm.distinct, x22, 0)
BAD['no copy'] = refusal('one character at least', tm.repeats, x22, 0)
BAD['distributions of two sizes'] = refusal('take the same n, V', tm.ngram_js, [1, 1], [1, 1, 1])
BAD['negative weights'] = refusal('not negative', tm.ngram_js, [2, -1], [1, 1])
BAD['likelihood per character'] = refusal('one log-probability per row', tm.exact_nll, per_character, x22)
BAD['likelihood above one'] = refusal('above 0', tm.exact_nll, constant_log_prob(1., 1.), x22)
BAD['likelihood NaN'] = refusal('NaN', tm.exact_nll, constant_log_prob(math.nan, math.nan), x22)
BAD['one class'] = refusal('4 of 4 positions are wrong', tm.roc_auc, score22, wrong22 | True)
BAD['nothing among'] = refusal('0 of 0 positions', tm.roc_auc, score22, wrong22, ~wrong22 & wrong22)
BAD['shapes'] = refusal(r'score \(1, 2\), wrong \(2, 2\)', tm.roc_auc, score22[:1], wrong22)
BAD['score NaN'] = refusal('a score is NaN', tm.precision_at, score22*np.nan, wrong22, 1)
BAD['k'] = refusal('k=0: take one position at least', tm.detection, score22, wrong22, k=0)
BAD['rankings'] = refusal('the same two or more models', tm.kendall, [1, 2], [1, 2, 3])
BAD['one seed'] = refusal('M and S at least 2', tm.stability, [[1], [2]], [1, 2])
BAD['equal models'] = refusal('differ in truth', tm.stability, [[1, 2], [2, 1]], [1, 1])
BAD['direction'] = refusal("better='low' must be", tm.stability, [[1, 2], [2, 1]], [1, 2], 'low')
BAD['other seeds'] = refusal('over the same seeds',
                             tm.at_equal_entropy, (score22, score22), (score22[:, :1],)*2)
BAD['flat'] = refusal('over the same seeds', tm.at_equal_entropy, (score22[0],)*2, (score22[0],)*2)
BAD['too many rows'] = refusal('3 rows asked of 2', tm.heldout_text_metrics, x22, no_metrics, 3)


@pytest.mark.parametrize('what', BAD)
def test_bad_input_is_named_in_one_sentence(what):
    message, call = BAD[what]
    with pytest.raises(ValueError, match=message) as e: call()
    assert '\n' not in str(e.value)


def test_a_score_that_is_nan_where_it_does_not_count_is_no_matter():
    score, among = np.array([[1., 2, np.nan]]), np.array([[True, True, False]])
    assert tm.roc_auc(score, np.array([[1, 0, 0]]), among) == 1
    assert tm.precision_at(score, np.array([[1, 0, 0]]), 1, among).tolist() == [1]


# ---- a judge

def test_a_judge_reads_from_the_left_only():
    space = TokenSpace(5, 6, (torch.arange(7) < 5).expand(9, -1))
    judge, x = Judge(space.legal, d=16), torch.randint(5, (3, 9))
    other = x.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 5
    def logits(rows): return judge(shifted(space, rows, None, None).x_t, 0., None).logits
    a, b = logits(x), logits(other)
    assert a[:, :7].equal(b[:, :7])
    assert not a[:, 7:].equal(b[:, 7:])
    padded = torch.where(torch.arange(9) < 6, x, space.pad)       # what does not exist has no likelihood
    log_p = a.double().log_softmax(-1)
    want = torch.stack([log_p[:, i].gather(-1, x[:, i:i+1])[:, 0] for i in range(6)]).sum(0)
    torch.testing.assert_close(judged_by(judge, space, batch=2)(padded), want)


def test_a_judge_is_trained_like_any_network_and_learns_the_distribution(tmp_path):
    model, path = markov(3, 12, .3, 5), tmp_path/'judge.safetensors'
    space, g = model.space, torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    rows = model.sample_exact(4000, g)
    recipe = Recipe(forward=shifted, lr=1e-2, warmup=5, ema=.9, batch=64)
    net = fit(Judge(space.legal, d=24), space, rows, recipe, 120, tmp_path/'run').net
    save_net(path, net, of='a test')
    judge, origin = load_judge(path, 12)
    assert origin == dict(of='a test')
    held = model.sample_exact(3000, g)
    divergence = (model.log_prob(held) - judged_by(judge, space)(held)).mean().item()
    assert 0 <= divergence/12 < .03   # a divergence is never negative
    with pytest.raises(ValueError, match='rows of 12 positions'): load_judge(path, 13)
    save_tensors(tmp_path/'x.safetensors', dict(a=torch.ones(1)), {})
    with pytest.raises(ValueError, match='holds no Judge'): load_judge(tmp_path/'x.safetensors')
