"""The ranking by distance to held-out data: its formula rewritten, what it does not reward, and the front."""
import numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from remask.evaluate.compare import HELDOUT, tidy
from remask.evaluate.fidelity import (
    budget_text, fidelity, fidelity_front, fidelity_markdown, metric_units, nearest_within)

METRICS = ['v/a', 'v/b', 'c/n']
UNITS = {'v/a': .1, 'v/b': 2., 'c/n': 10.}


def record(method, figures, nfe=10.):
    "figures: (S,3), one row a seed"
    per_seed = [dict(zip(METRICS, map(float, row))) | {'cost/nfe': nfe} for row in figures]
    summary = {m: [float(np.mean([s[m] for s in per_seed])), 0.] for m in METRICS}
    return dict(method=method, params={}, per_seed=per_seed, summary=summary)


def random_records(seed, methods=4, seeds=5):
    rng = np.random.default_rng(seed)
    scale = np.array([.1, 2., 10.])
    out = [record(f'm{i}', scale*rng.normal(size=(seeds, 3)), nfe=float(rng.integers(5, 90)))
           for i in range(methods)]
    return [*out, record(HELDOUT, .1*scale*rng.normal(size=(seeds, 3)), 0.)]


@given(st.integers(0, 10**6))
def test_the_distance_is_the_mean_over_groups_of_the_mean_deviation(seed):
    records = random_records(seed)
    table = fidelity(records, UNITS).set_index('method')
    reference = np.array([[s[m] for m in METRICS] for s in records[-1]['per_seed']]).mean(0)
    for r in records[:-1]:
        x = np.array([[s[m] for m in METRICS] for s in r['per_seed']])
        z = abs(x - reference)/[.1, 2., 10.]
        want = ((z[:, 0] + z[:, 1])/2 + z[:, 2])/2
        assert table.distance[r['method']] == pytest.approx(want.mean())
        half = 2.7764451051977987*want.std(ddof=1)/5**.5      # t(.975, 4)
        assert table.high[r['method']] == pytest.approx(want.mean() + half)
        assert table.c[r['method']] == pytest.approx(z[:, 2].mean())


@given(st.integers(0, 10**6))
def test_no_ranking_rewards_a_deviation_to_the_better_side(seed):
    "A method and its mirror image at the held-out reference are equally far"
    records = random_records(seed, methods=1)
    reference = {m: np.mean([s[m] for s in records[-1]['per_seed']]) for m in METRICS}
    mirrored = [[2*reference[m] - s[m] for m in METRICS] for s in records[0]['per_seed']]
    table = fidelity([*records, record('mirror', mirrored)], UNITS).set_index('method')
    assert table.distance['mirror'] == pytest.approx(table.distance['m0'])


def test_the_unit_of_a_metric_changes_nothing_if_its_values_change_with_it():
    records = random_records(3)
    def in_thousandths(r): return [[1000*s['v/a'], s['v/b'], s['c/n']] for s in r['per_seed']]
    thousand = [record(r['method'], in_thousandths(r)) for r in records]
    a = fidelity(records, UNITS)
    b = fidelity(thousand, UNITS | {'v/a': 100.})
    np.testing.assert_allclose(a.distance, b.distance)


def test_units_are_the_spread_between_methods_without_the_reference():
    records = [record('a', [[1, 0, 5]]), record('b', [[3, 0, 5]]), record(HELDOUT, [[50, 9, 9]])]
    assert metric_units(tidy(records)) == {'v/a': 1.}


@pytest.mark.parametrize('left_out, message', [
    (HELDOUT, 'no record .heldout'), ('v/a', 'm0 has no v/a')])
def test_what_is_missing_is_named(left_out, message):
    records = [r for r in random_records(0) if r['method'] != left_out]
    if left_out == 'v/a': records[0]['per_seed'][2].pop('v/a')
    with pytest.raises(ValueError, match=message): fidelity(records, UNITS)


@given(st.integers(0, 10**6))
def test_the_front_holds_exactly_the_methods_that_none_equals_at_their_cost(seed):
    table = fidelity(random_records(seed, methods=6), UNITS)
    rows = table[table.method != HELDOUT]
    def beaten(a): return ((rows.nfe <= a.nfe) & (rows.distance < a.distance)).any()
    want = {a.method for a in rows.itertuples() if not beaten(a)}
    assert set(fidelity_front(table)) == want
    for limit in (10, 40, 100):
        names = nearest_within(table, limit)
        affordable = rows[rows.nfe <= limit]
        assert bool(names) == bool(len(affordable))
        if names: assert names[0] == affordable.loc[affordable.distance.idxmin()].method


def test_a_limit_that_no_method_keeps_is_left_out_of_the_text():
    table = fidelity([record('a', np.ones((5, 3)), nfe=30.), random_records(0)[-1]], UNITS)
    text = budget_text(table, (10, 36))
    assert 'At most 36' in text and 'At most 10' not in text and '30.0 evaluations' in text


def test_a_single_seed_has_a_distance_and_no_interval():
    table = fidelity([record('a', np.ones((1, 3))), random_records(0)[-1]], UNITS).set_index('method')
    assert np.isnan(table.low['a']) and table.distance['a'] > 0
    assert '±' not in fidelity_markdown(table.reset_index()).splitlines()[-1]
    assert isinstance(table, pd.DataFrame)
