"""Verdicts: every branch of the decision tree, every threshold from both sides, and the text of the page."""
import json, math, pathlib
import numpy as np, pytest
from scipy.stats import bootstrap, ttest_1samp
from remask.evaluate.compare import HELDOUT, read_published
from remask.evaluate.criteria import (
    ADVICE, CRITERIA, FORECASTS, GOALS, SHARP, TOP_P, branch, criterion, estimate, forecasts, goals,
    judge, product, rank, recommendation, require_size, shortfall, verdict)

PRINTED = pathlib.Path(__file__).parents[1]/'nbs'/'experiments'/'plans'/'published.csv'
SHORT = dict(arch='coverage/unique_archetypes', div='coverage/diversity', inside='validity/inside_validity',
             js='distribution/edge_js', cov='coverage/mode_coverage_weighted', nov='coverage/novelty',
             nfe='cost/nfe',
             sec='cost/seconds_per_1000', mmd='structure/mmd_degree', auc='c2st/auc')
GOOD = dict(arch=120, div=.99, inside=.995, js=.005, cov=.90, nov=.80, nfe=30, sec=9, mmd=.001, auc=.55)
WOBBLE = np.array([-2, -1, 0, 1, 2])*1e-5  # of each figure: the mean is exact, the interval narrow


def record(method='m', samples=1000, seeds=5, wobble=WOBBLE, **figures):
    figures = {SHORT.get(k, k): v for k, v in (GOOD | figures).items() if v is not None}
    per_seed = [{k: v*(1 + w) for k, v in figures.items()} for w in wobble[:seeds]]
    return dict(method=method, params=dict(samples=samples, seeds=' '.join(map(str, range(seeds)))),
                per_seed=per_seed,
                summary={k: [v, 0.] for k, v in figures.items()})


def heldout(**figures):
    reference = dict(arch=125, div=1, inside=.997, js=.0001, cov=.92, auc=.5)
    return record(HELDOUT, **reference | figures)


# ---- the decision tree: figures are next to thresholds, so that a moved threshold or branch fails a test

@pytest.mark.parametrize('figures, want', [
    ({}, 'success'),
    (dict(arch=80, div=.951, inside=.931, js=.0799, cov=.801, wobble=0*WOBBLE), 'success'),
    (dict(arch=80, wobble=0*WOBBLE), 'success'), (dict(arch=79.9), 'inconclusive'),
    (dict(div=.95, wobble=0*WOBBLE), 'success'), (dict(div=.949), 'partial'),
    (dict(inside=.93, wobble=0*WOBBLE), 'success'), (dict(inside=.929), 'partial'),
    (dict(js=.0799), 'success'), (dict(js=.08, wobble=0*WOBBLE), 'partial'),
    (dict(cov=.801), 'success'), (dict(cov=.8, wobble=0*WOBBLE), 'partial'),
    (dict(inside=.901), 'partial'), (dict(inside=.899), 'abort'),
    (dict(inside=.899, arch=40), 'abort'), (dict(inside=.899, arch=60), 'abort'),
    (dict(arch=50, wobble=0*WOBBLE), 'inconclusive'), (dict(arch=49.9), 'not effective'),
    (dict(arch=49.9, inside=.91), 'not effective'), (dict(arch=60, inside=.91), 'inconclusive'),
    (dict(arch=40, div=.836, inside=.995, js=.044, cov=.82), 'not effective'),  # the published run
    (dict(arch=120, div=.98, inside=.933, js=.204, cov=.733), 'partial')])
def test_every_branch_of_the_decision_tree_gives_its_verdict_and_advice(figures, want):
    v = verdict(record(**figures))
    assert v['verdict'] == want and v['reasons'][0] == ADVICE[want]
    assert json.loads(json.dumps(v))['verdict'] == want


FIVE = 'arch', 'div', 'inside', 'js', 'cov'


def test_the_thresholds_are_those_of_davis():
    want = dict(arch=('>=', 80, 50), div=('>=', .95, .80), inside=('>=', .93, .90), js=('<', .08, .12),
                cov=('>', .80, .75))
    assert dict(zip(FIVE, CRITERIA.values())) == want
    assert [SHORT[k] for k in FIVE] == list(CRITERIA)


