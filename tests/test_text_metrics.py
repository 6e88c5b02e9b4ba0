"""Every text metric against a second implementation in plain python; invariances; bad input."""
import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
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
def H(v): return -sum(c/len(v)*math.log(c/len(v)) for c in Counter(v).values())


# ---- a second implementation, row by row

def js(p, q):
    kl = lambda a, b: sum(v*math.log(v/b[k]) for k, v in a.items() if v)
    P, Q = sum(p.values()), sum(q.values())
    keys = {*p, *q}
    p, q = {k: p.get(k, 0)/P for k in keys}, {k: q.get(k, 0)/Q for k in keys}
    m = {k: (p[k] + q[k])/2 for k in keys}
    return (kl(p, m) + kl(q, m))/2


def copied(row, n):
    seen, hit = set(), set()
    for i, g in enumerate(grams(row, n)):
        if g in seen: hit |= set(range(i, i + n))
        seen.add(g)
    return len(hit)


def expected_precision(score, wrong, k):
    "Mean over all sets of k positions that ranking could return"
    k = min(k, len(score))
    if not k: return None
    worst = sorted(score)[:k]
    sets = [s for s in combinations(range(len(score)), k) if sorted(score[i] for i in s) == worst]
    return np.mean([sum(wrong[i] for i in s)/k for s in sets])


def chain_grams(chain, n):
    "By summing over every row there is"
    out = Counter()
    for row, p in zip(*(v.tolist() for v in chain.distribution())):
        for g in grams(row, n): out[g] += p/(chain.L - n + 1)
    return out


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('whole', [True, False])
def test_everything_about_one_sample_is_what_counting_by_hand_gives(seed, whole):
    x, real = some(seed)
    if whole: real = np.ones_like(real)
    rows, flags = rowlists(x, real), None if whole else real
    for n in (1, 2, 3, 4, 9):
        every = [g for r in rows for g in grams(r, n)]
        assert tm.distinct(x, n, flags) == len(set(every))/len(every)
        assert tm.repeats(x, n, flags) == sum(copied(r, n) for r in rows)/sum(map(len, rows))
        if n < 5:
            table = tm.ngram_counts(x, n, 5, flags)
            assert table.sum() == len(every) and all(table[g] == c for g, c in Counter(every).items())
    assert math.isclose(tm.token_entropy(x, flags), np.mean([H(r) for r in rows if r]))


@pytest.mark.parametrize('n', [8, 10, 12, 30])
def test_long_ngrams_over_many_ids_do_not_overflow(n):
    rng = np.random.default_rng(n)
    x = rng.integers(0, 50_000, (20, 60))
    x[:, 25:40] = x[:, 5:20]
    x[::2, 40:60] = x[1::2, 40:60]
    every = [g for r in x.tolist() for g in grams(r, n)]
    assert tm.distinct(x, n) == len(set(every))/len(every)
    assert tm.repeats(x, n) == sum(copied(r, n) for r in x.tolist())/x.size


@pytest.mark.parametrize('seed', range(4))
def test_ids_at_positions_that_are_not_real_change_nothing(seed):
    x, real = some(seed)
    teacher = markov(5, 40)
    rag = lambda x: (teacher.step.log()[x[:, :-1] % 5, x[:, 1:] % 5]*torch.from_numpy(real[:, 1:])).sum(1)
    ref = tm.TextReference(5, {n: teacher.ngram_distribution(n) for n in (1, 2)}, rag)
    other = np.where(real, x, 77)
    assert tm.evaluate_text(x, ref, real=real) == tm.evaluate_text(other, ref, real=torch.from_numpy(real))
    sure = lambda x, t, real: Denoised(torch.arange(40.)[:, None]*torch.eye(78)[0] + 0*x[..., None])
    m = tm.evaluate_text(other, ref, sure, real)
    assert (m['quality/nll'], m['quality/nll_se']) == tm.exact_nll(rag, x, real) != tm.exact_nll(rag, x)
    assert m['self/confidence'] == tm.self_confidence(sure, torch.from_numpy(other), torch.from_numpy(real))
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
    assert math.isclose(d, tm.ngram_js(q, p), abs_tol=1e-12) and 0 <= d <= math.log(2)
    assert math.isclose(d, max(js(dict(enumerate(p.tolist())), dict(enumerate(q.tolist()))), 0),
                        abs_tol=1e-12)
    assert (d < 1e-9) == (p*q.sum() == q*p.sum()).all()
    assert math.isclose(tm.ngram_js(7*p, q/3), d, abs_tol=1e-12)
    if not (p*q).any(): assert math.isclose(d, math.log(2))


