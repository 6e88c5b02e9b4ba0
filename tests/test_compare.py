"""The comparison: published figures as printed, tables and pictures equal their records."""
import itertools, json, pathlib
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import ttest_rel
from remask.evaluate.compare import (
    FRONT, HELDOUT, METRIC_GROUPS, WORST, _spread, cell, comparison_markdown, dominates,
    from_heldout, front, gains, heat_map, hypervolume, paired, pareto, read_metrics, read_published,
    tidy, wide)
from remask.evaluate.graph_metrics import BETTER
from remask.methods.published import PUBLISHED

PRINTED = pathlib.Path(__file__).parents[1]/'nbs'/'experiments'/'plans'/'published.csv'
RNG = np.random.default_rng(0)


def record(name, S=5, **params):
    seeds = [{k: float(RNG.random()) for k in BETTER} for _ in range(S)]
    summary = {}
    for k in BETTER:
        v = [s[k] for s in seeds]
        summary[k] = [float(np.mean(v)), float(np.std(v))]
    return dict(method=name, published_name=name, params=params, per_seed=seeds, summary=summary)


@pytest.fixture(scope='module')
def records(): return [record('a', eta=.2), record('b', eta=None), record(HELDOUT)]


@pytest.fixture(scope='module')
def published(): return read_published(PRINTED)


def test_the_published_table_is_whole_and_names_our_methods(published):
    assert len(published) == 24*18 and published.notna().all().all()
    names = set(published.method)
    learned = {'v2_llada_topp09_no_remask', 'v2_llada_topp09_remdm_confidence_tsw10'}
    assert set(PUBLISHED) <= names and names - set(PUBLISHED) == learned
    assert set(published.metric) <= set(BETTER)


@pytest.mark.parametrize('method, metric, mean, std', [
    ('llada_topp09_no_remask', 'validity/inside_validity', .994, .003),
    ('llada_topp09_remdm_confidence_tsw10', 'coverage/unique_archetypes', 120.8, 4.7),
    ('random_topp09_remdm_confidence_tsw10', 'structure/mmd_spectral', .05707, .00151),
    ('v2_llada_topp09_no_remask', 'coverage/diversity', .6712, .0101),
    ('random_argmax_no_remask', 'conditional/edge_js_weighted', .0828, .0064)])
def test_published_values_that_were_checked_by_eye(published, method, metric, mean, std):
    row = published[(published.method == method) & (published.metric == metric)].iloc[0]
    assert (row['mean'], row['std']) == pytest.approx((mean, std))


def test_cells_print_the_published_values_again(published):
    printed = pd.read_csv(PRINTED, dtype=str).set_index('method')
    for r in published.itertuples():
        if r.metric == 'structure/mmd_spectral': continue  # printed with one decimal more than we write
        column = r.metric if r.metric in printed else r.metric + ' %'
        text = printed[column][[m.replace('.', '') == r.method for m in printed.index]].iloc[0]
        ours = cell(r.mean, r.std, r.metric).rstrip('%').split(' ± ')
        theirs = [float(v) for v in text.split('±')]
        if len(ours) == 1: theirs = [v for v in theirs if v]
        assert [float(v) for v in ours] == pytest.approx(theirs), text


def test_every_published_metric_is_in_a_group(published):
    shown = {m for ms in METRIC_GROUPS.values() for m in ms}
    assert set(published.metric) | set(BETTER) <= shown


def test_the_page_prints_the_records(records, published):
    page = comparison_markdown(records, published)
    rows = [[c.strip() for c in l.strip('|').split('|')] for l in page.splitlines() if l.startswith('|')]
    at = next(i for i, r in enumerate(rows) if 'inside_validity' in r)
    column = rows[at].index('inside_validity')
    for r, line in zip(records, rows[at+2:]):
        assert line[0] == r['method']
        assert line[column] == cell(*r['summary']['validity/inside_validity'], 'validity/inside_validity')
    assert '## Cost' not in page and f'`{HELDOUT}`' in page


def test_published_values_follow_ours_and_only_where_there_are_some(published):
    page = comparison_markdown([record('llada_topp09_no_remask'), record('new')], published)
    lines = [l for l in page.splitlines() if l.startswith('| llada_topp09_no_remask')]
    for printed in '(99.4 ± 0.3%)', '(0.9454 ± 0.0047)': assert any(printed in l for l in lines)
    assert not any('(' in l for l in page.splitlines() if l.startswith('| new'))


