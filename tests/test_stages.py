"""The pipeline's configuration agrees with the library, and a stage refuses what it does not know."""
import ast, copy, json, os, pathlib, re, shlex, subprocess, sys
import networkx as nx, nbformat, pytest, yaml
from dvc.repo import Repo
from remask.pipeline import stages
from remask.pipeline.dependencies import import_closure
from remask.pipeline.params import notebook_code
from remask.methods.published import PUBLISHED, compared
from remask.pipeline.profiles import edited_values, read_profile, use_profile, write_params
from remask.pipeline.stages import (
    DURATIONS, SECTIONS, declared_parameters, duration_table, entries, find_stage, log_duration, read_params,
    check_sampled, run_notebook, run_stage, select_parameters, stage_main, stage_params)

ROOT = pathlib.Path(__file__).parents[1]
PARAMS = read_params(ROOT/'params.yaml')
DVC = yaml.safe_load((ROOT/'dvc.yaml').read_text())
KEY = {section: key for key, section in SECTIONS.items()}
SAMPLED = 'data', 'comparison', 'method'
for name, d in DVC['stages'].items(): # a stage for each entry of a section, written as the others are
    if 'foreach' not in d: continue
    section = d['foreach'][2:-1]
    items = {KEY[section]: d['foreach']} if section in KEY else dict(PARAMS['lists'])
    if section in stages.SAMPLED:
        items = {k: sorted({r[k] for r in PARAMS[section].values()}) for k in SAMPLED}
    DVC['stages'][name] = d['do'] | dict(matrix=items)
NOTEBOOK = {s: re.match(r'remask-stage (\w+)', d['cmd']).group(1) for s, d in DVC['stages'].items()}
STAGES = sorted(set(NOTEBOOK.values()))
ITEM = dict(data='plans', method='llada_topp09_no_remask', process='v1', text='teacher', network='denoiser',
            family='competing', comparison='main', quiz='arithmetic', model='answerer', decoder='ups')
SECTION = SECTIONS
ITEMS = {'key', *(f'item.{key}' for key in SECTIONS)}
NOT_GIVEN = {  # parameters that keep the notebook's default where no entry gives them
    'overrides',
    'rows',
    'seed',
    'givens',
    'network',
    'network_in',
    'temperatures',
    'nuclei',
    'thresholds',
    'tuned_seeds',
    'heads',
    'stratified',
    'precision',
    'name',
    'stride',
    'form',
    'enough',
    'accept_code',
    'begin',
    'run_programs',
}

BY_HAND = dict(repair=('scorers', 'heads_in', 'folder'))   # what a person names to repair by another head


def stage(name): return find_stage(name, ROOT/'nbs'/'experiments')


# ---- params.yaml

LISTED = dict.fromkeys(name for names in PARAMS['lists'].values() for name in names)


def test_there_is_one_record_for_each_method_in_a_list():
    assert list(PARAMS['methods']) == ['heldout', *LISTED]
    for name, row in PARAMS['methods'].items():
        if name != 'heldout':
            assert row == {k: v for k, v in compared(name)._asdict().items() if v != {}}, name


def test_the_command_changes_nothing_in_the_file_that_comes_along(tmp_path):
    "The records are those of the lists, and the values those of the profile"
    path = tmp_path/'params.yaml'
    path.write_text((ROOT/'params.yaml').read_text())
    write_params(read_profile('laptop', ROOT/'profiles'), path)
    assert path.read_text() == (ROOT/'params.yaml').read_text()
    assert edited_values(PARAMS, read_profile('laptop', ROOT/'profiles')) == []


@pytest.mark.parametrize('name', ['smoke', 'paper'])
def test_a_profile_is_switched_on_and_off_again(tmp_path, name):
    path, folder = tmp_path/'params.yaml', ROOT/'profiles'
    path.write_text((ROOT/'params.yaml').read_text())
    use_profile(name, path, folder)
    new = read_params(path)
    assert new['run']['profile'] == name and edited_values(new, read_profile(name, folder)) == []
    check_sampled(new)
    use_profile('laptop', path, folder)
    assert path.read_text() == (ROOT/'params.yaml').read_text()