@pytest.mark.parametrize('name, at, beyond', [
    ('arch', 50, 49.9), ('div', .8, .799), ('inside', .9, .899), ('js', .12, .121), ('cov', .75, .749)])
def test_a_value_beyond_the_failure_line_is_a_failure_and_one_on_it_is_not(name, at, beyond):
    def failed(v):
        judged = judge(record(wobble=0*WOBBLE, **{name: v}))
        return [c['failed'] for c in judged if c['metric'] == SHORT[name]]
    assert (failed(at), failed(beyond)) == ([False], [True])
    reasons = ' '.join(verdict(record(**{name: beyond}))['reasons'])
    assert f'{SHORT[name]}' in reasons and 'beyond the failure line' in reasons


def test_a_partial_success_names_what_is_missed():
    inside, js = verdict(record(inside=.92)), verdict(record(js=.09))
    assert TOP_P in inside['reasons'] and TOP_P not in js['reasons']
    assert any('distribution/edge_js 0.0900 is not < 0.0800' in r for r in js['reasons'])


WORSE = dict(arch=40, div=.7, inside=.92, js=.2, cov=.6)
BASE = dict(arch=60, div=.8, inside=.95, js=.1, cov=.7)


def test_worse_than_the_baseline_on_every_criterion_is_a_bug():
    assert verdict(record(**WORSE), record('base', **BASE))['verdict'] == 'bug'
    assert verdict(record(**WORSE | dict(inside=.5)), record('base', **BASE))['verdict'] == 'bug'
    assert verdict(record(**WORSE))['verdict'] == 'not effective'


@pytest.mark.parametrize('name', BASE)
def test_as_good_as_the_baseline_on_one_criterion_is_no_bug(name):
    assert verdict(record(**WORSE | {name: BASE[name]}), record('base', **BASE))['verdict'] != 'bug'


def test_worse_within_the_interval_is_no_bug():
    noisy = record(**WORSE)
    for s, d in zip(noisy['per_seed'], (-.3, .3, -.3, .3, -.02)): s[SHORT['div']] = BASE['div'] + d
    assert verdict(noisy, record('base', **BASE))['verdict'] != 'bug'


def test_passing_every_criterion_is_success_even_if_the_baseline_is_better():
    better = record('base', arch=130, div=.995, inside=.999, js=.001, cov=.95)
    assert verdict(record(), better)['verdict'] == 'success'


def test_a_baseline_of_other_seeds_is_refused():
    other = record('base', **BASE)
    other['params']['seeds'] = 'others'
    with pytest.raises(ValueError, match='no pair'): verdict(record(**WORSE), other)


@pytest.mark.parametrize('key, arch, want', [
    ('sigma', 50, 'Yes'), ('sigma', 49, 'No'), ('weighting', 50, 'Yes'), ('weighting', 49, 'No'),
    ('denoiser', 49, 'Yes'), ('denoiser', 50, 'No')])
def test_the_three_questions_after_no_effect(key, arch, want):
    v = verdict(record(arch=40), evidence={key: record('changed', arch=arch, wobble=0*WOBBLE)})
    answers = v['reasons'][1:4]
    parts = 'changed', f'? {want}:', f'{arch:.1f}'
    assert any(all(part in a for part in parts) for a in answers) and len(answers) == 3
    assert sum('Open:' in a for a in answers) == 2


def test_questions_are_asked_for_every_outcome_but_success():
    assert not any('Open:' in r for r in verdict(record())['reasons'])
    for missed in dict(arch=60), dict(arch=40), dict(div=.9), dict(inside=.8):
        assert sum('Open:' in r for r in verdict(record(**missed))['reasons']) == 3, missed
    with pytest.raises(ValueError, match='no question sigmas'):
        verdict(record(arch=40), evidence=dict(sigmas=record()))


# ---- size

@pytest.mark.parametrize('r', [record(samples=200), record(seeds=4), record(samples=5000),
                               dict(record(), params={})])