def test_a_missing_metric_is_marked(records):
    less = dict(records[0], summary={}, method='less')
    assert '| less | -- |' in comparison_markdown([less, records[1]])


def test_paired_differences_agree_with_the_paired_t_test(records):
    df = paired(records, 'a', ['coverage/diversity']).set_index('method')
    a, b = ([s['coverage/diversity'] for s in r['per_seed']] for r in records[:2])
    want = ttest_rel(b, a).confidence_interval(.95)
    assert (df.low['b'], df.high['b']) == pytest.approx((want.low, want.high))
    assert list(df.index) == ['b'], 'the held-out reference has other seeds: it is not paired'


def at(name, diversity, inside, js, noise=0.):
    def seed(z): return dict(zip(FRONT, (diversity, inside, js + noise*z)))
    seeds = [seed(z) for z in (-1, 1, -1, 1, 0)]
    return dict(method=name, params=dict(seeds='1 2 3 4 5', samples=1000), per_seed=seeds)


@pytest.mark.parametrize('other, want', [
    (at('b', .9, .9, .1), False), (at('b', .8, .9, .1), True), (at('b', .9, .8, .1), True),
    (at('b', .9, .9, .2), True),
    (at('b', .8, .8, .2), True), (at('b', .95, .8, .2), False), (at('b', .8, .95, .2), False),
    (at('b', .8, .8, .05), False),
    (at('b', .9, .9, .11, noise=.1), False), (at('b', .9, .9, .2, noise=.01), True)])
def test_one_method_dominates_if_it_is_worse_in_no_metric_and_significantly_better_in_one(other, want):
    a = at('a', .9, .9, .1)
    assert dominates(a, other) is want
    assert not (dominates(a, other) and dominates(other, a)) and not dominates(a, a)


def test_gains_are_the_paired_differences_turned_so_that_more_is_better():
    a, b = record('a', seeds='1', samples=9), record('b', seeds='1', samples=9)
    d, p = gains(a, b), paired([a, b], 'b', FRONT).set_index('metric')
    for k, way in FRONT.items():
        if way == 'more': row = p.loc[k, ['difference', 'low', 'high']]
        else: row = -p.loc[k, ['difference', 'high', 'low']]
        assert d.loc[k].tolist() == pytest.approx(row.tolist())
    first = list(FRONT)[0]
    turned = -d.loc[first, ['gain', 'high', 'low']]
    assert gains(b, a).loc[first].tolist() == pytest.approx(turned.tolist())


@pytest.mark.parametrize('change', [dict(params=dict(seeds='1 2 3 4 6', samples=1000)), dict(per_seed=[{}]),
                                    dict(params=dict(seeds='1 2 3 4 5', samples=200))])
def test_only_what_was_run_alike_is_a_pair(change):
    a = at('a', .9, .9, .1)
    with pytest.raises(ValueError, match='a .* and b .* are no pair: run both alike'):
        gains(a, at('b', .9, .9, .1) | change)


def test_the_front_is_what_no_method_dominates():
    good, same = at('good', .9, .9, .1), at('same', .9, .9, .1)
    bad, varied = at('bad', .8, .9, .1), at('varied', .99, .8, .3)
    assert front([good, bad, varied, same, at(HELDOUT, 1, 1, 0)]) == ['good', 'varied', 'same']


# ---- the hypervolume

def twentieths(k): return k/20


unit = st.integers(0, 20).map(twentieths)
points = st.lists(st.tuples(unit, unit, unit), max_size=8)
quick = settings(max_examples=100, deadline=None)


def test_the_hypervolume_agrees_with_monte_carlo():
    def uniform(seed, n, width): return np.random.default_rng(seed).random((n, 3))*width + (0, .5, 0)
    p, darts = uniform(1, 12, (1, .5, .69)), uniform(2, 200_000, (1, .5, np.log(2)))
    hit, (x, y, z) = np.zeros(len(darts), bool), darts.T
    for d, i, js in p: hit |= (x <= d) & (y <= i) & (z >= js)
    volume, share = .5*np.log(2), hit.mean()
    error = 4*volume*np.sqrt(share*(1 - share)/len(darts))
    assert abs(hypervolume(p) - share*volume) < error