def test_values_of_your_own_are_not_overwritten_unless_you_say_so(tmp_path):
    path, folder = tmp_path/'params.yaml', ROOT/'profiles'
    mine = (ROOT/'params.yaml').read_text().replace('\n  steps: 100\n', '\n  steps: 99\n')
    path.write_text(mine)
    with pytest.raises(ValueError, match='run.steps differ from .*laptop.yaml'):
        use_profile('smoke', path, folder)
    assert path.read_text() == mine
    use_profile(None, path, folder)
    assert path.read_text() == mine
    use_profile('smoke', path, folder, force=True)
    assert read_params(path)['run']['steps'] == 12


@pytest.mark.parametrize('change', [
    dict(datasets=['other']), dict(lists=dict(PARAMS['lists'], published_v2=[]))])
def test_a_stage_refuses_records_that_are_not_those_of_the_lists(change):
    with pytest.raises(ValueError, match='`sampled` does not fit .*: run remask profile'):
        check_sampled(PARAMS | change)


def test_every_name_that_is_used_is_known():
    used = {key: set() for key in SECTION}
    for d in DVC['stages'].values():
        for key, names in d.get('matrix', {}).items():
            reference = re.fullmatch(r'\$\{(\w+)\}', names) if isinstance(names, str) else None
            if reference: names = PARAMS[reference.group(1)]
            used[key] |= set(names)
    for key, names in used.items():
        assert names and names <= set(PARAMS[SECTION[key]]), (key, names - set(PARAMS[SECTION[key]]))
    for names in PARAMS['lists'].values(): assert set(names) <= set(PARAMS['methods'])
    main, v2 = PARAMS['comparisons']['main']['lists'], PARAMS['lists']['published_v2']
    assert main[:2] == ['published', 'published_v2']                # the 24
    assert PARAMS['lists']['published'] == list(PUBLISHED)
    assert v2 == ['v2_llada_topp09_no_remask', 'v2_llada_topp09_remdm_confidence_tsw10']
    assert {r['process'] for r in PARAMS['sampled'].values()} <= used['process']


def test_a_profile_says_nothing_that_the_complete_one_does_not_say():
    "So that the complete one undoes it"
    complete = read_profile('laptop', ROOT/'profiles')
    for path in (ROOT/'profiles').glob('*.yaml'):
        own = yaml.safe_load(path.read_text())
        assert own['run']['profile'] == path.stem
        for section, values in own.items():
            if isinstance(values, dict): assert set(values) <= set(complete[section]), (path, section)
            else: assert section in complete


def test_every_parameter_reaches_a_notebook():
    known = {s: set(declared_parameters(stage(s))) for s in STAGES}
    renamed = set(re.findall(r'params:run\.(\w+)', ' '.join(d['cmd'] for d in DVC['stages'].values())))
    assert set(PARAMS['run']) - renamed <= set().union(*known.values())
    for row in PARAMS['data'].values(): assert set(row) <= known['prepare'] | known['train']
    for name, row in PARAMS['methods'].items(): assert set(row) <= known['sample'], name
    for name, row in PARAMS['processes'].items(): assert set(row) <= known['train'], name


def test_no_parameter_name_means_two_things():
    "A data set may overrule the profile and the process; nothing else may meet"
    def words(section): return set().union(*PARAMS[section].values())
    run, data, methods, processes = set(PARAMS['run']), words('data'), words('methods'), words('processes')
    assert not methods & (run | data | processes - {'process'}) and not run & processes
    few = PARAMS | dict(data=dict(few=dict(batch=32)))
    assert stage_params(few, dict(data='few', process='v1'))['batch'] == 32
    assert PARAMS['processes']['v1']['batch'] != 32