@pytest.mark.parametrize('n', [1, 2, 3])
def test_divergence_from_the_exact_distribution_falls_at_the_rate_of_the_held_out_reference(n):
    teacher = markov(V=3, L=6, seed=1)
    law = np.zeros((3,)*n)
    for g, p in chain_grams(teacher, n).items(): law[g] = p
    draw = lambda N, s: tm.ngram_js(tm.ngram_counts(teacher.sample_exact(N, torch.Generator().manual_seed(s)),
                                                    n, 3), law)
    few, many = (np.mean([draw(N, s) for s in range(20)]) for N in (50, 2000))
    assert 20 < few/many < 80   # 40 times as many rows
    far = markov(V=3, L=6, seed=2)
    off = np.zeros_like(law)
    for g, p in chain_grams(far, n).items(): off[g] = p
    apart = tm.ngram_js(tm.ngram_counts(far.sample_exact(20000, torch.Generator().manual_seed(0)), n, 3), law)
    assert abs(apart - tm.ngram_js(off, law)) < .01 and apart > 10*many


def test_two_samples_of_independent_letters_differ_by_the_bias_that_the_notebook_quotes():
    rng = np.random.default_rng(0)
    K, m = 64, 5000
    d = [tm.ngram_js(*rng.multinomial(m, np.full(K, 1/K), 2)) for _ in range(50)]
    one = [tm.ngram_js(rng.multinomial(m, np.full(K, 1/K)), np.ones(K)) for _ in range(50)]
    assert .8 < np.mean(one)/((K - 1)/(8*m)) < 1.25 and .8 < np.mean(d)/((K - 1)/(4*m)) < 1.25


def test_likelihood_is_the_entropy_of_the_teacher_for_its_own_rows_and_its_error_is_honest():
    teacher = markov(V=3, L=6, seed=4)
    rows, p = teacher.distribution()
    truth = float(-(p*p.log()).sum()/6)
    got = [tm.exact_nll(teacher.log_prob, teacher.sample_exact(300, torch.Generator().manual_seed(s)))
           for s in range(60)]
    means, errors = np.array(got).T
    assert abs(means.mean() - truth) < 4*means.std()/60**.5
    assert .75 < errors.mean()/means.std(ddof=1) < 1.33
    inside = abs(means - truth) < 1.96*errors
    assert inside.mean() > .85


def test_likelihood_of_rows_of_unequal_length_is_per_character():
    lp = lambda x: torch.tensor([-2., -9.])
    real = [[1, 1, 0, 0], [1, 1, 1, 0]]
    mean, se = tm.exact_nll(lp, np.zeros((2, 4), int), real)
    assert math.isclose(mean, 11/5)
    rest = np.array([2 - 2*11/5, 9 - 3*11/5])
    assert math.isclose(se, rest.std(ddof=1)/2.5/2**.5)
    assert math.isnan(tm.exact_nll(lambda x: torch.tensor([-1.]), [[0, 1]])[1])


def test_impossible_rows_cost_infinitely_much():
    assert tm.exact_nll(lambda x: torch.tensor([-1., -math.inf]), [[0, 1], [1, 1]])[0] == math.inf


@pytest.mark.parametrize('batch', [1, 7, 256])
def test_self_confidence_is_the_mean_over_real_positions_whatever_the_batch(batch):
    x, real = some(3)
    x = np.where(real, x, 6)   # PAD
    table = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    table[:, 5] = -torch.inf
    asked = []
    def denoise(x, t, real):
        asked.append((t, len(x)))
        return Denoised((table + x[..., None].float()*real[..., None]).masked_fill(x[..., None] == 6, 0.))
    got = tm.self_confidence(denoise, torch.from_numpy(x), torch.from_numpy(real), batch)
    want = []
    for row, on in zip(x, real):
        for i in on.nonzero()[0]:
            z = table[i].double().exp()
            want.append(math.log(z[row[i]]/z.sum()))
    assert math.isclose(got, np.mean(want), rel_tol=1e-6)
    assert [t for t, _ in asked] == [0.]*len(asked) and sum(n for _, n in asked) == len(x) and max(n for _,
        n in asked) <= batch


