"The `remask` command."
import json, subprocess, sys

import pytest

from remask.pipeline import cli
from remask.domains.graphs import Graph
from remask.domains.readers import read_jsonl, write_jsonl

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