@pytest.mark.parametrize('name', DVC['stages'])
def test_a_stage_takes_what_it_is_made_for(name):
    "Every parameter DVC watches for a stage, and every item of its matrix, is one its notebook declares"
    known, d = set(declared_parameters(stage(NOTEBOOK[name]))), DVC['stages'][name]
    assert set(d.get('matrix', {})) <= known
    given = set(re.findall(r'(\w+)=', d['cmd']))
    assert set(d.get('matrix', {})) <= given <= known
    for p in d.get('params', []):
        if p.startswith('run.'): assert p.removeprefix('run.') in known or f'params:{p}' in d['cmd']
        elif p.startswith('methods.'): assert {'id', 'process', 'overrides'} <= known
    assert stage(NOTEBOOK[name]).relative_to(ROOT).as_posix() in d['deps']


@pytest.mark.parametrize('name', STAGES)
def test_nothing_is_left_to_a_notebooks_default_but_what_no_section_gives(name):
    defaults = declared_parameters(stage(name))
    given = {k: v for k, v in ITEM.items() if defaults.get(k) and not (k == 'process' and name == 'sample')}
    got = select_parameters(stage(name), stage_params(PARAMS, given, entries(defaults)), given)
    from_dvc = {k for d in DVC['stages'].values() if f'remask-stage {name} ' in d['cmd']
                for k in re.findall(r'(\w+)=', d['cmd'])}
    by_hand = set(BY_HAND.get(name, ()))
    if name == 'llada': by_hand = set(defaults)                # a foreign model is named on the command line
    assert set(defaults) - set(got) <= from_dvc | NOT_GIVEN | by_hand
    for k, v in got.items(): # of the type the notebook was written for
        assert v is None or type(v) is type(defaults[k]) or {type(v), type(defaults[k])} == {int, float}, k


def test_a_foreign_model_takes_nothing_from_a_profile():
    "A name of `run` would silently prevail over the notebook's own default"
    defaults = declared_parameters(stage('llada'))
    assert not set(defaults) & set(PARAMS['run'])
    assert select_parameters(stage('llada'), stage_params(PARAMS, {}, entries(defaults)), {}) == {}


@pytest.mark.parametrize('name', STAGES)
def test_a_stage_that_trains_sets_the_seed(name):
    "Otherwise a second run writes other bytes"
    cells = [c.source for c in nbformat.read(stage(name), 4).cells if c.cell_type == 'code']
    code = '\n'.join(cells)
    first = re.search(r'\b(fit|finetune)\(', code)
    assert not first or 'torch.manual_seed(' in code[:first.start()]


def test_no_value_of_params_yaml_reaches_a_shell():
    "Only names of entries do; a value is read in the stage: `key=params:section.name`"
    for name, d in DVC['stages'].items(): assert set(re.findall(r'\$\{([^}]*)\}', d['cmd'])) <= ITEMS, name


# ---- refusals

@pytest.mark.parametrize('name', STAGES)
def test_an_unknown_parameter_is_fatal(name):
    with pytest.raises(ValueError, match=rf'{name}.ipynb: has no parameter sampels; .*it takes \w+, '):
        select_parameters(stage(name), PARAMS['run'], dict(sampels=3))


def test_an_unknown_item_is_fatal_and_the_known_ones_are_named():
    for key, section in SECTION.items():
        first = next(iter(PARAMS[section]))
        with pytest.raises(ValueError, match=f"no {key} 'nonsense' under `{section}`; it knows {first}"):
            stage_params(PARAMS, {key: 'nonsense'})


SAMPLE = 'sample data=plans method=llada_topp09_no_remask'


@pytest.mark.parametrize('words, near', [
    (f'{SAMPLE} sampels=3', 'no parameter sampels; did you mean samples'),
    ('sample data=plans method=llada_topp09_no_remsk', 'did you mean llada_topp09_no_remask'),
    ('smaple data=plans', 'did you mean sample'),
])
def test_what_is_not_known_is_answered_by_the_nearest_name(monkeypatch, words, near):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=re.escape(near)): run_stage(words.split())