def test_self_confidence_rewards_copying_as_the_published_number_does():
    parrot = lambda x, t, real: Denoised(torch.nn.functional.one_hot(x, 9).float()*20)
    for x in (torch.randint(9, (4, 30)), torch.zeros(4, 30).long()):
        assert tm.self_confidence(parrot, x) > -1e-6


scored = st.integers(1, 4).flatmap(lambda N: st.integers(1, 7).flatmap(lambda L: st.tuples(
    arrays(np.int64, (N, L), elements=st.integers(0, 3)), arrays(bool, (N, L)), arrays(bool, (N, L)))))


@settings(deadline=None)
@given(scored)
def test_area_is_the_share_of_pairs_in_order_and_what_scikit_learn_gives(given):
    score, wrong, among = given
    y, s = wrong[among], score[among]
    if y.all() or not y.any():
        with pytest.raises(ValueError, match='both wrong and right'): tm.roc_auc(score, wrong, among)
        return
    pairs = [(a < b) + (a == b)/2 for a, b in product(s[y], s[~y])]
    assert math.isclose(tm.roc_auc(score, wrong, among), np.mean(pairs), abs_tol=1e-12)
    assert math.isclose(tm.roc_auc(score, wrong, among), roc_auc_score(y, -s), abs_tol=1e-12)
    assert math.isclose(tm.roc_auc(-score, wrong, among), 1 - np.mean(pairs), abs_tol=1e-12)


@settings(deadline=None)
@given(scored, st.integers(1, 9))
def test_precision_shares_ties_as_breaking_them_at_random_would(given, k):
    score, wrong, among = given
    got = tm.precision_at(score, wrong, k, among)
    for g, s, w, on in zip(got, score, wrong, among):
        want = expected_precision(s[on].tolist(), w[on].tolist(), k)
        assert math.isnan(g) if want is None else math.isclose(g, want, abs_tol=1e-12)


def test_precision_may_look_at_another_number_of_positions_in_each_row():
    score, wrong = np.arange(8.).reshape(2, 4), np.array([[1, 0, 1, 1], [0, 1, 1, 0]], bool)
    assert tm.precision_at(score, wrong, torch.tensor([1, 3])).tolist() == [1, 2/3]
    assert tm.precision_at(torch.tensor(score), torch.tensor(wrong), wrong.sum(1)).tolist() == [2/3, .5]


def test_detection_is_the_two_numbers_and_resamples_rows():
    rng = np.random.default_rng(1)
    wrong = rng.random((60, 30)) < .2
    among = rng.random((60, 30)) < .8
    score = rng.normal(size=(60, 30)).round(1) - wrong
    d = tm.detection(score, wrong, among, k=5, n=300, seed=3)
    assert d['auc'] == tm.roc_auc(score, wrong, among)
    assert math.isclose(d['precision'], tm.precision_at(score, wrong, 5, among).mean())
    assert math.isclose(d['wrong'], wrong[among].mean())
    W = np.random.default_rng(3).multinomial(60, np.full(60, 1/60), 300)
    rows = [np.repeat(np.arange(60), w) for w in W]
    areas = [roc_auc_score(wrong[r][among[r]], -score[r][among[r]]) for r in rows]
    shares = [tm.precision_at(score[r], wrong[r], 5, among[r]).mean() for r in rows]
    assert np.allclose([d['auc_low'], d['auc_high']], np.percentile(areas, [2.5, 97.5]))
    assert np.allclose([d['precision_low'], d['precision_high']], np.percentile(shares, [2.5, 97.5]))
    assert d == tm.detection(torch.tensor(score), torch.tensor(wrong), torch.tensor(among), k=5, n=300,
                             seed=3)


