"The `remask` command."
import io, json, subprocess, shlex, sys

import pytest, torch

from notebooks import ROOT
from remask.core.denoiser import Denoiser
from remask.core.files import save_net, save_tensors
from remask.core.shards import read_shards
from remask.pipeline import cli, stages
from remask.domains.graphs import Graph, graph_position_features, graph_space, slots
from remask.domains.readers import read_jsonl, write_jsonl

SIZES = '--length 4 --vocab-size 3 --mask-id 3 --steps 4 --num-samples 8 --seeds 1 2'.split()
OWN = '''import torch
def model(ids): return torch.arange(3.).expand(*ids.shape, 3)
def score(ids): return (ids == ids[:, :1]).double().mean()
'''

GRAPHS = [Graph((7, 1, 0), ((0, 1, 3), (1, 2, 9))), Graph((0,)*10, ())]


def remask(*args):
    code = 'from remask.pipeline.cli import main; main()'
    return subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True)


def test_data_converts_and_counts(tmp_path):
    kinds = ['living', 'bedroom', 'stair']
    rooms = [dict(id=str(k), type=t, bbox=[k, 0, k + 1, 1], area=1) for k, t in enumerate(kinds)]
    (tmp_path/'in.jsonl').write_text(json.dumps(dict(rooms=rooms, adjacent=[['0', '1']])) + '\n')
    out = tmp_path/'deep'/'er'/'out.jsonl'
    r = remask('data', tmp_path/'in.jsonl', '--to', out)
    assert (r.returncode, r.stderr) == (0, '')
    assert read_jsonl(out) == [Graph((0, 1), ((0, 1, 2),))]
    lines = [s.split(maxsplit=1) for s in r.stdout.splitlines()[1:]]
    assert ['1', 'records read'] in lines
    assert ['1', 'rooms left out (stairs, gardens, pools, parking)'] in lines
    assert lines[-1] == ['1', f"graphs written to {out}"]


def test_data_skips_what_is_too_large_only_where_that_is_allowed(tmp_path, capsys):
    write_jsonl(tmp_path/'in.jsonl', GRAPHS)
    files = str(tmp_path/'in.jsonl'), '--to', str(tmp_path/'out.jsonl')
    cli.main(['data', *files, '--n-max', '10', '--kind', 'jsonl'])
    assert (tmp_path/'out.jsonl').read_bytes() == (tmp_path/'in.jsonl').read_bytes()
    assert '2 graphs written' in capsys.readouterr().out


