"""The pipeline's configuration agrees with the library, and a stage refuses what it does not know."""
import copy, pathlib, re, sys
import nbformat, pytest, yaml
from remask.methods import METHODS, PUBLISHED, make_method, method_id
from remask.stages import choose, declared, main, read_params, run_notebook, run_stage, stage_params

ROOT = pathlib.Path(__file__).parents[1]
PARAMS = read_params(ROOT/'params.yaml')
DVC = yaml.safe_load((ROOT/'dvc.yaml').read_text())
NOTEBOOK = {s: re.match(r'remask-stage (\w+)', d['cmd']).group(1) for s, d in DVC['stages'].items()}
STAGES = sorted(set(NOTEBOOK.values()))
ITEM = dict(data='plans', method='llada_topp09_no_remask', process='v1')
SECTION = dict(data='data', method='methods', process='processes')


def stage(name): return ROOT/'nbs'/'experiments'/f'{name}.ipynb'
def choices(row): return {k: v for k, v in row.items() if k not in ('process', 'corrected')}


# ---- params.yaml

def test_the_published_methods_are_the_librarys():
    assert set(PUBLISHED) <= set(PARAMS['methods'])
    for name in PUBLISHED:
        row = PARAMS['methods'][name]
        assert row['process'] == 'v1' and not row.get('corrected') and choices(row) == METHODS[name].params, name
        assert method_id(METHODS[name].name) == name


@pytest.mark.parametrize('name', [m for m in PARAMS['methods'] if m != 'floor'])
def test_every_method_can_be_made_and_bears_its_name(name):
    row = PARAMS['methods'][name]
    bias = 'corrected_' if row.get('corrected') else '' if row['process'] == 'v1' else row['process'] + '_'
    assert name == bias + method_id(make_method(**choices(row)).name)


def test_every_name_that_is_used_is_known():
    used = {key: set() for key in SECTION}
    for d in DVC['stages'].values():
        for key, names in d.get('matrix', {}).items():
            if isinstance(names, str) and (m := re.fullmatch(r'\$\{(\w+)\}', names)): names = PARAMS[m.group(1)]
            used[key] |= set(names)
    for key, names in used.items():
        assert names and names <= set(PARAMS[SECTION[key]]), (key, names - set(PARAMS[SECTION[key]]))
    for names in PARAMS.get('lists', {}).values(): assert set(names) <= set(PARAMS['methods'])
    assert PARAMS['compared'] == list(PUBLISHED)
    trained = {PARAMS['methods'][m]['process'] for m in used['method'] if m != 'floor'}
    assert trained <= used['process']


def test_the_profiles_differ_in_values_only():
    small, *others = PARAMS['profiles'].values()
    assert all(set(o) == set(small) for o in others) and PARAMS['run'] in PARAMS['profiles'].values()
    assert all(p['profile'] == name for name, p in PARAMS['profiles'].items())


def test_every_parameter_reaches_a_notebook():
    known = {s: set(declared(stage(s))) for s in STAGES}
    assert set(PARAMS['run']) <= set().union(*known.values())
    for row in PARAMS['data'].values(): assert set(row) <= known['prepare'] | known['train']
    for name, row in PARAMS['methods'].items(): assert set(row) <= known['sample'], name
    for name, row in PARAMS['processes'].items(): assert set(row) <= known['train'], name


@pytest.mark.parametrize('name', DVC['stages'])
def test_a_stage_takes_what_it_is_made_for(name):
    "Every parameter DVC watches for a stage, and every item of its matrix, is one its notebook declares"
    known, d = set(declared(stage(NOTEBOOK[name]))), DVC['stages'][name]
    assert set(d.get('matrix', {})) <= known
    given = set(re.findall(r'(\w+)=', d['cmd']))
    assert set(d.get('matrix', {})) <= given <= known
    for p in d.get('params', []):
        if p.startswith('run.'): assert p.removeprefix('run.') in known
        elif p.startswith('methods.'): assert {'unmask', 'remask', 'form', 'process'} <= known
    assert f'nbs/experiments/{NOTEBOOK[name]}.ipynb' in d['deps']


@pytest.mark.parametrize('name', STAGES)
def test_nothing_is_left_to_a_notebooks_default_but_what_no_section_gives(name):
    given = {k: v for k, v in ITEM.items() if k in declared(stage(name)) and not (k == 'process' and name == 'sample')}
    got, defaults = choose(stage(name), stage_params(PARAMS, given), given), declared(stage(name))
    assert set(defaults) - set(got) <= {'corrected'}
    for k, v in got.items(): # of the type the notebook was written for
        assert v is None or type(v) is type(defaults[k]) or {type(v), type(defaults[k])} == {int, float}, k


# ---- refusals

@pytest.mark.parametrize('name', STAGES)
def test_an_unknown_parameter_is_fatal(name):
    with pytest.raises(ValueError, match=rf'{name}.ipynb: has no parameter sampels; it takes data, '):
        choose(stage(name), PARAMS['run'], dict(sampels=3))