def test_intervals_cover_the_truth_as_often_as_they_say():
    truth = .5*(1 + math.erf(1/2))   # two normals one apart
    hits = 0
    for s in range(80):
        rng = np.random.default_rng(s)
        wrong = rng.random((50, 20)) < .3
        d = tm.detection(rng.normal(size=wrong.shape) - wrong, wrong, k=4, n=100, seed=s)
        hits += d['auc_low'] < truth < d['auc_high']
    assert hits > 67   # .95 expected; 67 of 80 is 4 standard deviations below


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=8))
def test_kendall_counts_pairs_in_order(pairs):
    a, b = map(list, zip(*pairs))
    sign = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    n, na, nb = sum(x*y for x, y in sign), sum(x*x for x, _ in sign), sum(y*y for _, y in sign)
    got = tm.kendall(a, b)
    assert math.isnan(got) if not na*nb else math.isclose(got, n/math.sqrt(na*nb), abs_tol=1e-9)


def test_stability_of_a_good_a_noisy_and_a_constant_evaluation():
    rng, truth = np.random.default_rng(0), np.arange(4.)
    good, noisy = (tm.stability(truth[:, None] + s*rng.normal(size=(4, 200)), truth) for s in (.1, 2))
    dumb = tm.stability(np.ones((4, 200)), truth)
    assert good['kendall'] > .99 > noisy['kendall'] > 0 == dumb['kendall']
    assert good['best'] > .99 > noisy['best'] > .25 == dumb['best']
    assert good['separation'] > noisy['separation'] and 'separation' not in dumb
    assert .5 < noisy['variance']/4 < 2 and dumb['variance'] == 0
    s = rng.normal(size=(5, 3))
    spread = np.array([[(v - r.mean())**2 for v in r] for r in s]).sum(1)/2
    d = tm.stability(s, range(5))
    assert math.isclose(d['variance'], spread.mean())
    assert math.isclose(d['separation']**2, ((s.mean(1) - s.mean())**2).sum()/4/spread.mean())


def test_stability_of_figures_that_are_better_when_less():
    s, truth = np.random.default_rng(0).normal(size=(3, 5)), [1, 2, 3]
    assert tm.stability(s, truth, 'less') == tm.stability(-s, [-1, -2, -3])


def test_nothing_is_claimed_at_unequal_entropy():
    seeds = np.array([0., .01, -.01])
    entropy = lambda *v: np.array(v)[:, None] + seeds
    a = entropy(2., 1.9, 1.5), np.array([[1., 2, 3], [4, 4, 4], [0, 0, 0]])
    b = entropy(1.885, 1.99, 1.96), np.array([[9., 9, 9], [2, 2, 2], [7, 7, 7]])
    m = tm.at_equal_entropy(a, b)
    assert m.a.tolist() == [0, 1] and m.b.tolist() == [1, 0]
    assert np.allclose(m.entropy, [[.01]*3, [.015]*3]) and np.allclose(m.quality, [[-1, 0, 1], [-5]*3])
    assert tm.at_equal_entropy(a, b, .001).quality.shape == (0, 3)
    same = tm.at_equal_entropy(a, a)
    assert same.a.tolist() == same.b.tolist() == [0, 1, 2] and not same.quality.any()


def test_the_pair_is_the_nearest_and_never_beyond_the_tolerance():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = ((rng.random((n, 4))*.3, rng.random((n, 4))) for n in (5, 7))
        m = tm.at_equal_entropy(a, b)
        want = []
        for i in range(5):
            gaps = [abs(a[0][i].mean() - h.mean()) for h in b[0]]
            if min(gaps) <= .02: want.append((i, gaps.index(min(gaps))))
        assert list(zip(m.a, m.b)) == want
        assert (abs(m.entropy.mean(1)) <= .02).all()


