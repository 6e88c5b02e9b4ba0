"""A name in params.yaml or in a profile that no stage reads is refused before any work."""
import copy, json, pathlib, re, shutil, sys
import pytest, yaml
from remask.pipeline import cli, stages
from remask.pipeline.params import SECTIONS, check_names, known_names, read_params
from remask.pipeline.profiles import use_profile

ROOT = pathlib.Path(__file__).parents[1]
PARAMS = json.loads(json.dumps(read_params(ROOT/'params.yaml'))) # no entry is another one
KNOWN = known_names(ROOT)
PAGES = [ROOT/'docs'/'pages'/f'own-{name}.md' for name in ('plans', 'text', 'questions')]


def places(values, depth, above=()):
    "The places of all names, to a depth"
    for name, value in values.items():
        yield (*above, name)
        if isinstance(value, dict) and depth > 1: yield from places(value, depth - 1, (*above, name))


def is_free(place):
    "What an entry, a list or a record is called is anybody's choice"
    own = len(place) == 2 and (place[0] in SECTIONS.values() or place[0] == 'lists')
    record = len(place) == 4 and place[0] == 'families' or len(place) > 3 and place[0] != 'families'
    generated = place[0] in ('methods', 'sampled', 'recorded') and len(place) > 1
    template = place[0] in ('network', 'policy', 'repair', 'model', 'decoder')
    return own or record or generated or template


ALL = [place for place in places(PARAMS, 5) if not is_free(place)]
READ = [*{(place[0], len(place), place[-1]): place for place in ALL}.values()] # each name of a section once


def renamed(params, place, name):
    "A copy with another name at a place"
    params = copy.deepcopy(params)
    inside = params
    for key in place[:-1]: inside = inside[key]
    inside[name] = inside.pop(place[-1])
    return params


def test_every_name_of_the_file_is_read():
    check_names(PARAMS, KNOWN)
    assert {len(place) for place in READ} == {1, 2, 3, 5}


@pytest.mark.parametrize('place', READ, ids='.'.join)
def test_a_mistyped_name_is_refused_and_the_one_that_was_meant_is_near(place):
    name = place[-1][:-1] + '_' + place[-1][-1]
    wrong = '.'.join((*place[:-1], name))
    with pytest.raises(ValueError, match=f'^params.yaml: `{wrong}` is read by no stage; ') as e:
        check_names(renamed(PARAMS, place, name), KNOWN)
    nearest = str(e.value).partition('(nearest: ')[2].rstrip(')').split(', ')
    assert place[-1] in nearest or place[-1] in ('P', 'G', 'L', 'd', 'r'), nearest
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('name, section', KNOWN.members.items(), ids='-'.join)
def test_a_list_of_entries_holds_no_other_names(project, name, section):
    first = PARAMS[name][0]
    write(project/'params.yaml', lambda params: params.update({name: [first + 'x']}))
    message = f"`{name}` lists '{first}x', which is no entry of `{section}`; "
    with pytest.raises(ValueError, match=message) as e:
        read_params(project/'params.yaml')
    assert first in str(e.value).partition('did you mean ')[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    "The configuration and the stages of the project"
    for name in 'params.yaml', 'dvc.yaml': shutil.copy(ROOT/name, tmp_path)
    shutil.copytree(ROOT/'profiles', tmp_path/'profiles')
    shutil.copytree(ROOT/'nbs'/'experiments', tmp_path/'nbs'/'experiments')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, change):
    params = yaml.safe_load(path.read_text())
    change(params)
    for template in 'network', 'policy', 'repair', 'model', 'decoder': params.pop(template, None)
    path.write_text(yaml.safe_dump(params))


@pytest.mark.parametrize('page', PAGES, ids=[p.stem for p in PAGES])
def test_data_of_your_own_as_the_pages_say_is_known(project, page):
    "Every block of names and values in the page, put into the file"
    indented = '\n'.join(l[4:] if l.startswith('    ') else '' for l in page.read_text().splitlines())
    blocks = [yaml.safe_load(b) for b in indented.split('\n\n') if re.match(r'\n*\w+:( \[|\n)', b)]
    assert 'mine' in str(blocks)
    def put(params):
        for name, value in (pair for block in blocks for pair in block.items()):
            if isinstance(value, dict): params[name] |= value
            else: params[name] = value
    write(project/'params.yaml', put)
    assert read_params(project/'params.yaml')


@pytest.mark.parametrize('words', ['remask-stage train data=plans process=v1', 'remask profile'])
def test_a_stage_and_the_command_that_every_target_runs_first_refuse(project, monkeypatch, capsys, words):
    text = (project/'params.yaml').read_text()
    (project/'params.yaml').write_text(text.replace('v1: {train_steps: ', 'v1: {train_stepz: '))
    before = (project/'params.yaml').read_bytes()
    monkeypatch.setattr(sys, 'argv', words.split())
    with pytest.raises(SystemExit) as e: (stages.stage_main if 'stage' in words else cli.main)()
    told = f'{e.value} {capsys.readouterr().err}'
    assert 'params.yaml: `processes.v1.train_stepz` is read by no stage; correct it or take it out' in told
    assert 'nearest: train_steps' in told and told.count('\n') <= 1 and not (project/'reports').exists()
    assert (project/'params.yaml').read_bytes() == before


@pytest.mark.parametrize('name, changed, where', [
    ('smoke', dict(run=dict(text_row=3)), 'run.text_row'), ('laptop', dict(text=['python']), 'text'),
    ('smoke', dict(comparisons=dict(main=dict(sample=3))), 'comparisons.main.sample')])
def test_a_mistyped_name_of_a_profile_is_refused_with_its_file(project, name, changed, where):
    path = project/'profiles'/f'{name}.yaml'
    values = yaml.safe_load(path.read_text())
    for section, own in changed.items():
        if isinstance(own, dict): values[section] |= own
        else: values[section] = own
    path.write_text(yaml.safe_dump(values))
    before = (project/'params.yaml').read_bytes()
    with pytest.raises(ValueError, match=f'profiles/{name}.yaml: `{where}` is read by no stage'):
        use_profile('smoke')
    assert (project/'params.yaml').read_bytes() == before


def test_a_notebook_that_is_added_brings_its_names(project):
    notebook = project/'nbs'/'experiments'/'plans'/'train.ipynb'
    more = notebook.with_name('warm.ipynb')
    more.write_text(notebook.read_text().replace('accept_code', 'warm_rounds'))
    write(project/'params.yaml', lambda params: params['processes']['v1'].update(warm_rounds=3))
    assert read_params(project/'params.yaml')['processes']['v1']['warm_rounds'] == 3
    more.unlink()
    with pytest.raises(ValueError, match='`processes.v1.warm_rounds` is read by no stage'):
        read_params(project/'params.yaml')


def test_a_notebook_that_is_no_stage_takes_nothing_away(project):
    (project/'nbs'/'experiments'/'plans'/'scratch.ipynb').write_text('{"cells": []}')
    assert read_params(project/'params.yaml') == PARAMS
