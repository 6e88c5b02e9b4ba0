"""Agreement with a published table: ranks rewritten, pairs counted one by one, and what decides nothing."""
import itertools
import numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from scipy.stats import t as student
from remask.evaluate.agreement import agreement, agreement_by, agreement_markdown, reversals
from remask.evaluate.compare import tidy

METRIC = 'q/a'


def table(means, std=.01):
    names = [f'm{i:02}' for i in range(len(means))]
    return pd.DataFrame(dict(method=names, metric=METRIC, mean=[*map(float, means)], std=std))


def records(means, spread=.01, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for i, mean in enumerate(means):
        per_seed = [{METRIC: mean + z} for z in spread*rng.normal(size=5)]
        values = [s[METRIC] for s in per_seed]
        out.append(dict(method=f'm{i:02}', params={}, per_seed=per_seed,
                        summary={METRIC: [float(np.mean(values)), float(np.std(values))]}))
    return out


def ranks(v):
    "Ranks from 1, equal values sharing the mean of theirs"
    v = np.asarray(v)
    return np.array([(v < x).sum() + ((v == x).sum() + 1)/2 for x in v])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=12))
def test_the_correlation_is_that_of_the_ranks(pairs):
    a, b = np.array(pairs).T
    rho = agreement(table(a), table(b), draws=5).rho[0]
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(rho)
    else:
        x, y = ranks(a) - ranks(a).mean(), ranks(b) - ranks(b).mean()
        assert rho == pytest.approx(x @ y/(x @ x * (y @ y))**.5)


def test_the_interval_covers_no_relation_in_most_unrelated_tables():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(40):
        row = agreement(table(rng.normal(size=24)), table(rng.normal(size=24)), draws=200).iloc[0]
        covered.append(row.low <= 0 <= row.high)
    assert sum(covered) >= 34
    row = agreement(table(range(24)), table(range(24)), draws=200).iloc[0]
    assert row.low > .99


def test_the_metrics_that_agree_best_come_first():
    ours = pd.concat([table([1, 2, 3, 4]).assign(metric=m) for m in ('q/a', 'q/b')])
    theirs = pd.concat([table([4, 3, 2, 1]).assign(metric='q/a'), table([1, 2, 4, 3]).assign(metric='q/b')])
    assert [*agreement(ours, theirs, draws=5).metric] == ['q/b', 'q/a']


def test_a_reversal_is_significant_in_both_tables_and_opposite():
    "Every pair of ten methods, decided by hand"
    rng = np.random.default_rng(1)
    here, there = rng.normal(size=10), rng.normal(size=10)
    ours, theirs = records(here, .1), table(there, .1)
    got = {(r.higher, r.lower) for r in reversals(ours, theirs, METRIC).itertuples()}
    want = set()
    for i, j in itertools.permutations(range(10), 2):
        d = there[i] - there[j]
        p = 2*student.sf(abs(d)/(2*.1**2/5)**.5, 8)     # Welch: equal spreads, 8 degrees of freedom
        paired = np.array([ours[i]['per_seed'][s][METRIC] - ours[j]['per_seed'][s][METRIC] for s in range(5)])
        half = student.ppf(.9995, 4)*paired.std(ddof=1)/5**.5
        if d > 0 and p < .001 and paired.mean() + half < 0: want.add((f'm{i:02}', f'm{j:02}'))
    assert got == want and len(want) > 3


def test_noise_in_either_table_is_no_reversal():
    for seed in range(5):
        noise = records(np.zeros(12), 1., seed)
        assert reversals(noise, table(range(12)), METRIC).empty
        vague = table(np.random.default_rng(seed).normal(size=12), 50.)
        assert reversals(records(range(12)), vague, METRIC).empty


def test_published_means_without_a_spread_decide_by_their_order():
    theirs = table([1, 2], std=0.)
    assert len(reversals(records([5, 1]), theirs, METRIC)) == 1
    assert reversals(records([1, 5]), theirs, METRIC).empty
    assert reversals(records([5, 1]), table([2, 2], std=0.), METRIC).empty


def test_the_report_says_which_findings_come_back():
    ours = records(range(8))
    theirs = pd.concat([table(range(8)), table(range(8)).assign(metric='q/other')])
    text = agreement_markdown(ours, theirs, agreement(tidy(ours), theirs))
    row = next(line for line in text.splitlines() if line.startswith('| q/a'))
    assert 'comes back' in row and '0 of 28' in row and 'q/other' not in text
    turned = records(range(8, 0, -1))
    text = agreement_markdown(turned, theirs, agreement(tidy(turned), theirs))
    assert 'reversed' in text and '28 of 28' in text and 'm07 above m00 by 7.0000' in text


def test_several_tables_stand_side_by_side():
    side = agreement_by(dict(same=table(range(6)), turned=table(range(6, 0, -1))), table(range(6)))
    assert side.loc[METRIC].round(6).to_dict() == dict(same=1., turned=-1.)