def test_evaluate_gives_what_each_part_gives_and_leaves_out_what_is_undefined():
    teacher = markov(V=4, L=20, seed=0)
    x = teacher.sample_exact(50, torch.Generator().manual_seed(0))
    perfect = lambda x, t, real: Denoised(teacher.logits(x))
    ref = tm.TextReference(4, {n: teacher.ngram_distribution(n) for n in (1, 2, 3)}, teacher.log_prob)
    m = tm.evaluate_text(x, ref, perfect)
    assert list(m) == sorted(m) and all(type(v) is float for v in m.values())
    assert m['quality/js_2'] == tm.ngram_js(tm.ngram_counts(x, 2, 4), teacher.ngram_distribution(2))
    assert (m['quality/nll'], m['quality/nll_se']) == tm.exact_nll(teacher.log_prob, x)
    assert m['variety/distinct_3'] == tm.distinct(x, 3) and m['variety/repeats'] == tm.repeats(x)
    assert m['self/confidence'] == tm.self_confidence(perfect, x)
    bare = tm.evaluate_text(x[:, :2], tm.text_reference(x, 4))
    assert set(bare) == {'quality/js_1', 'quality/js_2', 'variety/entropy', 'variety/repeats',
                         'variety/distinct_2'}
    assert tm.evaluate_text(x.to(torch.uint8).numpy(), ref, perfect) == m
    one = tm.evaluate_text(x[:1], ref)
    assert 'quality/nll' in one and 'quality/nll_se' not in one


def test_the_floor_judges_subsets_of_fresh_rows_and_nothing_else():
    teacher = markov(V=4, L=20, seed=0)
    fresh = teacher.sample_exact(80, torch.Generator().manual_seed(0))
    ref = tm.text_reference(teacher.sample_exact(500, torch.Generator().manual_seed(1)), 4, teacher.log_prob)
    judge = lambda x, real: tm.evaluate_text(x, ref, real=real)
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
    square = lambda p: p**2/(p**2).sum(-1, keepdim=True)
    sharp = Chain(square(teacher.first), square(teacher.step), 50)
    ref = tm.TextReference(6, {2: teacher.ngram_distribution(2)}, teacher.log_prob)
    fair, bent = (tm.evaluate_text(c.sample_exact(500, torch.Generator().manual_seed(0)), ref)
                  for c in (teacher, sharp))
    assert bent['quality/nll'] < fair['quality/nll'] and bent['quality/js_2'] > 10*fair['quality/js_2']
    assert (
        bent['variety/entropy'] < fair['variety/entropy'] - 0.02
        and bent['variety/repeats'] > fair['variety/repeats']
    )


x22 = np.zeros((2, 2), int)
score22, wrong22 = np.zeros((2, 2)), np.eye(2, dtype=bool)
BAD = {
    'real numbers': (lambda: tm.token_entropy([[.5]]), 'float32 of shape .* expected rows of ids'),
    'one row': (lambda: tm.distinct([1, 2], 2), 'expected rows of ids'),
    'no rows': (lambda: tm.token_entropy(x22[:0]), 'at least one true'),
    'other flags': (lambda: tm.repeats(x22, real=[[1, 1]]), 'one flag per id'),
    'nothing real': (lambda: tm.token_entropy(x22, x22), 'at least one true'),
    'negative': (lambda: tm.token_entropy(x22 - 1), r'id -1 at \(row, position\) \(0, 0\)'),
    'beyond V': (lambda: tm.ngram_counts(x22 + 3, 1, 3), r'id 3 at .* clean ids are 0\.\.2'),
    'a table too large': (lambda: tm.ngram_counts(x22, 9, 70), r'V\^n <= 2\^27'),
    'no characters': (lambda: tm.ngram_counts(x22, 0, 70), 'n >= 1'),
    'no n-gram': (lambda: tm.distinct(x22, 0), 'one character at least'),
    'no copy': (lambda: tm.repeats(x22, 0), 'one character at least'),
    'laws of two sizes': (lambda: tm.ngram_js([1, 1], [1, 1, 1]), 'take the same n, V'),
    'negative weights': (lambda: tm.ngram_js([2, -1], [1, 1]), 'not negative'),
    'likelihood per character': (lambda: tm.exact_nll(lambda x: torch.zeros(2, 2), x22),
                                 'one log-probability per row'),
    'likelihood above one': (lambda: tm.exact_nll(lambda x: torch.ones(2), x22), 'above 0'),
    'likelihood NaN': (lambda: tm.exact_nll(lambda x: torch.full((2,), torch.nan), x22), 'NaN'),
    'one class': (lambda: tm.roc_auc(score22, wrong22 | True), '4 of 4 positions are wrong'),
    'nothing among': (lambda: tm.roc_auc(score22, wrong22, ~wrong22 & wrong22), '0 of 0 positions'),
    'shapes': (lambda: tm.roc_auc(score22[:1], wrong22), r'score \(1, 2\), wrong \(2, 2\)'),
    'score NaN': (lambda: tm.precision_at(score22*np.nan, wrong22, 1), 'a score is NaN'),
    'k': (lambda: tm.detection(score22, wrong22, k=0), 'k=0: take one position at least'),
    'rankings': (lambda: tm.kendall([1, 2], [1, 2, 3]), 'the same two or more models'),
    'one seed': (lambda: tm.stability([[1], [2]], [1, 2]), 'M and S at least 2'),
    'equal models': (lambda: tm.stability([[1, 2], [2, 1]], [1, 1]), 'differ in truth'),
    'direction': (lambda: tm.stability([[1, 2], [2, 1]], [1, 2], 'low'), "better='low' must be"),
    'other seeds': (lambda: tm.at_equal_entropy((score22, score22), (score22[:, :1],)*2),
                    'over the same seeds'),
    'flat': (lambda: tm.at_equal_entropy((score22[0],)*2, (score22[0],)*2), 'over the same seeds'),
    'too many rows': (lambda: tm.heldout_text_metrics(x22, lambda x, real: {}, 3), '3 rows asked of 2'),
}