@quick
@given(points)
def test_the_hypervolume_is_inclusion_and_exclusion(ps):
    def box(some):
        d, i, js = zip(*some)
        sides = min(d), min(i) - .5, np.log(2) - max(js)
        return np.prod(np.clip(sides, 0, None))
    want = 0
    for k in range(1, 2**len(ps)):
        some = [p for i, p in enumerate(ps) if k >> i & 1]
        want += (-1)**(len(some) + 1)*box(some)
    assert hypervolume(ps) == pytest.approx(want, abs=1e-12)


@quick
@given(points.filter(len), st.data())
def test_a_dominated_point_adds_nothing_and_no_point_lowers_the_hypervolume(ps, data):
    d, i, js = data.draw(st.sampled_from(ps))
    a, b, c = data.draw(st.tuples(unit, unit, unit))
    inferior = (d*a, i*b, js + (1 - js)*c)
    assert hypervolume([*ps, inferior]) == pytest.approx(hypervolume(ps), abs=1e-12)
    assert hypervolume([*ps, (a, b, c)]) >= hypervolume(ps) - 1e-12
    assert hypervolume([*ps, (1, 1, 0)]) == pytest.approx(.5*np.log(2))
    assert hypervolume(ps[::-1] + ps) == pytest.approx(hypervolume(ps), abs=1e-12)


def test_what_is_worse_than_the_reference_has_no_volume():
    assert WORST == (0, .5, np.log(2)) and hypervolume([WORST, (1, .4, 0), (1, 1, .7)]) == 0
    assert hypervolume([(.5, .75, 0)], (0, 0, 1)) == pytest.approx(.375)


def test_bad_records_are_named(tmp_path, records):
    for i, r in enumerate(records[::-1]): (tmp_path/f'{i}.json').write_text(json.dumps(r))
    assert [r['method'] for r in read_metrics(sorted(tmp_path.glob('*.json')))][-1] == HELDOUT
    (tmp_path/'0.json').write_text('{"method"')
    with pytest.raises(ValueError, match='0.json.*evaluate that method again'):
        read_metrics([tmp_path/'0.json'])
    with pytest.raises(ValueError, match='nowhere.json'): read_metrics([tmp_path/'nowhere.json'])
    with pytest.raises(ValueError, match="no method 'z'"): paired(records, 'z', [])


def test_distance_from_the_held_out_reference_has_the_sign_of_better(records):
    table = tidy(records)
    d, w = from_heldout(table, BETTER), wide(table, BETTER)
    for (k, way), m in itertools.product(BETTER.items(), 'ab'):
        gain = w.at[m, k] - w.at[HELDOUT, k]
        if way == 'less': gain = -gain
        if way == 'heldout': assert d.at[m, k] <= 0
        else: assert np.sign(d.at[m, k]) == np.sign(gain)


@pytest.mark.parametrize('y', [[0., 0., 0.], [1., .99, .98, .2], RNG.random(22)])
def test_labels_are_never_closer_than_the_gap_and_keep_their_order(y):
    out = _spread(np.array(y), .1)
    assert (np.diff(np.sort(out)) >= .1 - 1e-9).all()
    assert (np.argsort(out) == np.argsort(y)).all()


def test_a_picture_shows_each_method_once_and_names_the_front_and_the_reference(records):
    table = tidy(records)
    x, y = 'coverage/diversity', 'validity/inside_validity'
    w = wide(table, [x, y])
    def surpasses(a, b): return (w.loc[a] >= w.loc[b]).all() and (w.loc[a] != w.loc[b]).any()
    best = [m for m in 'ab' if not any(surpasses(other, m) for other in 'ab')]
    ax = pareto(table)
    assert sorted(t.get_text().strip() for t in ax.texts) == sorted([*best, HELDOUT])
    assert len(ax.containers) == 3
    plt.close('all')


def test_the_heat_map_begins_with_what_is_nearest_to_the_reference(records):
    table = tidy(records)
    d = from_heldout(table, BETTER)
    near, far = sorted('ab', key=lambda m: (d.loc[m]**2).mean())
    ax = heat_map(table, BETTER)
    assert [t.get_text() for t in ax.get_yticklabels()] == [HELDOUT, near, far]
    plt.close('all')