def test_records_of_another_size_are_refused_without_anyway(r):
    calls = [(verdict, [r]), (goals, [r, heldout()]), (goals, [record(), r]), (verdict, [record(), r]),
             (forecasts, [record(**FULL), [r]]), (recommendation, [[r, heldout()]])]
    for call, arguments in calls:
        with pytest.raises(ValueError,
                           match=r'm has .* the criteria are for 5 x 1000: sample it again .* anyway=True'):
            call(*arguments)
    assert verdict(r, anyway=True)['verdict'] == 'success'
    require_size([record(), record(seeds=5)])


def test_ten_seeds_are_as_good_as_five():
    ten = record(seeds=10, wobble=np.zeros(10))
    require_size([ten])
    assert len(ten['per_seed']) == 10
    assert verdict(ten)['verdict'] == verdict(record())['verdict'] == 'success'
    assert [c['value'] for c in verdict(ten)['criteria']] == [GOOD[k] for k in FIVE]


# ---- one criterion

def test_the_interval_is_that_of_the_mean_over_seeds():
    r = record(wobble=np.array([.1, -.2, .05, .3, 0]))
    v, (low, high) = estimate(r, SHORT['div'])
    values = [s[SHORT['div']] for s in r['per_seed']]
    want = ttest_1samp(values, 0).confidence_interval(.95)
    assert (v, low, high) == pytest.approx((np.mean(values), want.low, want.high))
    resampled = bootstrap((values,), np.mean, n_resamples=999, rng=0).confidence_interval
    assert low < resampled.low < v < resampled.high < high


def test_one_seed_has_a_value_and_no_interval():
    g = criterion(record(seeds=1, wobble=[0]), SHORT['div'], '>=', .95)
    assert g['passed'] and not g['sure'] and np.isnan(g['interval']).all()


def test_a_criterion_is_passed_surely_only_with_the_whole_interval():
    wide = record(div=.951, wobble=np.array([-.1, -.05, 0, .05, .1]))
    g = criterion(wide, SHORT['div'], '>=', .95)
    assert g['passed'] and not g['sure'] and g['interval'][0] < .95 < g['value']
    assert any('but its interval does not' in r for r in verdict(wide)['reasons'])
    assert criterion(record(div=.96), SHORT['div'], '>=', .95)['sure']


def test_a_metric_that_was_not_measured_is_named():
    with pytest.raises(ValueError, match='m has no c2st/auc: evaluate that method again'):
        goals(record(auc=None), heldout())


# ---- the held-out reference

@pytest.mark.parametrize('name, good, bad', [
    ('inside', .993, .9929), ('js', .01, .0101), ('mmd', .005, .0051), ('auc', .60, .601), ('nfe', 36, 36.1),
    ('arch', 125*.86, 125*.84), ('arch', 125*1.14, 125*1.16), ('cov', .891, .889), ('cov', .949, .951)])
def test_every_goal_from_both_sides(name, good, bad):
    still = dict(wobble=0*WOBBLE)
    assert goals(record(**{name: good}, **still), heldout(**still))['reached']
    missed = goals(record(**{name: bad}, **still), heldout(**still))
    assert not missed['reached'] and [g['metric'] for g in missed['criteria']
                                      if not g['passed']] == [SHORT[name]]
    assert set(GOALS) == {g['metric'] for g in missed['criteria']}


@pytest.mark.parametrize('figures, sharp', [(dict(arch=110, inside=.999), True),
                                            (dict(arch=130, inside=.999), False),
                                            (dict(arch=110, inside=.99), False),
                                            (dict(arch=125, inside=.999), False)])
def test_better_than_the_data_is_called_sharpening(figures, sharp):
    assert goals(record(**figures), heldout())['notes'] == [SHARP]*sharp


def test_within_the_interval_of_the_reference_is_no_sharpening():
    loose = heldout(wobble=np.array([-.2, -.1, 0, .1, .2]))
    assert goals(record(arch=110, inside=.999), loose)['notes'] == []


# ---- forecasts

FULL = {k: low for k, (_, low, _) in FORECASTS.items()}
V2 = 'v2_llada_topp09_remdm_confidence_tsw10'