@pytest.mark.parametrize('words, why', [
    (f'{SAMPLE} samples=0', 'samples is 0; write a whole number from 1'),
    (f'{SAMPLE} steps=-1', 'steps is -1; write a whole number from 1'),
    (f'{SAMPLE} seeds=[]', 'seeds is []; write one seed or more'),
    (f'{SAMPLE} seeds=[1,1]', 'seeds is [1, 1]; write one seed or more, each a whole number and none twice'),
    ('sample_text text=teacher family=competing text_rows=0', 'text_rows is 0; write a whole number'),
    ('answers quiz=arithmetic decoder=ups answer_steps=0.5', 'answer_steps is 0.5; write a whole number'),
])
def test_a_size_that_leaves_nothing_to_compute_is_one_sentence_before_any_work(monkeypatch, words, why):
    def runs(*args): raise AssertionError('the notebook was run')
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(stages, 'run_notebook', runs)
    with pytest.raises(ValueError, match=re.escape(why)) as e: run_stage(shlex.split(words))
    assert '\n' not in str(e.value)


def test_no_default_and_no_profile_is_refused_for_its_size():
    for name in STAGES:
        assert not [k for k, v in declared_parameters(stage(name)).items() if stages.size_fault(k, v)], name
    for path in (ROOT/'profiles').glob('*.yaml'):
        profile = yaml.safe_load(path.read_text())
        values = profile['run'] | profile.get('comparisons', {}).get('main', {})
        assert 'text_rows' in values and not [k for k, v in values.items() if stages.size_fault(k, v)], path


@pytest.mark.parametrize('section, value', [('data', ['plans']), ('methods', 'all'), ('run', 'laptop')])
def test_a_section_of_a_wrong_type_is_named(tmp_path, section, value):
    (tmp_path/'p.yaml').write_text(yaml.safe_dump(PARAMS | {section: value}))
    with pytest.raises(ValueError, match=f'`{section}` is .*; write a name and its values') as e:
        read_params(tmp_path/'p.yaml')
    assert '\n' not in str(e.value)


def test_an_entry_that_is_no_names_with_values_is_named():
    wrong = PARAMS | dict(data=dict(mine='inputs/mine.jsonl'))
    with pytest.raises(ValueError, match="`data.mine` is 'inputs/mine.jsonl'; write"):
        stage_params(wrong, dict(data='mine'))


@pytest.mark.parametrize('lost', ['run', 'data', 'processes', 'methods'])
def test_a_missing_section_is_named(tmp_path, lost):
    kept = copy.deepcopy(PARAMS)
    del kept[lost]
    (tmp_path/'p.yaml').write_text(yaml.safe_dump(kept))
    with pytest.raises(ValueError, match=f'has no section {lost}$'): read_params(tmp_path/'p.yaml')


TABBED = 'run: 1\ndata: {}\nprocesses: {}\nmethods: {}\n\ta: 3'
DAMAGED = {None: 'run from the root', 'run: {': 'not valid YAML', '[1]': 'no list of sections'}
DAMAGED |= {TABBED: 'line 5: found character', '['*3000: 'not valid YAML'}
DAMAGED |= {'run: {}': 'no section data, methods', '': 'p.yaml is empty'}


@pytest.mark.parametrize('text,message', DAMAGED.items(), ids=[*map(str, range(len(DAMAGED)))])
def test_a_missing_or_damaged_file_is_one_sentence(tmp_path, text, message):
    if text is not None: (tmp_path/'p.yaml').write_text(text)
    with pytest.raises(ValueError, match=message) as e: read_params(tmp_path/'p.yaml')
    assert '\n' not in str(e.value)


TAGGED = dict(tags=['parameters'])
CELLS = [3, {}, dict(metadata=TAGGED)]
SOURCES = {'n = 1': 2}, ['n = ', 1], None
CELLS += [dict(cell_type='code', metadata=TAGGED, source=source) for source in SOURCES]


@pytest.mark.parametrize('cell', CELLS, ids=str)
def test_a_damaged_cell_names_its_notebook(tmp_path, cell):
    path = tmp_path/'a.ipynb'
    path.write_text(json.dumps(dict(cells=[cell])))
    for read in declared_parameters, notebook_code, import_closure:
        with pytest.raises(ValueError, match='a.ipynb, its (cells|code)') as e: read(path)
        assert '\n' not in str(e.value)