@pytest.mark.parametrize('args, why', [
    (['data', 'none.mat', '--to', 'out.jsonl'], 'none.mat could not be read'),
    (['data', 'in.jsonl', '--to', 'out.jsonl'], 'in.jsonl, line 2: 10 rooms'),
    (['data', 'in.jsonl', '--to', 'in.jsonl', '--n-max', '10'], 'is the file to read: choose another'),
    (['data', 'in.jsonl', '--to', 'out.jsonl', '--kind', 'graph2plan'], 'no whole MATLAB file'),
    (['data', 'in.jsonl', '--to', 'in.jsonl/out.jsonl', '--n-max', '10'], 'could not be written'),
    (['data', 'stairs.jsonl', '--to', 'out.jsonl'], 'no graph is left')])
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, args, why):
    monkeypatch.chdir(tmp_path)
    write_jsonl('in.jsonl', GRAPHS)
    room = dict(id='a', type='stair', bbox=[0, 0, 1, 1], area=1)
    (tmp_path/'stairs.jsonl').write_text(json.dumps(dict(rooms=[room], adjacent=[])))
    with pytest.raises(SystemExit) as e: cli.main(args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and why in err and err.count('\n') == 1 and err.startswith('remask: ')
    assert not (tmp_path/'out.jsonl').exists()


@pytest.mark.parametrize('args', [[], ['data'], ['dance'], ['data', 'x', '--to', 'y', '--kind', 'z']])
def test_a_wrong_command_line_shows_the_right_one(args, capsys):
    with pytest.raises(SystemExit) as e: cli.main(args)
    assert e.value.code == 2 and 'usage: remask' in capsys.readouterr().err


def test_what_a_script_wants_is_json(capsys):
    cli.main(['explain', 'remdm_switch', '--json'])
    known = json.loads(capsys.readouterr().out)
    assert known['paper'].endswith('2503.00307') and known['parameters'] == dict(eta=.04, t_switch=.5)
    cli.main(['methods', '--json'])
    listed = {row['method']: row for row in json.loads(capsys.readouterr().out)}
    assert listed['remdm_switch'] == known and listed['gibbs']['nfe_per_step'] == '1 + 1'


def test_a_file_of_samples_says_what_it_is(tmp_path, capsys):
    path = tmp_path/'rows.safetensors'
    save_tensors(path, dict(x=torch.zeros(5, 3, dtype=torch.uint8)), dict(method='cap', params=dict(steps=9)))
    cli.main(['inspect', str(path)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f'{path}: samples, 15 numbers')
    assert printed[1:] == ['  x: 5 x 3 uint8', 'method: cap', 'params.steps: 9']
    cli.main(['inspect', str(path), '--json'])
    assert json.loads(capsys.readouterr().out)['tensors'] == dict(x=[5, 3, 'uint8'])
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(SystemExit) as e: cli.main(['inspect', str(path)])
    assert e.value.code == 2 and 'rows.safetensors' in capsys.readouterr().err


@pytest.mark.parametrize('args, why', [
    (['demo', 'plans'], "not the project's folder"),
    (['pull'], "not the project's folder"),
    (['plans', '--to', 'out.jsonl', '--seed', '-1'], 'seed -1: name a number of at least 0'),
    (['explain', 'remdm_kap'], 'did you mean remdm_cap'),
    (['inspect', 'none.safetensors'], 'no such file'),
    (['tune', 'none.py:f', 'none.py:g', 'remdm_cap', 'eta=1', *SIZES], 'write FILE.py:NAME'),
    (['tune', 'own.py:model', 'own.py:none', 'remdm_cap', 'eta=1', *SIZES], 'has no function none'),
    (['tune', 'own.py:model', 'own.py:score', 'remdm_cap', 'eta', *SIZES], 'write PARAMETER=VALUES'),
    (['tune', 'own.py:model', 'own.py:score', 'remdm_cap', 'tau=1', *SIZES], 'its parameters: eta')])
def test_what_a_newcomer_mistypes_is_one_sentence(tmp_path, monkeypatch, capsys, args, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'own.py').write_text(OWN)
    with pytest.raises(SystemExit) as e: cli.main(args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and why in err and err.count('\n') == 1 and err.startswith('remask: ')


def test_parameters_are_chosen_on_a_model_of_ones_own(tmp_path, capsys):
    (tmp_path/'own.py').write_text(OWN)
    own = f'{tmp_path}/own.py:model', f'{tmp_path}/own.py:score'
    cli.main(['tune', *own, 'remdm_cap', 'eta=0.02,0.9', *SIZES, '--json'])
    found = json.loads(capsys.readouterr().out)
    assert len(found['tried']) == 2 and found['parameters'] in (dict(eta=.02), dict(eta=.9))
    best = max(found['tried'].values(), key=lambda row: row['mean'])
    assert best is found['tried'][f"remdm_cap_eta{found['parameters']['eta']}"]


def test_the_stages_and_their_parameters_are_listed(monkeypatch, capsys):
    for args, expected in [(['--help'], 'train_sudoku'), (['sample', '--help'], "comparison = 'main'")]:
        monkeypatch.setattr(sys, 'argv', ['remask-stage', *args])
        stages.stage_main()
        assert expected in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', ['remask-stage', 'sampel', '--help'])
    with pytest.raises(SystemExit, match='did you mean sample'): stages.stage_main()


MAINS = dict(remask='remask.pipeline.cli import main',
             stage='remask.pipeline.stages import stage_main as main')
PIPED = [('remask', '--help'), ('remask', 'methods --json'), ('stage', '--help')]


@pytest.mark.parametrize('which, args', PIPED)
def test_a_reader_that_leaves_early_ends_a_command_without_a_word(which, args):
    code = f'from {MAINS[which]}; main()'
    piped = f"{shlex.quote(sys.executable)} -c '{code}' {args} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(['bash', '-c', piped], capture_output=True, text=True, cwd=ROOT)
    # argparse itself takes no notice of a reader of its help that left
    assert done.stdout in ('141\n', '0\n') and done.stderr == ''


def test_a_shell_completes_commands_options_and_methods(tmp_path, capsys):
    cli.main(['completion', 'bash'])
    (tmp_path/'remask.sh').write_text(capsys.readouterr().out)
    def completed(*words):
        asked = f"COMP_WORDS=(remask {' '.join(words)}); COMP_CWORD={len(words)}; _shtab_remask"
        script = f'source {tmp_path}/remask.sh; {asked}; echo ${{COMPREPLY[@]}}'
        done = subprocess.run(['bash', '-c', script], capture_output=True, text=True)
        return set(done.stdout.split())
    assert completed('de') == {'demo', 'dependencies'} and completed('demo', 's') == {'sudoku'}
    assert completed('explain', 'remdm_sw') == {'remdm_switch'}
    assert completed('chat', '--me') == {'--method'}
    assert completed('chat', '--method', 'gib') == {'gibbs'}


def test_questions_are_answered_one_a_line(tmp_path, monkeypatch, capsys):
    from remask.lm.hub_model import save_small
    save_small(tmp_path/'small')
    monkeypatch.setattr(sys, 'stdin', io.StringIO('12+7\n\n8*9\n'))
    cli.main(['chat', str(tmp_path/'small'), '--length', '8', '--steps', '8', '--json'])
    known = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row['question'] for row in known] == ['12+7', '8*9'] and all('answer' in row for row in known)


def test_a_parameter_that_a_stage_does_not_take_is_one_sentence(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as e: cli.main(['sample', 'epochs=3'])
    err = capsys.readouterr().err
    assert e.value.code == 2 and 'has no parameter epochs' in err and err.count('\n') == 1


def small_project(at):
    "A project with a network of plans of four rooms, not trained"
    (at/'nbs'/'experiments').mkdir(parents=True)
    (at/'params.yaml').write_text('run: {}\n')
    space = graph_space(4)
    plans = torch.where(slots(torch.tensor([3, 4, 4]), 4), 0, space.pad)
    save_tensors(at/'build/prepare/plans/tokens.safetensors', dict(train=plans), dict(n_max=4))
    net = Denoiser(graph_position_features(4), space.legal, d=16, layers=1, heads=2)
    save_net(at/'build/train/plans/v1/net.safetensors', net, schedule='linear', steps=0)


def test_generate_goes_on_below_the_project_and_writes_what_one_run_writes(tmp_path, monkeypatch, capsys):
    small_project(tmp_path)
    monkeypatch.chdir(tmp_path/'nbs')
    words = 'generate llada_topp0.9_no_remask --steps 4 --size 5 --engine serial'.split()
    def ids(folder): return torch.cat([shard['x'] for shard in read_shards(tmp_path/folder)])
    for rows in '7', '12': cli.main([*words, '--rows', rows, '--to', str(tmp_path/'parts')])
    cli.main([*words, '--rows', '12', '--to', str(tmp_path/'whole')])
    assert ids('parts').equal(ids('whole')) and len(ids('whole')) == 12
    assert capsys.readouterr().out.endswith('12 plans in 3 shards\n')
    with pytest.raises(SystemExit) as e: cli.main([*words, '--rows', '0', '--to', str(tmp_path/'none')])
    assert e.value.code == 2 and 'whole numbers above 0' in capsys.readouterr().err
