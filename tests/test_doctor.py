"""Damage of store, checkpoints and database is named, and what is said to get it back does."""
import json, os, shutil, sqlite3, subprocess, sys
from pathlib import Path
import pytest, torch
from remask.core.files import save_tensors, write_whole
from remask.pipeline.cli import main
from remask.pipeline.doctor import artifact_faults, examine, rebuild_database, store_faults
from remask.pipeline.tracking import database_fault, log_run, open_experiment, runs

ROOT = Path(__file__).parents[1]


def flip(path, place=-5):
    "One bit of a file"
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)


def run(folder, *words):
    env = os.environ | dict(DVC_NO_ANALYTICS='1', GIT_CONFIG_GLOBAL='/dev/null')
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A repository with the project's own settings of DVC and one file in its store"
    root = tmp_path_factory.mktemp('project')
    dvc = str(Path(sys.executable).with_name('dvc'))
    for words in ['git', 'init', '-q'], [dvc, 'init', '-q']: assert run(root, *words).returncode == 0
    shutil.copy(ROOT/'.dvc'/'config', root/'.dvc'/'config')
    save_tensors(root/'build'/'net.safetensors', dict(a=torch.arange(999.)), {})
    for words in ['add', '-q', 'build/net.safetensors'], ['push', '-q', '-r', 'store']:
        done = run(root, dvc, *words)
        assert done.returncode == 0, done.stderr
    run(root, 'git', 'add', '.dvcstore')
    return root


def test_a_corrupt_store_is_not_pulled(project, tmp_path):
    root = tmp_path/'copy'
    shutil.copytree(project, root)
    stored, = (root/'.dvcstore'/'files'/'md5').glob('??/*')
    flip(stored)
    shutil.rmtree(root/'.dvc'/'cache')
    (root/'build'/'net.safetensors').unlink()
    assert run(root, Path(sys.executable).with_name('dvc'), 'pull', '-q', '-r', 'store').returncode != 0
    assert not (root/'build'/'net.safetensors').exists()


def test_a_corrupt_store_is_named_and_comes_back(project, tmp_path):
    root = tmp_path/'copy'
    shutil.copytree(project, root)
    assert store_faults(root/'.dvcstore') == []
    stored, = (root/'.dvcstore'/'files'/'md5').glob('??/*')
    flip(stored)
    fault, = store_faults(root/'.dvcstore')
    command = fault.partition('; ')[2]
    assert str(stored) in fault and command.startswith('git checkout -- ')
    assert run(root, *command.split()).returncode == 0
    assert store_faults(root/'.dvcstore') == []


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    "A database that another process has made: this one keeps no connection to it"
    root = tmp_path_factory.mktemp('sound')
    code = "from remask.pipeline.tracking import open_experiment; open_experiment('.', 'e')"
    assert run(root, sys.executable, '-c', code).returncode == 0
    return root/'mlruns'/'mlflow.db'


def emptied(db): db.write_bytes(b'')
def torn(db): db.write_bytes(db.read_bytes()[:db.stat().st_size//2])
def overwritten(db): db.write_bytes(b'\xff'*9000)


def without_a_table(db):
    with sqlite3.connect(db) as c: c.execute('drop table metrics')
    c.close()


def no_text(db): # in what describes a table
    data = db.read_bytes()
    db.write_bytes(data.replace(b'PRIMARY KEY', b'PRIM\xff\xff\xff KEY'))


@pytest.mark.parametrize('damage', [emptied, torn, overwritten, without_a_table, no_text])
def test_a_damaged_database_is_named_and_kept(sound, tmp_path, damage):
    db = tmp_path/'mlruns'/'mlflow.db'
    write_whole(db, sound.read_bytes())
    assert database_fault(db) == ''
    damage(db)
    before = db.read_bytes()
    with pytest.raises(ValueError, match='mlflow.db: (is|has) .*; `remask doctor --rebuild`') as e:
        open_experiment(tmp_path, 'e')
    assert '\n' not in str(e.value) and db.read_bytes() == before


def test_a_damaged_database_is_rebuilt_from_what_is_on_disk(tmp_path):
    db = tmp_path/'mlruns'/'mlflow.db'
    write_whole(db, b'')
    record = dict(method='cap', summary={'v/x': (.5, .1)}, per_seed=[{'v/x': .5}], params=dict(eta=.1))
    write_whole(tmp_path/'build'/'metrics'/'plans-record'/'cap.json', json.dumps(record).encode())
    write_whole(tmp_path/'build'/'train'/'plans'/'v1'/'curve.jsonl', b'{"step": 9, "loss": 2.0}\n')
    assert '2 runs recorded again' in rebuild_database(tmp_path)
    cap, = runs(open_experiment(tmp_path, 'bubble-diagrams-record'), 'cap')
    curve, = runs(open_experiment(tmp_path, 'training'), 'plans-v1')
    assert cap.data.metrics['v/x'] == .5 and cap.data.params == {'eta': '0.1'}
    assert curve.data.metrics['loss'] == 2. and (db.parent/'mlflow.db.damaged').read_bytes() == b''


def test_damaged_files_are_named_among_whole_ones(tmp_path):
    for name in 'abc': save_tensors(tmp_path/'build'/f'{name}.safetensors', dict(x=torch.ones(9)), {})
    write_whole(tmp_path/'build'/'m.json', b'{"a": 1}')
    assert artifact_faults(tmp_path) == []
    flip(tmp_path/'build'/'b.safetensors')
    (tmp_path/'build'/'m.json').write_bytes(b'{"a": ')
    first, second = artifact_faults(tmp_path)
    assert 'b.safetensors: its contents are not what was written' in first
    assert 'm.json, line 1: is no JSON' in second


def test_the_command_ends_with_the_faults(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_whole(tmp_path/'requirements.lock', b'no-such-package==1\n')
    with pytest.raises(SystemExit) as e: main(['doctor'])
    said = capsys.readouterr().err
    assert e.value.code == 2 and 'remask: 1 faults\nno-such-package is missing, not 1; run make env' in said
    write_whole(tmp_path/'requirements.lock', b'torch==0\n')
    assert examine(tmp_path) == 'environment, store, files and database are whole'


def test_the_files_of_a_run_go_with_it(tmp_path):
    figure = tmp_path/'figure.txt'
    figure.write_text('seen')
    exp = open_experiment(tmp_path, 'e')
    for _ in range(3): log_run(exp, 'none', {'v/x': (.5, .1)}, artifacts=[figure])
    run, = runs(exp)
    assert [p.name for p in exp.files.iterdir()] == [run.info.run_id]