@pytest.mark.parametrize('source', ["n = 3\nm = 4", None])
def test_a_notebook_has_one_parameters_cell(tmp_path, source):
    cell = nbformat.v4.new_code_cell('n = 1', metadata=dict(tags=['parameters']))
    cells = [cell, nbformat.v4.new_code_cell(source, metadata=dict(tags=['parameters']))] if source else []
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path/'a.ipynb')
    with pytest.raises(ValueError, match=f'has {len(cells)} cells tagged `parameters`'):
        declared_parameters(tmp_path/'a.ipynb')


@pytest.mark.parametrize('args', [[], ['sample', 'plans'], ['sample', 'data=plans', 'method']])
def test_arguments_that_are_no_parameters_are_refused(args):
    with pytest.raises(ValueError, match='STAGE key=value'): run_stage(args)


# ---- running

@pytest.fixture
def project(tmp_path, monkeypatch):
    "A project of one stage, `root`, that fails on a negative n"
    code = nbformat.v4.new_code_cell
    nb = nbformat.v4.new_notebook(cells=[
        code("data = 'a'\nn = 1\nseen = 0", metadata=dict(tags=['parameters'])),
        code("print('got this far')"),
        code("if n < 0: raise ValueError('n is negative')"), code("n**.5")])
    (tmp_path/'nbs'/'experiments').mkdir(parents=True)
    nbformat.write(nb, tmp_path/'nbs'/'experiments'/'root.ipynb')
    params = dict(run=dict(n=4), data=dict(a=dict(seen=7)), processes={}, methods={})
    (tmp_path/'params.yaml').write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MPLBACKEND', 'Agg') # as a shell without a screen, or make, does
    return tmp_path


def test_a_stage_runs_quietly_and_twice_to_the_same_bytes(project, monkeypatch, capfd):
    out, bytes_ = project/'reports'/'notebooks'/'root-a.ipynb', []
    for _ in range(2):
        monkeypatch.setattr(sys, 'argv', ['remask-stage', 'root', 'data=a', 'n=9'])
        stage_main()
        bytes_.append(out.read_bytes())
    assert bytes_[0] == bytes_[1] and [p.name for p in out.parent.iterdir()] == [out.name]
    cells = nbformat.read(out, 4).cells
    assert cells[-1].outputs[0].data['text/plain'] == '3.0'
    assert dict(re.findall(r'(\w+) = (.*)', cells[1].source)) == dict(data='"a"', n='9', seen='7')
    printed = capfd.readouterr()
    assert 'WARNING' not in printed.out + printed.err
    assert 'KeyboardInterrupt' not in printed.out + printed.err


@pytest.mark.parametrize('key', SECTION)
def test_a_notebook_decides_whether_a_name_is_an_entry_of_a_section(project, monkeypatch, key):
    "Left empty it is a parameter like any other, say a folder, and no part of the executed notebook's name"
    ran = []
    def record(notebook, out, params): ran.append((out.as_posix(), params))
    monkeypatch.setattr(stages, 'run_notebook', record)
    for name, default in dict(foreign='', own='a').items():
        cell = nbformat.v4.new_code_cell(f'{key} = {default!r}\nseen = 0', metadata=dict(tags=['parameters']))
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), project/'nbs'/'experiments'/f'{name}.ipynb')
    run_stage(['foreign', f'{key}=org/name'])
    assert ran == [('reports/notebooks/foreign.ipynb', {key: 'org/name'})]
    with pytest.raises(ValueError, match=f"no {key} 'org/name' under `{SECTION[key]}`"):
        run_stage(['own', f'{key}=org/name'])
    text = yaml.safe_load((project/'params.yaml').read_text()) | {SECTION[key]: dict(a=dict(seen=7))}
    (project/'params.yaml').write_text(yaml.safe_dump(text))
    run_stage(['own', f'{key}=a'])
    assert ran[1:] == [('reports/notebooks/own-a.ipynb', {key: 'a', 'seen': 7})]