def test_an_unknown_item_is_fatal_and_the_known_ones_are_named():
    for key, section in SECTION.items():
        with pytest.raises(ValueError, match=f"no {key} 'nonsense' under `{section}`; it knows {next(iter(PARAMS[section]))}"):
            stage_params(PARAMS, {key: 'nonsense'})


@pytest.mark.parametrize('lost', ['run', 'data', 'processes', 'methods'])
def test_a_missing_section_is_named(tmp_path, lost):
    kept = copy.deepcopy(PARAMS)
    del kept[lost]
    (tmp_path/'p.yaml').write_text(yaml.safe_dump(kept))
    with pytest.raises(ValueError, match=f'has no section {lost}$'): read_params(tmp_path/'p.yaml')


@pytest.mark.parametrize('text,says', [(None, 'run from the root'), ('run: {', 'not valid YAML'), ('', 'no section data, methods')])
def test_a_missing_or_damaged_file_is_one_sentence(tmp_path, text, says):
    if text is not None: (tmp_path/'p.yaml').write_text(text)
    with pytest.raises(ValueError, match=says) as e: read_params(tmp_path/'p.yaml')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('source', ["n = 3\nm = 4", None])
def test_a_notebook_has_one_parameters_cell(tmp_path, source):
    cell = nbformat.v4.new_code_cell('n = 1', metadata=dict(tags=['parameters']))
    cells = [cell, nbformat.v4.new_code_cell(source, metadata=dict(tags=['parameters']))] if source else []
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path/'a.ipynb')
    with pytest.raises(ValueError, match=f'has {len(cells)} cells tagged `parameters`'): declared(tmp_path/'a.ipynb')


@pytest.mark.parametrize('args', [[], ['sample', 'plans'], ['sample', 'data=plans', 'method']])
def test_words_that_are_no_parameters_are_refused(args):
    with pytest.raises(ValueError, match='STAGE key=value'): run_stage(args)


# ---- running

@pytest.fixture
def project(tmp_path, monkeypatch):
    "A project of one stage, `root`, that fails on a negative n"
    code = nbformat.v4.new_code_cell
    nb = nbformat.v4.new_notebook(cells=[
        code("data = ''\nn = 1\nseen = 0", metadata=dict(tags=['parameters'])), code("print('got this far')"),
        code("if n < 0: raise ValueError('n is negative')"), code("n**.5")])
    (tmp_path/'nbs'/'experiments').mkdir(parents=True)
    nbformat.write(nb, tmp_path/'nbs'/'experiments'/'root.ipynb')
    params = dict(run=dict(n=4, other=1), data=dict(a=dict(seen=7)), processes={}, methods={})
    (tmp_path/'params.yaml').write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_stage_runs_quietly_and_twice_to_the_same_bytes(project, monkeypatch, capfd):
    out, bytes_ = project/'reports'/'notebooks'/'root-a-9.ipynb', []
    for _ in range(2):
        monkeypatch.setattr(sys, 'argv', ['remask-stage', 'root', 'data=a', 'n=9'])
        main()
        bytes_.append(out.read_bytes())
    assert bytes_[0] == bytes_[1] and [p.name for p in out.parent.iterdir()] == [out.name]
    cells = nbformat.read(out, 4).cells
    assert cells[-1].outputs[0].data['text/plain'] == '3.0'
    assert dict(re.findall(r'(\w+) = (.*)', cells[1].source)) == dict(data='"a"', n='9', seen='7')
    said = capfd.readouterr()
    assert 'WARNING' not in said.out + said.err


def test_a_failure_is_one_sentence_and_leaves_the_notebook_and_the_last_good_one(project, monkeypatch):
    out = project/'reports'/'notebooks'/'root-a--1.ipynb'
    out.parent.mkdir(parents=True)
    out.write_text('from before')
    monkeypatch.setattr(sys, 'argv', ['remask-stage', 'root', 'data=a', 'n=-1'])
    with pytest.raises(SystemExit) as e: main()
    said = str(e.value)
    part = pathlib.Path(re.fullmatch(r'root data=a n=-1: ValueError: n is negative \(see (.*)\)', said).group(1))
    assert out.read_text() == 'from before'
    outputs = [o for c in nbformat.read(part, 4).cells if c.cell_type == 'code' for o in c.outputs]
    assert ['got this far\n', 'n is negative'] == [o.get('text') or o.get('evalue') for o in outputs][-2:]


def test_a_kernels_errors_are_heard(project, capfd):
    "Only what the kernel itself warns of is switched off"
    log = "from ipykernel.kernelapp import IPKernelApp\nlog = IPKernelApp.instance().log\n"
    nb = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell('n = 1', metadata=dict(tags=['parameters'])),
        nbformat.v4.new_code_cell(log + "log.warning('a murmur'); log.error('a cry')")])
    nbformat.write(nb, project/'loud.ipynb')
    run_notebook(project/'loud.ipynb', project/'out.ipynb', {})
    said = capfd.readouterr().err
    assert 'a cry' in said and 'a murmur' not in said
