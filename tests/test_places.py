"""The project in folders with unusual names: each has a store of its own, and nothing lies beside it."""
import os, pathlib, shutil, subprocess, sys
import pytest
from remask.pipeline.tracking import log_run, open_experiment, runs

ROOT = pathlib.Path(__file__).parents[1]
PLACES = [
    'a b',
    '50%2F, what?',
    "Maße–été #1 & it's; +",
    '/'.join(['long' * 25] * 3),
]


@pytest.mark.parametrize('name', PLACES)
def test_what_is_recorded_is_read_again_and_no_other_folder_appears(tmp_path, name):
    root = tmp_path/name
    root.mkdir(parents=True)
    before = {*tmp_path.rglob('*')}
    log_run(open_experiment(root, 'plans'), 'cap', {'validity/validity': (.5, .1)})
    run, = runs(open_experiment(root, 'plans'))
    assert run.data.metrics['validity/validity'] == .5
    assert (root/'mlruns'/'mlflow.db').is_file()
    made = {*tmp_path.rglob('*')} - before
    assert all(p.is_relative_to(root/'mlruns') for p in made)


def test_neighbours_whose_names_differ_by_quoting_share_nothing(tmp_path):
    names = 'a b', 'a%20b'
    for name in names: log_run(open_experiment(tmp_path/name, 'plans'), name, {'v': (0., 0.)})
    for name in names:
        run, = runs(open_experiment(tmp_path/name, 'plans'))
        assert run.info.run_name == name


# ---- the whole project

def place(to):
    "The working tree as git has it after the next commit, in a repository of its own, with this environment"
    done = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT,
                          capture_output=True, check=True, text=True)
    for name in filter(None, done.stdout.split('\0')):
        if not (ROOT/name).is_file() or name.startswith('.venv'): continue
        (to/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/name, to/name)
    return to


def run(at, *words, **env):
    "Run a command of the environment in a folder; return its exit status and what it printed"
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | dict(PATH=path) | env
    done = subprocess.run(words, cwd=at, capture_output=True, text=True, env=env)
    return done.returncode, done.stdout + done.stderr


def test_an_environment_that_mlflow_cannot_run_from_is_refused_before_it_is_made(tmp_path):
    at = tmp_path/'50% done'
    at.mkdir()
    for name in ('Makefile', 'requirements.lock', 'pyproject.toml'): shutil.copy2(ROOT/name, at/name)
    code, said = run(at, 'make', 'env')
    assert code and '% in its name' in said and 'rename it' in said and not (at/'.venv').exists()


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "The project in a folder named with a blank and signs of URLs and shells; the path is long"
    at = place(tmp_path_factory.mktemp('places')/'a b 50%2F #1'/'Maße–été?'/('long'*25)/('long'*25))
    assert len(str(at)) > 200
    run(at, 'git', 'init', '-q')
    code, printed = run(at, 'remask', 'profile', 'smoke', PYTHONPATH=str(at))
    assert code == 0, printed
    pull = 'from remask.pipeline.store import pull; pull()'
    code, printed = run(at, sys.executable, '-c', pull, PYTHONPATH=str(at))
    assert code == 0, printed
    return at


def prepares(project, folder, **env):
    "Run a stage in a folder of the project; return what it printed"
    rows = project/'build/prepare/plans/tokens.safetensors'
    rows.unlink(missing_ok=True)
    words = 'remask-stage', 'prepare', 'data=plans'
    code, printed = run(project/folder, *words, PYTHONPATH=str(project), **env)
    assert code == 0 and rows.is_file(), printed
    return printed


@pytest.mark.parametrize('folder', ['.', 'nbs'])
def test_a_stage_runs_in_any_folder_of_the_project(project, folder):
    assert 'remask: plans: ' in prepares(project, folder)
    assert (project/'reports/notebooks/prepare-plans.ipynb').is_file()
    assert not (project/'nbs/build').exists() and not (project/'nbs/reports').exists()


def test_a_stage_runs_where_the_home_folder_cannot_be_written(project):
    printed = prepares(project, '.', HOME='/dev/null', XDG_CACHE_HOME='', XDG_CONFIG_HOME='')
    assert 'writable' not in printed and 'temporary' not in printed
    assert (project/'build/caches/ipythondir').is_dir()


def test_dvc_finds_the_data_and_the_networks_without_a_home_folder(project):
    home = str(project/'none')
    code, printed = run(project, 'dvc', 'status', 'data.dvc', 'train@plans-v1', HOME=home)
    assert code == 0 and 'data/' not in printed and 'build/train' not in printed, printed
    assert (project/'build/train/plans/v1/net.safetensors').is_file()


def test_sources_have_the_same_bytes_where_git_changes_line_ends(tmp_path):
    at = tmp_path/'clone'
    place(tmp_path/'origin')
    for words in ['init -q', 'add -A', '-c user.name=a -c user.email=a@b commit -qm all']:
        run(tmp_path/'origin', 'git', *words.split())
    code, printed = run(tmp_path, 'git', '-c', 'core.autocrlf=true', 'clone', '-q', 'origin', 'clone')
    assert code == 0, printed
    run(at, 'git', 'config', 'core.autocrlf', 'true')
    assert run(at, 'git', 'status', '--short') == (0, '')
    for name in ('remask/core/sampler.py', 'nbs/1_core/12_sampler.ipynb', 'dvc.yaml', 'dvc.lock', '.ci/run'):
        assert (at/name).read_bytes() == (ROOT/name).read_bytes() and b'\r' not in (at/name).read_bytes()
    objects = [p.relative_to(at) for p in (at/'.dvcstore/files').rglob('*') if p.is_file()]
    assert len(objects) > 50 and all((at/p).read_bytes() == (ROOT/p).read_bytes() for p in objects)