def test_the_stage_of_foreign_models_takes_a_name_on_a_hub():
    given = dict(model='GSAI-ML/LLaDA-8B-Instruct', answer_steps=256)
    sections = entries(declared_parameters(stage('llada')))
    got = select_parameters(stage('llada'), stage_params(PARAMS, given, sections), given)
    assert got['model'] == given['model'] and got['answer_steps'] == 256


def test_messages_of_a_stage_reach_the_terminal_and_its_other_output_does_not(project, capfd, monkeypatch):
    path = project/'nbs'/'experiments'/'root.ipynb'
    nb = nbformat.read(path, 4)
    nb.cells.append(nbformat.v4.new_code_cell("print('remask: 12 rows are left out')"))
    nbformat.write(nb, path)
    monkeypatch.setattr(sys, 'argv', ['remask-stage', 'root', 'n=9'])
    stage_main()
    printed = capfd.readouterr()
    assert 'remask: 12 rows are left out\n' in printed.err and 'got this far' not in printed.out + printed.err


def test_a_failure_is_one_sentence_and_leaves_the_notebook_and_the_last_good_one(project, monkeypatch):
    out = project/'reports'/'notebooks'/'root-a.ipynb'
    out.parent.mkdir(parents=True)
    out.write_text('from before')
    monkeypatch.setattr(sys, 'argv', ['remask-stage', 'root', 'data=a', 'n=-1'])
    with pytest.raises(SystemExit) as e: stage_main()
    match = re.fullmatch(r'root data=a n=-1: ValueError: n is negative \(see (.*)\)', str(e.value))
    part = pathlib.Path(match.group(1))
    assert out.read_text() == 'from before'
    outputs = [o for c in nbformat.read(part, 4).cells if c.cell_type == 'code' for o in c.outputs]
    assert ['got this far\n', 'n is negative'] == [o.get('text') or o.get('evalue') for o in outputs][-2:]


def test_figures_go_into_the_notebook_whatever_backend_the_shell_selects(project, monkeypatch):
    path = project/'nbs'/'experiments'/'root.ipynb'
    nb = nbformat.read(path, 4)
    nb.cells.append(nbformat.v4.new_code_cell('import matplotlib.pyplot as plt\nplt.plot([1, 2]);'))
    nbformat.write(nb, path)
    monkeypatch.setattr(sys, 'argv', ['remask-stage', 'root', 'data=a', 'n=9'])
    stage_main()
    last, = nbformat.read(project/'reports'/'notebooks'/'root-a.ipynb', 4).cells[-1].outputs
    assert 'image/png' in last.data


def test_errors_of_the_kernel_reach_the_terminal(project, capfd):
    "Only the kernel's own warnings are switched off"
    log = "from ipykernel.kernelapp import IPKernelApp\nlog = IPKernelApp.instance().log\n"
    nb = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell('n = 1', metadata=dict(tags=['parameters'])),
        nbformat.v4.new_code_cell(log + "log.warning('a warning'); log.error('an error')")])
    nbformat.write(nb, project/'loud.ipynb')
    run_notebook(project/'loud.ipynb', project/'out.ipynb', {})
    printed = capfd.readouterr().err
    assert 'an error' in printed and 'a warning' not in printed


def test_a_kernel_takes_no_port(project):
    "Kernels started at once may be given the same free TCP port: sockets in a folder of their own cannot be"
    show = ["from ipykernel.connect import get_connection_file", "print(open(get_connection_file()).read())"]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('\n'.join(show))])
    nbformat.write(nb, project/'kernel.ipynb')
    seen = []
    for _ in range(2):
        run_notebook(project/'kernel.ipynb', project/'out.ipynb', {})
        seen.append(json.loads(nbformat.read(project/'out.ipynb', 4).cells[-1].outputs[0].text))
    assert [s['transport'] for s in seen] == ['ipc', 'ipc']
    folders = [pathlib.Path(s['ip']).parent for s in seen]
    assert folders[0] != folders[1] and not any(f.exists() for f in folders)


# ---- what a value of a parameter may not do

