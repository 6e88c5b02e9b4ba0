"""What a pull from the store says when it fails: the line of DVC, the cause and the command that helps."""
import hashlib, re, shutil, subprocess
import pytest, yaml
from dvc.repo import Repo
from remask.pipeline import store

PLANS, NETWORK = 'a\nb\n', 'b\na\n'
STAGES = """stages:
  train:
    cmd: mkdir -p build/net && tac data/plans.jsonl > build/net/net.txt
    deps: [data/plans.jsonl]
    params: [steps]
    outs:
    - build/net:
        remote: store
"""
FILES = {'dvc.yaml': STAGES, 'params.yaml': 'steps: 3\n', '.gitignore': '/data/\n/build/\n'}


def git(at, *words): subprocess.run(['git', '-C', at, *words], check=True, capture_output=True)


def dvc_repro(at):
    with Repo(at) as repo: repo.reproduce()


@pytest.fixture
def project(tmp_path, monkeypatch):
    "A small project with a store of its own, as after a clone: nothing is pulled"
    at = tmp_path/'a b%20'
    at.mkdir()
    monkeypatch.chdir(at)
    git(at, 'init', '-q')
    for name, text in FILES.items(): (at/name).write_text(text)
    Repo.init(at).close()
    (at/'.dvc/config').write_text("['remote \"store\"']\n    url = ../.dvcstore\n")
    (at/'data').mkdir()
    (at/'data/plans.jsonl').write_text(PLANS)
    md5 = hashlib.md5(PLANS.encode()).hexdigest()
    pinned = dict(md5=md5, hash='md5', path='data/plans.jsonl', remote='store')
    (at/'data.dvc').write_text(yaml.safe_dump(dict(outs=[pinned])))
    dvc_repro(at)
    with Repo(at) as repo:
        repo.push(['data.dvc', 'train'], remote='store')
    git(at, 'add', '-A')
    git(at, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'all')
    forget()
    return at


def forget():
    "Delete what was pulled or made"
    for name in ('data', 'build', '.dvc/cache', '.dvc/tmp'): shutil.rmtree(name, ignore_errors=True)


def refusal():
    "What a pull prints when it fails"
    with pytest.raises(SystemExit) as e: store.pull()
    return str(e.value)


def objects(): return [p for p in store.Path('.dvcstore/files').rglob('*') if p.is_file()]


def follow(printed):
    "Do as the printed sentence says"
    command = re.search(r'mkdir -p inputs && mv .* inputs/', printed).group()
    subprocess.run(command, shell=True, check=True)


def test_a_clone_is_pulled_once(project):
    store.pull()
    store.pull()
    assert (project/'data/plans.jsonl').read_text() == PLANS
    assert (project/'build/net/net.txt').read_text() == NETWORK


def test_a_file_of_your_own_in_data_is_moved_by_the_command_and_never_becomes_pinned(project):
    store.pull()
    pinned = (project/'data.dvc').read_bytes()
    (project/'data/my plans.jsonl').write_text('mine\n')
    (project/'params.yaml').write_text('steps: 4\n')
    dvc_repro(project)
    assert (project/'data.dvc').read_bytes() == pinned
    printed = refusal()
    assert "data/my plans.jsonl: not one of the project's files" in printed and 'store' not in printed
    follow(printed)
    store.pull()
    assert (project/'inputs/my plans.jsonl').read_text() == 'mine\n'


UNSAVED = "remask: DVC says: Can't remove the following unsaved files"


def test_data_that_were_changed_are_moved_by_the_command(project):
    store.pull()
    (project/'data/plans.jsonl').write_text('mine\n')
    printed = refusal()
    assert printed.startswith(UNSAVED)
    assert "yours differs from the project's: mkdir -p inputs && mv data/plans.jsonl inputs/" in printed
    follow(printed)
    store.pull()
    assert (project/'inputs/plans.jsonl').read_text() == 'mine\n'


def test_results_that_differ_are_deleted_by_the_command(project):
    store.pull()
    (project/'build/net/net.txt').write_text('mine\n')
    printed = refusal()
    assert printed.startswith(UNSAVED) and 'keep in inputs/ what you need' in printed
    subprocess.run(re.search(r'rm build/net/net.txt', printed).group(), shell=True, check=True)
    store.pull()
    assert (project/'build/net/net.txt').read_text() == NETWORK


def test_a_full_disk_is_no_damaged_store(project, monkeypatch):
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('shutil.copyfileobj', full)
    monkeypatch.setattr('dvc_objects.fs.system.reflink', full)
    monkeypatch.setattr('dvc_objects.fs.system.hardlink', full)
    monkeypatch.setattr('shutil.copyfile', full)
    printed = refusal()
    assert 'DVC says: ' in printed and 'No space left on device' in printed.splitlines()[0]
    assert printed.splitlines()[1] == 'remask: the disk is full: free some space and try again'


def test_every_file_that_the_store_lost_comes_back_by_the_command(project):
    files = objects()
    assert len(files) == 3                         # the plans, the network and the list of its folder
    for lost in files:
        forget()
        lost.unlink()
        printed = refusal()
        assert 'DVC says: ' in printed and 'run git checkout -- .dvcstore and try again' in printed, lost
        git(project, 'checkout', '--', '.dvcstore')
        store.pull()


def test_what_was_made_here_and_is_in_no_store_is_left_to_dvc_repro(project):
    store.pull()
    (project/'params.yaml').write_text('steps: 5\n')
    lock = yaml.safe_load((project/'dvc.lock').read_text())
    lock['stages']['train']['outs'][0]['md5'] = 'f'*32 + '.dir'   # made here once, then deleted
    (project/'dvc.lock').write_text(yaml.safe_dump(lock))
    forget()
    store.pull()
    assert (project/'data/plans.jsonl').exists() and not (project/'build').exists()
    dvc_repro(project)
    assert (project/'build/net/net.txt').read_text() == NETWORK


def test_without_git_the_named_command_is_enough(project):
    shutil.rmtree('.git')
    printed = refusal()
    assert 'DVC says: ' in printed and 'there is no .git folder here' in printed and 'run git init' in printed
    git(project, 'init', '-q')
    store.pull()
    assert (project/'data/plans.jsonl').exists()


@pytest.mark.parametrize('said, remedy', [
    ('ERROR: Disk quota exceeded', 'the disk is full'),
    ('database or disk is full', 'the disk is full'),
    ("[Errno 13] Permission denied: '/x/.dvc/tmp'", 'this folder cannot be written'),
    ('Unable to acquire lock', 'wait until it ends'),
    ('something new', 'says more'),
])
def test_each_cause_has_its_own_sentence(said, remedy): assert remedy in store.remedy(said)
