"""MLflow's pages in a browser: the table of runs, the charts, the artifacts of a run, of a moved store."""
import os, shutil, sys
import pytest
from browser import browser, free_port, needs_browser, server
from remask.pipeline.tracking import log_run, open_experiment, prepare_view, runs

METHODS = ['remdm_cap', 'fixed_count', 'confidence_order', 'heldout']
pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope='module')
def moved(tmp_path_factory):
    "A store of an experiment with four methods, in another place than the one it was written in"
    old, new = tmp_path_factory.mktemp('first')/'old place', tmp_path_factory.mktemp('second')/'new'
    page = tmp_path_factory.mktemp('page')/'differences.md'
    page.write_text('paired differences to every other method\n')
    exp = open_experiment(old, 'plans')
    for k, method in enumerate(METHODS):
        metrics = {'distribution/edge_js': (.1*k, .01), 'cost/nfe': (100. - k, 0.)}
        log_run(exp, method, metrics, artifacts=[page])
    columns = ['metrics.distribution/edge_js', 'metrics.cost/nfe']
    names = ['distribution/edge_js', 'cost/nfe']
    view = prepare_view(exp, columns, names, tuple(names), names, columns[0])
    shutil.move(old, new)
    return new, exp.id, view, runs(open_experiment(new, 'plans'), 'remdm_cap')[0].info.run_id


@pytest.fixture(scope='module')
def address(moved):
    port, (root, *_) = free_port(), moved
    store = ['--backend-store-uri', 'sqlite:///mlruns/mlflow.db',
             '--artifacts-destination', 'mlruns/artifacts']
    command = [sys.executable, '-m', 'mlflow', 'ui', *store, '--host', '127.0.0.1', '--port', str(port)]
    env = os.environ | dict(MLFLOW_DISABLE_TELEMETRY='true', MLFLOW_SERVER_ENABLE_JOB_EXECUTION='false')
    url = f'http://127.0.0.1:{port}'
    with server([*command, '--workers', '1'], f'{url}/health', cwd=root, env=env): yield url


@pytest.fixture
def page(tmp_path):
    with browser(tmp_path) as opened: yield opened


def test_the_table_shows_every_method_with_its_columns(page, address, moved, tmp_path):
    page.open(f'{address}/{moved[2]}')
    page.wait_for_text(*METHODS, 'edge_js', 'nfe')
    page.picture(tmp_path/'table.png')


def test_the_charts_are_drawn(page, address, moved, tmp_path):
    page.open(f'{address}/{moved[2]}&compareRunsMode=CHART')
    page.wait_for_text('distribution/edge_js', 'cost/nfe', 'remdm_cap')
    page.picture(tmp_path/'charts.png')


def test_a_run_shows_its_artifacts(page, address, moved, tmp_path):
    page.open(f'{address}/#/experiments/{moved[1]}/runs/{moved[3]}/artifacts/differences.md')
    page.wait_for_text('remdm_cap', 'differences.md', 'paired differences to every other method')
    page.picture(tmp_path/'artifacts.png')