def refused(monkeypatch, words, *args):
    monkeypatch.setattr(sys, 'argv', ['remask-stage', *args])
    with pytest.raises(SystemExit) as e: stage_main()
    text = str(e.value)
    assert all(w in text for w in words) and '\n' not in text, text


@pytest.mark.parametrize('key', ['table', 'folder', 'data'])
@pytest.mark.parametrize('name', ['../../../x', '/x', '..', 'a/b', '.x', '"a\\nb"'])
def test_a_name_in_a_path_leads_nowhere_else(project, monkeypatch, key, name):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        "table = 'a'\nfolder = 'b'\ndata = 'a'", metadata=dict(tags=['parameters']))])
    nbformat.write(nb, project/'nbs'/'experiments'/'named.ipynb')
    before = sorted(project.parent.rglob('*'))
    refused(monkeypatch, [key, 'no data' if key == 'data' else 'is no plain name'], 'named', f'{key}={name}')
    assert sorted(project.parent.rglob('*')) == before


def test_a_value_of_params_yaml_is_read_where_no_shell_runs_it(project):
    params = yaml.safe_load((project/'params.yaml').read_text())
    params['run']['title'] = 'my model; touch X; $(touch Y) `touch Z`'
    (project/'dvc.yaml').write_text('cmd: remask-stage named of=params:run.title\n')
    (project/'params.yaml').write_text(yaml.safe_dump(params))
    nb = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell("of = ''", metadata=dict(tags=['parameters'])),
        nbformat.v4.new_code_cell('of')])
    nbformat.write(nb, project/'nbs'/'experiments'/'named.ipynb')
    command = [sys.executable, '-c', 'from remask.pipeline.stages import stage_main; stage_main()']
    line = shlex.join(command) + ' named of=params:run.title'
    done = subprocess.run(line, shell=True, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {'X', 'Y', 'Z'} & {p.name for p in project.iterdir()}
    last = nbformat.read(project/'reports'/'notebooks'/'named.ipynb', 4).cells[-1]
    assert ast.literal_eval(last.outputs[0].data['text/plain']) == params['run']['title']


WRONG = dict(run=3, data=[1], processes='x')


@pytest.mark.parametrize('section', WRONG)
def test_a_section_of_the_wrong_type_is_named(section):
    params = dict(run={}, data=dict(a={}), processes=dict(p={}), methods={}) | {section: WRONG[section]}
    with pytest.raises(ValueError, match=f'params.yaml: `{section}` is .*; write') as e:
        stage_params(params, dict(data='a', process='p'))
    assert '\n' not in str(e.value)
    params = dict(run={}, data=dict(a=7))
    with pytest.raises(ValueError, match='`data.a` is 7'): stage_params(params, dict(data='a'))


@pytest.mark.parametrize('arg', ['n=[', 'n={a: b: c}', 'n=' + '['*3000, 'n=@x', 'n=params:run.none'])
def test_a_damaged_argument_is_one_sentence(project, monkeypatch, arg):
    words = ['run.none'] if 'params:' in arg else ['n=', 'is not valid YAML']
    refused(monkeypatch, words, 'root', 'data=a', arg)


def test_a_full_disk_is_one_sentence(project, monkeypatch):
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('papermill.execute_notebook', full)
    words = 'root-a.part.ipynb could not be written (No space left on device)', 'free space'
    refused(monkeypatch, words, 'root', 'data=a')


def test_a_page_is_written_whatever_the_locale(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('θ ≥ π/2 ░')])
    nbformat.write(nb, tmp_path/'a.ipynb')
    code = "import sys; from remask.pipeline.stages import as_html; as_html(sys.argv[1])"
    ascii = os.environ | dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    command = [sys.executable, '-c', code, tmp_path/'a.ipynb']
    done = subprocess.run(command, env=ascii, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert 'θ ≥ π/2 ░' in (tmp_path/'a.html').read_text(encoding='utf-8')


# ---- durations

def table(path): return [l.split() for l in duration_table(path).splitlines()]


def test_a_stage_that_ends_is_logged_and_one_that_fails_is_not(project):
    run_stage(['root', 'data=a', 'n=9'])
    with pytest.raises(RuntimeError): run_stage(['root', 'data=a', 'n=-1'])
    lines = [json.loads(l) for l in (project/DURATIONS).read_text().splitlines()]
    assert [(l['stage'], l['given']) for l in lines] == [('root', dict(data='a', n=9))]
    assert lines[0]['seconds'] > 0
    assert [r[:2] for r in table(DURATIONS)] == [['stage', 'runs'], ['root', '1'], ['all', '1']]


def test_the_latest_run_of_each_counts_whatever_the_order_of_its_items(tmp_path):
    path = tmp_path/'d.jsonl'
    log_duration('a', dict(x=1, y=2), 600, path)
    log_duration('b', {}, 60, path)
    log_duration('a', dict(x=1, y=3), 120, path)
    log_duration('a', dict(y=2, x=1), 30, path)
    assert table(path)[1:] == [['b', '1', '1.0'], ['a', '2', '2.5'], ['all', '3', '3.5']]


def test_a_damaged_or_missing_log_is_reported_and_stops_nothing(tmp_path):
    path = tmp_path/'d.jsonl'
    assert duration_table(path) == f'{path}: no stage has been timed yet'
    assert duration_table(tmp_path) == f'{tmp_path}: no stage has been timed yet'
    path.write_bytes(b'\xff\xfe\n[1]\n{"stage": "a"}\n{"stage": "a", "given": {}, "seconds": "soon"}\n')
    assert duration_table(path) == f'{path}: no stage has been timed yet'
    log_duration('a', {}, 90, path)
    assert table(path)[1:3] == [['a', '1', '1.5'], ['all', '1', '1.5']]
    assert duration_table(path).splitlines()[-1] == f'{path}: damaged lines left out: 4'


def test_a_line_cut_short_costs_the_next_and_no_more(tmp_path):
    path = tmp_path/'d.jsonl'
    log_duration('a', {}, 60, path)
    path.write_bytes(path.read_bytes() + b'{"stage": "b", "giv')
    log_duration('c', {}, 60, path)
    log_duration('d', {}, 60, path)
    assert [r[0] for r in table(path)[1:-1]] == ['a', 'd', 'all']
    assert duration_table(path).endswith('damaged lines left out: 1')


def test_a_log_that_cannot_be_written_causes_a_warning(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.warns(UserWarning, match='duration of a could not be logged'):
        log_duration('a', {}, 1, tmp_path/'file'/'d.jsonl')


def test_stages_side_by_side_do_not_mix_their_lines(tmp_path):
    path, many = tmp_path/'d.jsonl', 300
    call = f"log_duration('s', dict(who='WHO'*50, k=k), k, {str(path)!r})"
    code = f"from remask.pipeline.stages import log_duration\nfor k in range({many}): {call}"
    def start(who): return subprocess.Popen([sys.executable, '-c', code.replace('WHO', who)], cwd=ROOT)
    both = [start(who) for who in ('left', 'right')]
    assert [p.wait() for p in both] == [0, 0]
    lines = [json.loads(l) for l in path.read_text().splitlines()]
    assert len({json.dumps(l) for l in lines}) == len(lines) == 2*many


def test_the_lanes_of_the_smoke_run_pass_every_stage_once():
    "The targets of the lanes and their dependencies are the whole pipeline, and lanes share no stage"
    make = (ROOT/'Makefile').read_text()
    lanes = re.search(r'^LANES := (.*)$', make, re.M).group(1).split()
    graph = Repo(ROOT).index.graph                         # from a stage to what it is made of
    made = [s for s in graph if s.cmd]

    def of(lane):
        targets = re.search(rf'^LANE_{lane} := (.*)$', make, re.M).group(1).split()
        ends = [s for s in made if s.name.split('@')[0] in targets]
        return {s.name for e in ends for s in nx.descendants(graph, e) | {e} if s.cmd}

    passed = [name for lane in lanes for name in of(lane)]
    assert passed and sorted(passed) == sorted(s.name for s in made)
