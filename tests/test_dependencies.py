"""The dependencies in dvc.yaml: a stage's modules are those that its notebook imports."""
import json, pathlib
import pytest, yaml
from dvc.repo import Repo
from remask.pipeline.dependencies import import_closure, needed_modules, stage_notebook, wrong_dependencies, \
    write_dependencies

ROOT = pathlib.Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT/'dvc.yaml').read_text())['stages']
SAMPLING = {'sample'}
TRAINING = {'train', 'train_text', 'train_detector', 'train_answers', 'train_ups', 'train_sudoku'}


def body(name): return STAGES[name].get('do', STAGES[name])
def dependent(module): return {name for name in STAGES if f'remask/{module}.py' in body(name)['deps']}


def test_every_stage_depends_on_what_it_imports_and_on_nothing_else():
    "`remask dependencies` writes the lists"
    assert wrong_dependencies(STAGES, ROOT) == []
    assert all(stage_notebook(stage) for stage in STAGES.values())


def test_an_exemption_has_a_reason_and_only_stages_in_the_store_train_without_one():
    for name in STAGES:
        reasons = body(name).get('meta', {}).get('exempt', {})
        assert all(isinstance(reason, str) and len(reason) > 10 for reason in reasons.values()), name


@pytest.mark.parametrize('module, run, rest', [
    ('core/tokens', SAMPLING | TRAINING | {'exactness', 'sudoku', 'answers', 'sample_text'}, set()),
    ('core/sampler', SAMPLING | {'diagnosis', 'trajectories', 'answers', 'exactness', 'sample_text'},
     {'train', 'prepare', 'evaluate', 'corpus', 'train_sudoku'}),
    ('core/plot', {'compare', 'diagnosis'}, SAMPLING | TRAINING | {'prepare', 'corpus', 'tasks'}),
    ('pipeline/tracking', {'compare', 'compare_text'}, SAMPLING | TRAINING),
    ('methods/catalogue', {'exactness', 'sudoku'}, SAMPLING | TRAINING | {'evaluate', 'compare'}),
])
def test_a_changed_module_runs_the_stages_that_use_it(module, run, rest):
    got = dependent(module)
    assert run <= got, run - got
    assert not rest & got, rest & got


def test_every_comparison_has_metrics_and_those_of_plans_a_plot():
    "`dvc metrics diff` and `dvc plots show` read these files, which the stage's notebook writes"
    plans = {'compare', 'compare_remedies', 'record'}
    for name in plans | {'compare_text', 'compare_answers', 'compare_ablations', 'exactness', 'sudoku'}:
        metrics, = body(name)['metrics']
        path, = [metrics] if isinstance(metrics, str) else metrics     # a dict says where it is kept
        assert path.startswith('reports/metrics/')
        writer = stage_notebook(STAGES[name])
        if 'write_comparison(' in (ROOT/writer).read_text(): writer = 'remask/pipeline/report.py'
        assert 'reports/metrics/' in (ROOT/writer).read_text()
        assert ('plots' in body(name)) == (name in plans)


def test_a_network_that_is_trained_again_samples_the_rows_that_use_it_and_no_others():
    "Also in the comparisons of several networks"
    folders = {s.name: {d.def_path for d in s.deps if 'train' in d.def_path} for s in Repo(ROOT).index.stages
               if getattr(s, 'name', '').startswith(('sample@', 'sample_record@'))}
    params = yaml.safe_load((ROOT/'params.yaml').read_text())
    stages = dict(sample=params['sampled'], sample_record=params['recorded'])
    records = {f'{stage}@{key}': r for stage, rows in stages.items() for key, r in rows.items()}
    assert folders == {name: {f'build/train/{r["data"]}/{r["process"]}'} for name, r in records.items()}
    assert {r['process'] for r in records.values()} == {'v1', 'v2', 'unweighted'}


@pytest.fixture
def project(tmp_path):
    "A small library and one stage: a imports b, and c only inside a function"
    modules = dict(a='from .b import f\ndef g():\n    from ..other import c', b='import torch', c='')
    modules['d'] = 'from . import b'
    for name, text in modules.items():
        folder = 'remask/other' if name == 'c' else 'remask/part'
        (tmp_path/folder).mkdir(parents=True, exist_ok=True)
        (tmp_path/folder/f'{name}.py').write_text(text)
    notebook = tmp_path/'nbs/experiments/x.ipynb'
    notebook.parent.mkdir(parents=True)
    cell = dict(cell_type='code', source=['%matplotlib inline\n', 'from remask.part.a import *'])
    notebook.write_text(json.dumps(dict(cells=[cell])))
    return tmp_path


EVERY = ['remask/other/c.py', 'remask/part/a.py', 'remask/part/b.py']


def test_imports_are_followed_through_modules_and_into_functions(project):
    assert import_closure('nbs/experiments/x.ipynb', root=project) == EVERY


def test_an_exempt_module_is_not_followed(project):
    assert import_closure('nbs/experiments/x.ipynb', ('remask/part/a.py',), project) == []
    assert import_closure('nbs/experiments/x.ipynb', ('remask/part/b.py',), project) == [EVERY[0], EVERY[1]]


def test_the_command_writes_the_lists_and_nothing_else(project):
    deps = '[in, nbs/experiments/x.ipynb, remask/part/d.py]'
    before = f'# why\nstages:\n  x:\n    cmd: run   # x\n    deps: {deps}\n'
    path = project/'dvc.yaml'
    path.write_text(before + '    outs: [out]\n')
    write_dependencies(path)
    stage = yaml.safe_load(path.read_text())['stages']['x']
    assert stage == dict(cmd='run', deps=['in', 'nbs/experiments/x.ipynb', *EVERY], outs=['out'])
    assert '# why' in path.read_text() and '# x' in path.read_text()
    written = path.read_text()
    write_dependencies(path)
    assert path.read_text() == written


def test_stages_that_share_their_dependencies_are_written_once(project):
    path = project/'dvc.yaml'
    path.write_text('stages:\n  x: &x\n    deps: [nbs/experiments/x.ipynb]\n  y:\n    <<: *x\n    cmd: run\n')
    write_dependencies(path)
    assert path.read_text().count('remask/part/a.py') == 1
    stages = yaml.safe_load(path.read_text())['stages']
    assert stages['y']['deps'] == stages['x']['deps'] == ['nbs/experiments/x.ipynb', *EVERY]


def test_a_list_that_is_wrong_is_reported(project):
    stage = dict(deps=['nbs/experiments/x.ipynb', 'remask/part/d.py', *EVERY[:2]])
    reported = ['x lacks remask/part/b.py', 'x exceeds remask/part/d.py']
    assert wrong_dependencies(dict(x=stage), project) == reported
    exempt = {'remask/part/d.py': 'imports nothing'}
    assert needed_modules(stage | dict(outs=[dict(a=dict(remote='store'))]), project) == EVERY
    idle = dict(deps=['nbs/experiments/x.ipynb', *EVERY], meta=dict(exempt=exempt))
    assert wrong_dependencies(dict(x=idle), project) == ['x exempts_idly remask/part/d.py']
    assert needed_modules(idle, project) == EVERY
