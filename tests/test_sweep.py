"""A sweep runs stages side by side, gives what DVC gives by itself, and goes on where it stopped."""
import importlib.util, json, os, pathlib, shutil, subprocess, sys
import nbformat, pytest, yaml
from dvc.repo import Repo
from remask.core.engine import Engine, TaskError
from remask.pipeline import cli
from remask.pipeline.sweep import run_sweep

needs_ray = pytest.mark.skipif(importlib.util.find_spec('ray') is None,
                               reason="ray is not installed: pip install 'remask[ray]'")
ENGINE = "engine = 'serial'\naddress = ''\ngpus = 0"
SAMPLE = f"""method = 'a'
{ENGINE}
%%
from pathlib import Path
import os, signal
from remask.core.engine import Engine, run_tasks
%%
def square(k): return k*k
seed = int(Path('seed.txt').read_text())
if Path('fail').exists() and method == 'b': raise ValueError('no good')
kill = Path('kill')
if kill.exists() and method == 'b':
    kill.unlink()
    os.kill(os.getppid(), signal.SIGKILL)
tasks = [(seed + k,) for k in range(3)]
done = run_tasks(square, tasks, Engine(engine, address, gpus=gpus))
Path('build', method).write_text(f'{{method}} {{done}}')"""
EVALUATE = """method = 'a'
%%
from pathlib import Path
Path('build', f'{method}.json').write_text(str(len(Path('build', method).read_text())))"""
PIPELINE = dict(
    prepare=dict(cmd='echo 3 > seed.txt', outs=['seed.txt']),
    sample=dict(foreach='${methods}', do=dict(
        cmd='remask-stage sample method=${key}', outs=['build/${key}'],
        deps=['seed.txt', 'nbs/experiments/toy/sample.ipynb'])),
    evaluate=dict(foreach='${methods}', do=dict(
        cmd='remask-stage evaluate method=${key}',
        deps=['build/${key}', 'nbs/experiments/toy/evaluate.ipynb'],
        outs=['build/${key}.json', 'reports/notebooks/evaluate-${key}.ipynb'])))


def notebook(text):
    "Cells between marks, the first tagged as parameters"
    made = [nbformat.v4.new_code_cell(part.strip()) for part in text.split('%%')]
    made[0].metadata.tags = ['parameters']
    return nbformat.writes(nbformat.v4.new_notebook(cells=made))


@pytest.fixture
def project(tmp_path, monkeypatch):
    "Two methods, each with a stage that samples and one that evaluates"
    folder = tmp_path/'nbs/experiments/toy'
    folder.mkdir(parents=True)
    (tmp_path/'build').mkdir()
    (folder/'sample.ipynb').write_text(notebook(SAMPLE))
    (folder/'evaluate.ipynb').write_text(notebook(EVALUATE))
    params = dict(run={}, data={}, processes={}, methods=dict(a={}, b={}))
    (tmp_path/'params.yaml').write_text(yaml.safe_dump(params))
    (tmp_path/'dvc.yaml').write_text(yaml.safe_dump(dict(stages=PIPELINE)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PATH', f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}')
    Repo.init('.', no_scm=True).reproduce(['prepare'])
    return tmp_path


def runs(): return [json.loads(line)['given']['method'] for line in open('build/durations.jsonl')]
def results():
    return {p.name: p.read_bytes() for p in pathlib.Path('build').iterdir() if p.suffix != '.jsonl'}


def locked(): return yaml.safe_load(pathlib.Path('dvc.lock').read_text())['stages']


def check_serial(project, other):
    "Running the stages one after the other gives the same results and the same lock"
    leave = shutil.ignore_patterns('build', 'reports', 'dvc.lock', 'cache', 'tmp')
    shutil.copytree(project, other, ignore=leave)
    (other/'build').mkdir()
    here, lock = results(), locked()
    os.chdir(other)
    Repo('.').reproduce()
    assert results() == here and locked() == lock


def test_stages_side_by_side_leave_nothing_to_do(project):
    report = run_sweep(['sample', 'evaluate'], {}, Engine('local'))
    assert report == 'sample: 2 run, 0 up to date\nevaluate: 2 run, 0 up to date'
    assert (project/'build/b').read_text() == 'b [9, 16, 25]'
    again = run_sweep(['sample', 'evaluate'], {}, Engine('local'))
    assert again == 'sample: 0 run, 2 up to date\nevaluate: 0 run, 2 up to date' and len(runs()) == 4
    assert Repo('.').status() == {} and Repo('.').reproduce() == []


def test_a_stage_that_fails_is_named_and_those_that_are_done_are_not_run_again(project):
    (project/'fail').touch()
    with pytest.raises(TaskError, match='remask-stage sample method=b: RuntimeError: ValueError: no good'):
        run_sweep(['sample'], {}, Engine('serial'))
    (project/'fail').unlink()
    assert run_sweep(['sample'], {}, Engine('serial')) == 'sample: 1 run, 1 up to date'
    assert runs() == ['a', 'b']


def test_what_a_sweep_needs_is_said_before_anything_runs(project, capsys):
    with pytest.raises(ValueError, match='evaluate@a needs sample@a, .* run dvc repro sample@a'):
        run_sweep(['evaluate', 'sample'], {})
    with pytest.raises(ValueError, match='no stage sample has method=c'):
        run_sweep(['sample'], dict(method='c'))
    with pytest.raises(SystemExit): cli.main(['sweep', 'sampel'])
    assert "has no stage 'sampel'" in capsys.readouterr().err
    assert not (project/'build/durations.jsonl').exists()


@pytest.mark.slow
def test_a_run_of_dvc_at_the_same_time_is_refused(project):
    from dvc.repo import lock_repo
    with lock_repo(Repo('.')):
        code = 'from remask.pipeline.cli import main; main(["sweep", "sample"])'
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 2 and 'Unable to acquire lock' in done.stderr


@needs_ray
@pytest.mark.slow
def test_a_cluster_gives_what_dvc_gives_also_where_a_worker_is_killed(project, tmp_path_factory):
    from ray.cluster_utils import Cluster
    node = dict(num_cpus=1, object_store_memory=80*2**20)
    cluster = Cluster(initialize_head=True, head_node_args=dict(node, include_dashboard=False))
    cluster.add_node(**node)
    (project/'kill').touch()
    try: report = run_sweep(['sample', 'evaluate'], {}, Engine('ray', cluster.address))
    finally: cluster.shutdown()
    assert report == 'sample: 2 run, 0 up to date\nevaluate: 2 run, 0 up to date'
    assert not (project/'kill').exists() and sorted(runs()) == ['a', 'a', 'b', 'b']
    assert Repo('.').status() == {} and Repo('.').reproduce() == []
    check_serial(project, tmp_path_factory.mktemp('serial')/'project')
