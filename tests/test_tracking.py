"""The store: one live run per method, safe to move, safe to open twice at once, a view the UI can read."""
import base64, json, shutil, sqlite3, subprocess, sys, zlib
import pytest
from remask.pipeline.tracking import NOTE, live, log_run, open_experiment, prepare_view, runs

METRICS = {'validity/validity': (.98, .01), 'coverage/diversity': (.9, .02)}
SEEDS = [{k: m - s for k, (m, s) in METRICS.items()}, {k: m + s for k, (m, s) in METRICS.items()}]


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp('store')
    open_experiment(root, 'empty')
    return root


def test_rerun_keeps_one_live_run_and_the_newest_values(store):
    exp = open_experiment(store, 'rerun')
    for eta in (.2, .4, .6):
        log_run(exp, 'cap', {'v/x': (eta, 0.)}, params={'eta': eta, 'absent': None})
        log_run(exp, 'none', METRICS, SEEDS)
    assert sorted(r.info.run_name for r in runs(exp)) == ['cap', 'none']
    cap, = runs(exp, 'cap')
    assert (
        cap.data.params == {'eta': '0.6'} and cap.data.metrics['v/x'] == 0.6 and cap.info.status == 'FINISHED'
    )


def test_latest_value_is_the_mean_and_history_holds_each_seed(store):
    exp = open_experiment(store, 'seeds')
    run = log_run(exp, 'none', METRICS, SEEDS)
    for name, (mean, std) in METRICS.items():
        data = exp.client.get_run(run).data.metrics
        assert data[name] == pytest.approx(mean) and data[name + '_std'] == pytest.approx(std)
        history = {m.step: m.value for m in exp.client.get_metric_history(run, name)}
        assert history == pytest.approx({-2: mean - std, -1: mean + std, 0: mean})


def test_a_failed_recording_leaves_the_old_run_alone(store):
    exp = open_experiment(store, 'failed')
    old = log_run(exp, 'none', METRICS)
    with pytest.raises(Exception): log_run(exp, 'none', {'bad name\n!': (1., 0.)})
    with pytest.raises(FileNotFoundError, match='make it first'):
        log_run(exp, 'none', METRICS, artifacts=['nowhere'])
    assert [r.info.run_id for r in runs(exp)] == [old]


def test_more_metrics_than_one_batch_may_hold(store):
    exp = open_experiment(store, 'many')
    many = {f'f/m{i}': (float(i), 0.) for i in range(60)}
    run = log_run(exp, 'm', many, [dict.fromkeys(many, 1.)]*20)
    assert len(exp.client.get_run(run).data.metrics) == 120


def test_nothing_in_the_store_names_its_folder_and_a_moved_store_is_whole(tmp_path):
    old, new = tmp_path/'old place', tmp_path/'new'
    figure = tmp_path/'figure.txt'
    figure.write_text('seen')
    log_run(open_experiment(old, 'e'), 'none', METRICS, artifacts=[figure])
    text = ' '.join(sqlite3.connect(old/'mlruns'/'mlflow.db').iterdump())
    assert str(tmp_path) not in text
    shutil.move(old, new)
    exp = open_experiment(new, 'e')
    run, = runs(exp)
    place = run.info.artifact_uri.removeprefix('mlflow-artifacts:/')
    assert (new/'mlruns'/'artifacts'/place/'figure.txt').read_text() == 'seen'


def test_processes_that_create_the_store_at_once(tmp_path):
    code = f"from remask.pipeline.tracking import open_experiment; open_experiment({str(tmp_path)!r}, 'e')"
    for p in [subprocess.Popen([sys.executable, '-c', code]) for _ in range(2)]: assert p.wait() == 0
    assert not (tmp_path/'mlruns'/'mlflow.new').exists()


def test_a_creation_that_was_cut_short_is_made_again(tmp_path):
    (tmp_path/'mlruns').mkdir()
    (tmp_path/'mlruns'/'mlflow.new').write_text('half a database')
    assert runs(open_experiment(tmp_path, 'e')) == []


def test_a_deleted_experiment_comes_back(store):
    exp = open_experiment(store, 'gone')
    exp.client.delete_experiment(exp.id)
    log_run(open_experiment(store, 'gone'), 'none', METRICS)
    assert len(runs(exp)) == 1


def test_a_training_cut_short_goes_on_in_the_same_run_and_a_new_one_replaces_it(store):
    exp = open_experiment(store, 'training')
    with pytest.raises(KeyboardInterrupt), live(exp, 'v1') as log:
        log(0, {'loss': 2.})
        raise KeyboardInterrupt
    with live(exp, 'v1', start=1, params={'lr': 3e-4}) as log: log(1, {'loss': 1.})
    first, = runs(exp, 'v1')
    assert [m.step for m in exp.client.get_metric_history(first.info.run_id, 'loss')] == [0, 1]
    with live(exp, 'v1') as log: log(0, {'loss': 3.})
    second, = runs(exp, 'v1')
    assert second.info.run_id != first.info.run_id and second.info.status == 'FINISHED'


def test_points_that_a_resumed_training_repeats_are_logged_once(store):
    exp = open_experiment(store, 'repeated')
    with pytest.raises(KeyboardInterrupt), live(exp, 'v1') as log:
        for step in range(4): log(step, {'loss': 4. - step})
        raise KeyboardInterrupt
    with live(exp, 'v1', start=2) as log:
        for step in range(2, 6): log(step, {'loss': 4. - step, 'accuracy': .5})
    run, = runs(exp, 'v1')
    for name, steps in dict(loss=[0, 1, 2, 3, 4, 5], accuracy=[2, 3, 4, 5]).items():
        assert [m.step for m in exp.client.get_metric_history(run.info.run_id, name)] == steps


def test_the_view_shows_every_run_the_asked_columns_and_no_chart_that_was_not_asked_for(store):
    exp = open_experiment(store, 'view')
    log_run(exp, 'none', METRICS, SEEDS, {'eta': .1}, {NOTE: '**seen**'})
    for _ in range(2):
        url = prepare_view(exp, ['params.eta', 'metrics.validity/validity'], ['validity/validity'],
                                          list(METRICS), list(METRICS), 'metrics.validity/validity')
    tags = {k: v for k, v in exp.client.get_experiment(exp.id).tags.items()
            if k.startswith('mlflow.sharedViewState.')}
    (key, value), = tags.items()
    assert url.endswith('viewStateShareKey=' + key.rsplit('.', 1)[1])
    state = json.loads(zlib.decompress(base64.b64decode(json.loads(value)['state'].removeprefix('deflate;'))))
    assert state['runsHiddenMode'] == 'SHOWALL'
    assert state['selectedColumns'] == ['params.`eta`', 'metrics.`validity/validity`']
    shown = [c for c in state['compareRunCharts'] if not c['deleted']]
    assert [c['type'] for c in shown] == ['SCATTER', 'PARALLEL', 'BAR']
    assert {c['metricSectionId'] for c in shown} == {s['uuid'] for s in state['compareRunSections']}
    deleted = {c['metricKey'] for c in state['compareRunCharts'] if c['deleted']}
    assert deleted == {'coverage/diversity', 'validity/validity_std', 'coverage/diversity_std'}
    assert len({c['uuid'] for c in state['compareRunCharts']}) == len(state['compareRunCharts'])