@pytest.mark.parametrize('what', BAD)
def test_bad_input_is_named_in_one_sentence(what):
    call, said = BAD[what]
    with pytest.raises(ValueError, match=said) as e: call()
    assert '\n' not in str(e.value)


def test_a_score_that_is_nan_where_it_does_not_count_is_no_matter():
    score, among = np.array([[1., 2, np.nan]]), np.array([[True, True, False]])
    assert tm.roc_auc(score, np.array([[1, 0, 0]]), among) == 1
    assert tm.precision_at(score, np.array([[1, 0, 0]]), 1, among).tolist() == [1]


# ---- a judge

def test_a_judge_reads_from_the_left_only():
    space = TokenSpace(5, 6, (torch.arange(7) < 5).expand(9, -1))
    judge, x = Judge(space.legal, d=16), torch.randint(5, (3, 9))
    other = x.clone(); other[:, 6:] = (other[:, 6:] + 1) % 5
    a, b = (judge(shifted(space, r, None, None).x_t, 0., None).logits for r in (x, other))
    assert a[:, :7].equal(b[:, :7]) and not a[:, 7:].equal(b[:, 7:])
    padded = torch.where(torch.arange(9) < 6, x, space.pad)       # what does not exist has no likelihood
    want = torch.stack([a.double().log_softmax(-1)[:, i].gather(-1, x[:, i:i+1])[:, 0]
                        for i in range(6)]).sum(0)
    torch.testing.assert_close(judged_by(judge, space, batch=2)(padded), want)


def test_a_judge_is_trained_like_any_network_and_finds_the_law(tmp_path):
    world = markov(3, 12, .3, 5)
    space, g = world.space, torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    got = fit(Judge(space.legal, d=24), space, world.sample_exact(4000, g),
              Recipe(forward=shifted, lr=1e-2, warmup=5, ema=.9, batch=64),
              120, tmp_path/'run').net
    save_net(tmp_path/'judge.safetensors', got, of='a test')
    judge, origin = load_judge(tmp_path/'judge.safetensors', 12)
    held = world.sample_exact(3000, g)
    truth, word = world.log_prob(held), judged_by(judge, space)(held)
    assert (
        origin == dict(of='a test') and 0 <= (truth - word).mean().item() / 12 < 0.03
    )  # a divergence is never negative
    with pytest.raises(ValueError, match='rows of 12 positions'): load_judge(tmp_path/'judge.safetensors', 13)
    with pytest.raises(ValueError, match='holds no Judge'):
        save_tensors(tmp_path/'x.safetensors', dict(a=torch.ones(1)),
                     {}); load_judge(tmp_path/'x.safetensors')