def test_the_forecasts_against_the_published_run():
    published = read_published(PRINTED)
    df = forecasts(record(V2, **FULL), [], published).set_index('metric')
    there = {k: v.replace('no: ', '') for k, v in df['true there'].items()}
    want = dict(arch='below', div='below', nov='below', inside='above', js='below', cov='yes')
    assert {k: there[SHORT[k]] for k in want} == want
    others = {'distribution/node_js': 'below', 'distribution/edge_tv': 'below',
              'validity/validity': 'above', 'validity/spatial_transitivity': 'above'}
    assert {k: there[k] for k in others} == others
    assert df.published[SHORT['arch']] == '40.0'
    assert (df['true there'].iloc[-1], df['true here'].iloc[-1]) == ('--', '--')


def test_the_forecast_of_the_spread_is_true_of_the_published_family():
    novelty = {'03': .9, '05': .909, '07': .9, '10': .9}
    family = [record(f'llada_topp09_remdm_confidence_tsw{t}', nov=n, cov=.7) for t, n in novelty.items()]
    last = forecasts(record(**FULL), family, read_published(PRINTED)).iloc[-1]
    assert (last['true there'], last['true here'], last.published, last.ours) == ('yes', 'yes', '0.006411',
                                                                                  '0.006300')


@pytest.mark.parametrize('metric', FORECASTS)
def test_a_forecast_is_true_between_its_ends(metric):
    _, low, high = FORECASTS[metric]
    for v, want in ((low, 'yes'), (high, 'yes'), (low*.999, 'no: below'), (high*1.001, 'no: above')):
        df = forecasts(record(wobble=0*WOBBLE, **FULL | {metric: v})).set_index('metric')
        assert df['true here'][metric] == want


# ---- the recommendation

def test_those_that_pass_come_first_by_useful_diversity_then_the_nearest_misses():
    rs = [record('far', arch=30, div=.5), record('plain', nov=.7), record('near', div=.94),
          record('best', nov=.9),
          record('nearer', div=.945), heldout()]
    assert [r['method'] for r, _ in rank(rs)] == ['best', 'plain', 'nearer', 'near', 'far']
    assert product(rs[3]).mean() == pytest.approx(.81)
    assert shortfall(judge(record(arch=65, div=.80))) == (2, pytest.approx(1.5))


def test_the_page_recommends_from_the_numbers():
    v1 = record('v1', arch=100, div=.9, inside=.8, js=.2)
    rs = [record('plain', nov=.7, nfe=20), record('best', nov=.9), v1, heldout()]
    text = recommendation(rs, rivals=['v1', 'absent'])
    assert '**best** passes all criteria' in text and '30.0 function evaluations (NFE)' in text
    assert 'best dominates v1.' in text and 'absent' not in text and 'Every goal is reached by best' in text
    line = next(l for l in text.splitlines() if l.startswith('| plain'))
    assert '-0.1800 ±' in line and '| 20.0 |' in line and line.endswith('| none |')
    volume = (.99*.495*(math.log(2) - .005), .9*.3*(math.log(2) - .2))
    assert f'all methods: {volume[0]:.4f}' in text and f'v1 alone: {volume[1]:.4f}' in text


def test_if_none_passes_the_page_names_the_nearest_method_and_what_it_misses():
    text = recommendation([record('a', div=.94), record('b', arch=30, div=.7), heldout()])
    assert 'No method passes all criteria. The nearest miss is **a**' in text
    assert 'coverage/diversity 0.9400 is not >= 0.9500' in text and 'passes all criteria and' not in text


def test_sharpening_is_noted_and_a_smoke_run_is_marked():
    text = recommendation([record('a', arch=110, inside=.999), heldout()])
    assert SHARP in text and 'not to be quoted' not in text
    assert 'not to be quoted' in recommendation([record(samples=9), heldout(samples=9)], anyway=True)
    with pytest.raises(ValueError,
                       match="expected methods and the record 'heldout'"): recommendation([record()])


def test_every_branch_has_an_advice_and_every_advice_a_branch():
    cases = [({}, 0), (WORSE, 1), (dict(inside=.8), 0), (dict(js=.1), 0), (dict(arch=9), 0),
             (dict(arch=60), 0)]
    reached = {branch(judge(record(**figures)), worse) for figures, worse in cases}
    assert reached == set(ADVICE)
