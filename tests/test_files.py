"""Files written completely or not at all, text read unchanged, records of every format with places."""
import gzip, json, math, os, stat, subprocess, sys

import numpy as np, pandas as pd, pyarrow as pa, pytest, torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file

from remask.core.denoiser import Denoiser, load_denoiser
from remask.core.files import (
    Limits, append_line, located, located_records, open_tensors, plain_name, read_records, read_utf8,
    read_whole, save_json, save_net, save_tensors, whole_lines, write_whole)
from remask.core.rate_network import load_rate_network
from remask.domains.graphs import graph_position_features, graph_rate_network, graph_space

SETTINGS = settings(max_examples=60, deadline=None)
TEXT = st.text(max_size=20)  # with surrogates, zeros and every line end of Unicode
SCALAR = st.none() | st.booleans() | st.integers(-10**30, 10**30) | TEXT
VALUE = st.recursive(SCALAR, lambda v: st.lists(v, max_size=3))
RECORDS = st.lists(st.dictionaries(TEXT, VALUE, max_size=3), min_size=1, max_size=4)
ENDS = '\u2028\u2029\x85\x1c\x1d\x1e\x0b\x0c'  # where str.splitlines ends a line, and JSON does not


def one_line(e): return '\n' not in str(e.value) and len(str(e.value)) < 400


# ---- bytes

def test_a_file_is_written_into_a_new_folder_and_nothing_else_is(tmp_path):
    write_whole(tmp_path/'a'/'b.bin', b'\x00\xff')
    assert read_whole(tmp_path/'a'/'b.bin') == b'\x00\xff'
    assert len([*tmp_path.rglob('*')]) == 2


@pytest.mark.parametrize('step', ['replace', 'write'])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch, step):
    f = tmp_path/'a.jsonl'
    write_whole(f, b'old')
    def full(*args): raise OSError(28, 'No space left on device')
    if step == 'replace': monkeypatch.setattr(os, 'replace', full)
    else: monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='a.jsonl could not be written .No space left'): write_whole(f, b'new')
    assert [p.name for p in tmp_path.iterdir()] == ['a.jsonl'] and read_whole(f) == b'old'


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path/'there').mkdir()
    for k, target in enumerate(['there/a', 'there/none', tmp_path/'there'/'b']):
        link = tmp_path/f'link{k}'
        link.symlink_to(target)
        write_whole(link, b'new')
        assert link.is_symlink() and link.read_bytes() == b'new'
    assert sorted(p.name for p in (tmp_path/'there').iterdir()) == ['a', 'b', 'none']
    (tmp_path/'round').symlink_to(tmp_path/'round')
    with pytest.raises(OSError, match='round could not be written') as e: write_whole(tmp_path/'round', b'')
    assert one_line(e)


def test_only_a_regular_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'device').symlink_to('/dev/null')
    refused = {tmp_path/'pipe': 'no regular file', tmp_path/'device': 'no regular', tmp_path: 'a folder'}
    for path, why in refused.items():
        with pytest.raises(OSError, match=f'{path.name} could not be written .it is {why}') as e:
            write_whole(path, b'x')
        assert one_line(e)
    assert stat.S_ISFIFO((tmp_path/'pipe').stat().st_mode) and stat.S_ISCHR(os.stat('/dev/null').st_mode)
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize('mask', [0o022, 0o077, 0o002])
def test_the_mask_of_the_user_decides_who_may_read_a_new_file_and_an_old_one_keeps_its_mode(tmp_path, mask):
    before = os.umask(mask)
    try: write_whole(tmp_path/'a', b'x')
    finally: os.umask(before)
    assert stat.S_IMODE((tmp_path/'a').stat().st_mode) == 0o666 & ~mask
    (tmp_path/'a').chmod(0o640)
    write_whole(tmp_path/'a', b'y')
    assert stat.S_IMODE((tmp_path/'a').stat().st_mode) == 0o640 and read_whole(tmp_path/'a') == b'y'


AS_NOBODY = """
import os, sys
from remask.core.files import write_whole
if os.getuid() == 0: os.setuid(65534)
try: write_whole(sys.argv[1], b'new')
except OSError as e: print(e)
"""


def test_a_folder_that_may_not_be_written_is_said_in_one_sentence(tmp_path):
    "As a user without privileges: the clear sentence is not hidden by a second error"
    for folder in tmp_path, *tmp_path.parents:
        if folder.stat().st_uid == os.getuid() and folder != folder.parent: folder.chmod(0o755)
        if folder.name.startswith('pytest-of'): break
    (tmp_path/'a').write_bytes(b'old')
    tmp_path.chmod(0o555)
    done = subprocess.run([sys.executable, '-c', AS_NOBODY, tmp_path/'a'], capture_output=True, text=True)
    tmp_path.chmod(0o755)
    said = f'{tmp_path/"a"} could not be written (Permission denied)'
    assert done.stdout.startswith(said), done.stderr[-500:]
    assert done.stdout.count('\n') == 1 and (tmp_path/'a').read_bytes() == b'old'


@pytest.mark.parametrize('name', ['../x', 'a/b', '/etc/x', '..', '.', '', '.hidden', '-f', 'a\0b', 'a\nb'])
def test_a_name_leads_nowhere_else(name):
    with pytest.raises(ValueError, match='table .* is no plain name'): plain_name(name, 'table')


def test_a_log_is_read_without_its_torn_line(tmp_path):
    for k in range(3): append_line(tmp_path/'log', dict(k=k))
    whole = (tmp_path/'log').read_bytes()
    for k in range(len(whole) + 1):
        (tmp_path/'log').write_bytes(whole[:k])
        assert whole_lines(tmp_path/'log') == [dict(k=j) for j in range(whole[:k].count(b'\n'))]
    for damage, place in (b'{"k": 0}\n{"k\n', 'line 2: is no JSON'), (b'3\n', 'line 1: 3 is no record'):
        (tmp_path/'log').write_bytes(damage)
        with pytest.raises(ValueError, match=f'log, {place}'): whole_lines(tmp_path/'log')
def test_a_value_without_json_leaves_the_old_file_alone(tmp_path):
    f = tmp_path/'a.json'
    save_json(f, dict(a=[1, .5, 'ü']), indent=1)
    assert json.loads(f.read_text()) == dict(a=[1, .5, 'ü']) and f.read_text().count('\n') == 6
    with pytest.raises(TypeError): save_json(f, dict(a={1}))
    assert json.loads(f.read_text())['a'][0] == 1 and [*tmp_path.iterdir()] == [f]


@pytest.mark.parametrize('read', [read_whole, read_utf8, read_records])
def test_missing_and_empty_files_are_named(tmp_path, read):
    for f in tmp_path/'none.jsonl', tmp_path:
        with pytest.raises(OSError, match='could not be read') as e: read(f)
        assert f.name in str(e.value) and one_line(e)
    for data in b'', b' \r\n\n':
        (tmp_path/'e.jsonl').write_bytes(data)
        with pytest.raises(ValueError, match='e.jsonl is empty') as e: read(tmp_path/'e.jsonl')
        assert one_line(e)


# ---- text

CHARACTERS = st.characters(exclude_categories=['Cs'], exclude_characters='\0')
PLAIN = st.text(alphabet=CHARACTERS, min_size=1).filter(lambda s: s.encode().strip())


@SETTINGS
@given(PLAIN)
def test_text_is_read_unchanged(tmp_path_factory, text):
    f = tmp_path_factory.getbasetemp()/'t.txt'
    for mark in b'', b'\xef\xbb\xbf':
        f.write_bytes(mark + text.encode())
        assert read_utf8(f) == (text if mark else text.removeprefix('\ufeff'))


@pytest.mark.parametrize('data, why', [
    (b'abc\ndef\0', 'zero byte at byte 7'), (b'a\nb\n\xffc', r'not UTF-8 \(byte 4, line 3\)'),
    (b'\xef\xbb\xbfa\n\xff', r'not UTF-8 \(byte 5, line 2\)'),
    ('né'.encode('latin-1'), r'not UTF-8 \(byte 1, line 1\)')])
def test_bytes_that_are_not_text_are_refused_with_the_place(tmp_path, data, why):
    (tmp_path/'t.txt').write_bytes(data)
    with pytest.raises(ValueError, match=why) as e: read_utf8(tmp_path/'t.txt')
    assert 't.txt' in str(e.value) and one_line(e)


# ---- records

def forms(records): # every way in which a JSON file can hold the same records
    for ascii in True, False:
        lines = [json.dumps(r, ensure_ascii=ascii) for r in records]
        for end in '\n', '\r\n':
            yield end.join(lines)
            yield end.join(['', *lines, ' ', '', ''])
        yield json.dumps(records, ensure_ascii=ascii)
        yield json.dumps(records, ensure_ascii=ascii, indent=2)
        yield '[' + ',\n'.join(lines) + ']\n'
        if len(records) == 1: yield json.dumps(records[0], ensure_ascii=ascii, indent=1)


@SETTINGS
@given(RECORDS)
def test_every_form_of_json_holds_the_same_records(tmp_path_factory, records):
    folder = tmp_path_factory.getbasetemp()
    for text in forms(records):
        try: data = text.encode()
        except UnicodeEncodeError: continue                      # a lone surrogate is escaped or no UTF-8
        for raw in data, b'\xef\xbb\xbf' + data:
            packed = gzip.compress(raw, mtime=0)
            for name in 'r.jsonl', 'r.json', 'r.jsonl.gz', 'r.json.gz':
                (folder/name).write_bytes(packed if name.endswith('.gz') else raw)
                assert read_records(folder/name) == records


@pytest.mark.parametrize('c', ENDS)
def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path, c):
    want = [{'q': f'a{c}b', 'a': 'x² ≤ 5 and θ ≥ π/2'}, {'q': '2'}]
    raw = '\n'.join(json.dumps(r, ensure_ascii=False) for r in want)
    if c < ' ': raw = raw.replace(c, json.dumps(c)[1:-1])        # controls are escaped in JSON
    (tmp_path/'a.jsonl').write_text(raw, encoding='utf-8')
    assert read_records(tmp_path/'a.jsonl') == want
    assert [r.place for r in located_records(tmp_path/'a.jsonl')] == ['line 1', 'line 2']


def test_places_count_blank_lines_and_the_members_of_an_array(tmp_path):
    (tmp_path/'a.jsonl').write_text('\n{"a": 1}\n\n \n{"a": 2}\n')
    assert located_records(tmp_path/'a.jsonl') == [('line 2', {'a': 1}), ('line 5', {'a': 2})]
    (tmp_path/'a.json').write_text('[{"a": 1},\n\n{"a": 2}]')
    assert located_records(tmp_path/'a.json') == [('record 1', {'a': 1}), ('record 2', {'a': 2})]


def test_tables_hold_the_same_records(tmp_path):
    rows = [dict(q='a\u2028b', a='x²\ny', tests=['1', '2'], n=None), dict(q='Ünd', a='', tests=[], n=None)]
    table = pa.Table.from_pylist(rows)
    pa.parquet.write_table(table, tmp_path/'a.parquet')
    for name, new in ('a.arrow', pa.ipc.new_stream), ('b.arrow', pa.ipc.new_file):
        with pa.OSFile(str(tmp_path/name), 'wb') as f, new(f, table.schema) as w: w.write_table(table)
    (tmp_path/'known_by_its_contents').write_bytes((tmp_path/'a.parquet').read_bytes())
    for name in 'a.parquet', 'a.arrow', 'b.arrow', 'known_by_its_contents':
        assert read_records(tmp_path/name) == rows
        assert [r.place for r in located_records(tmp_path/name)] == ['record 1', 'record 2']


def test_nan_and_infinity_are_read_like_other_values(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"a": NaN, "b": Infinity, "c": -Infinity}')
    got, = read_records(tmp_path/'a.jsonl')
    assert math.isnan(got['a']) and (got['b'], got['c']) == (math.inf, -math.inf)
    pd.DataFrame([dict(q='a', a=np.nan)]).to_parquet(tmp_path/'a.parquet')
    got, = read_records(tmp_path/'a.parquet')
    assert got['q'] == 'a' and (got['a'] is None or math.isnan(got['a']))


@pytest.mark.parametrize('name, data, why', [
    ('a.jsonl', b'{"a": 1}\n{', 'line 2: is no JSON'),
    ('a.jsonl', b'{"a": 1}\n\n{"a": 1,}', 'line 3: is no JSON'),
    ('a.jsonl', b'{"a": 1,\n{"a": 2}', 'line 1: is no JSON'),
    ('a.json', b'[{"a": 1},\n{"a": 2]', 'line 2: is no JSON'),
    ('a.json', b'[{"a": 1},\n{"a": 2}', 'line 2: is no JSON'),
    ('a.jsonl', b'{"a": 1} {"a": 2}', 'line 1: is no JSON'),
    ('a.jsonl', b'{"a": ' + b'['*200_000, 'line 1: is no JSON'),
    ('a.jsonl', b'{"a": ' + b'1'*9000 + b'}', 'line 1: is no JSON'), ('a.jsonl', b'3', "begins with '3'"),
    ('a.csv', b'x,y', "begins with 'x,y'; name a .jsonl"), ('a.jsonl', b'<html>\n', "begins with '<html>'"),
    ('a.jsonl', b'version https://git-lfs.github.com/spec/v1', "begins with 'version https://git-lfs"),
    ('a.jsonl', b'\xef\xbb\xbf', 'holds no records'), ('a.json', b'[]', 'holds no records'),
    ('a.json', b'[{"a": 1}, 3]', 'record 2: 3 is no record'),
    ('a.json', b'["a"]', 'record 1: "a" is no record'),
    ('a.jsonl', b'{"a": 1}\n[1]', r'line 2: \[1\] is no record'),
    ('a.jsonl', b'{"a": 1}\nnull', 'line 2: null is no record'),
    ('a.jsonl', b'[{"a": 1}]\n[{"a": 2}]', 'line 1: .* is no record'),
    ('a.jsonl', b'\xff\xfe{', r'not UTF-8 \(byte 0, line 1\)'),
    ('a.jsonl', b'{"a": 1}\n{"\xff": 2}', r'not UTF-8 \(byte 11, line 2\)'),
    ('a.jsonl.gz', b'{}', 'cannot be read'),
    ('a.jsonl.gz', gzip.compress(b'{"a": 1}', mtime=0)[:-9], 'cannot be read'),
    ('a.jsonl.gz', gzip.compress(b'{"a": 1}'*50, mtime=0)[:12] + b'\xff'*40, 'cannot be read'),
    ('a.jsonl.gz', gzip.compress(b'', mtime=0), 'holds no records'), ('a.parquet', b'{}', 'cannot be read'),
    ('a.arrow', b'{}', 'cannot be read'),
    ('a', b'PAR1', 'cannot be read'), ('a', b'ARROW1', 'cannot be read')])
def test_files_that_cannot_be_used(tmp_path, name, data, why):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(ValueError, match=why) as e: read_records(tmp_path/name)
    assert str(tmp_path/name) in str(e.value) and one_line(e)


def test_a_table_without_rows_holds_no_records(tmp_path):
    pa.parquet.write_table(pa.table({'a': pa.array([], pa.string())}), tmp_path/'a.parquet')
    with pytest.raises(ValueError, match='a.parquet holds no records'): read_records(tmp_path/'a.parquet')


# ---- more than a reader takes in

def bomb(folder):
    (folder/'a.jsonl.gz').write_bytes(gzip.compress(b' '*(400 << 20), 1))
    return folder/'a.jsonl.gz'


def many_rows(folder):
    table = pa.table({'a': pa.array(np.zeros(20_000_000, np.int8))})
    pa.parquet.write_table(table, folder/'a.parquet', row_group_size=20_000_000)
    return folder/'a.parquet'


def rows_of_nothing(folder):
    batch = pa.RecordBatch.from_arrays([pa.nulls(1 << 30)], ['a'])
    with pa.OSFile(str(folder/'a.arrow'), 'wb') as f, pa.ipc.new_file(f, batch.schema) as w: w.write(batch)
    return folder/'a.arrow'


def deep(folder):
    (folder/'a.jsonl').write_text('{"a": ' + '['*900 + ']'*900 + '}')
    return folder/'a.jsonl'


def lines(folder):
    (folder/'a.jsonl').write_text('{}\n'*2_000_001)
    return folder/'a.jsonl'


LARGE = dict.fromkeys([many_rows, rows_of_nothing, lines], 'records')
LARGE |= {bomb: 'bytes unpacked', deep: 'levels'}


@pytest.mark.parametrize('make', LARGE)
def test_more_than_a_reader_takes_in_is_refused_within_a_gigabyte(tmp_path, make):
    path = make(tmp_path)
    assert path.stat().st_size < 10 << 20
    code = "import re, sys\nfrom remask.core.files import read_records\n" \
           "try: read_records(sys.argv[1])\nexcept ValueError as e: print(e)\n" \
           "status = open('/proc/self/status').read()\n" \
           "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) >> 10)"   # its own peak, not its parent's
    done = subprocess.run([sys.executable, '-c', code, path], capture_output=True, text=True)
    message, megabytes = done.stdout.splitlines()
    assert message.startswith(str(path)) and LARGE[make] in message and 'at most' in message, done.stderr
    assert int(megabytes) < 1800


def test_the_limits_are_an_argument(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"a": [[1]]}\n'*5)
    assert len(located_records(tmp_path/'a.jsonl', Limits(records=5, depth=3))) == 5
    for limits in Limits(records=4), Limits(depth=1), Limits(bytes=9):
        with pytest.raises(ValueError, match='at most'): located_records(tmp_path/'a.jsonl', limits)


def flipped(data, k, bit):
    out = bytearray(data)
    out[k] ^= 1 << bit
    return bytes(out)


@pytest.mark.parametrize('name', ['a.arrow', 'b.arrow', 'a.parquet', 'a.jsonl.gz'])
def test_a_flipped_bit_in_a_table_never_ends_the_process(tmp_path, name):
    table = pa.Table.from_pylist([dict(q='ab', tests=['1', '2'], n=k) for k in range(5)])
    if name == 'a.parquet': pa.parquet.write_table(table, tmp_path/name)
    elif name.endswith('gz'): (tmp_path/name).write_bytes(gzip.compress(b'{"a": [1, 2]}'*9, mtime=0))
    else:
        new = pa.ipc.new_stream if name == 'a.arrow' else pa.ipc.new_file
        with pa.OSFile(str(tmp_path/name), 'wb') as f, new(f, table.schema) as w: w.write_table(table)
    whole = (tmp_path/name).read_bytes()
    for k in np.random.default_rng(0).integers(len(whole)*8, size=200).tolist():
        (tmp_path/name).write_bytes(flipped(whole, k//8, k % 8))
        try: read_records(tmp_path/name)
        except ValueError as e: assert str(tmp_path/name) in str(e) and '\n' not in str(e)


ERRORS = AttributeError('no get'), KeyError('a'), RecursionError(), OverflowError('x')


@pytest.mark.parametrize('error', ERRORS, ids=repr)
def test_whatever_a_bad_record_causes_names_file_and_place(error):
    with pytest.raises(ValueError, match='a.json, record 3: .*; correct') as e, located('a.json', 'record 3'):
        raise error
    assert one_line(e)


# ---- tensors: a digest, finite numbers, shapes before memory

def network(): return Denoiser(graph_position_features(4), graph_space(4).legal, d=16, layers=1)


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path):
    save_net(tmp_path/'n', network(), steps=3)
    whole = (tmp_path/'n').read_bytes()
    header = 8 + int.from_bytes(whole[:8], 'little')
    for k in np.random.default_rng(0).integers(header*8, len(whole)*8, size=100).tolist():
        (tmp_path/'n').write_bytes(flipped(whole, k//8, k % 8))
        with pytest.raises(ValueError, match='n: its contents are not what was written') as e:
            open_tensors(tmp_path/'n')
        assert one_line(e)
    (tmp_path/'n').write_bytes(whole.replace(b'\\"steps\\": 3', b'\\"steps\\": 9'))
    with pytest.raises(ValueError, match='not what was written'): load_denoiser(tmp_path/'n')


def test_a_file_from_before_there_were_digests_is_read_unless_it_is_not_finite(tmp_path):
    net = network()
    save_net(tmp_path/'n', net, steps=3)
    tensors = load_file(tmp_path/'n')
    about = dict(about=json.dumps(dict(config=net.config, provenance=dict(steps=3))))
    save_file(tensors, tmp_path/'old', about)
    again, origin = load_denoiser(tmp_path/'old')
    assert origin == dict(steps=3) and all(map(torch.equal, again.parameters(), net.parameters()))
    for value in torch.nan, torch.inf, -torch.inf:
        spoiled = {k: v.clone() for k, v in tensors.items()}
        spoiled['head.bias'][3] = value
        save_file(spoiled, tmp_path/'old', about)
        with pytest.raises(ValueError, match='old: head.bias holds numbers that are not finite'):
            load_denoiser(tmp_path/'old')
        with pytest.raises(ValueError, match='not finite'): save_tensors(tmp_path/'new', spoiled, {})
    assert not (tmp_path/'new').exists()


def test_a_sum_that_overflows_is_no_damage(tmp_path):
    save_tensors(tmp_path/'n', dict(a=torch.full((9,), 60000.).half(), b=torch.full((2,), 3e38)), {})
    assert open_tensors(tmp_path/'n')[0]['a'].tolist() == [60000.]*9


def old_file(path, net, config, **changed):
    "A file without a digest, its record or a tensor changed"
    about = dict(about=json.dumps(dict(config=net.config | config, provenance={})))
    save_file({k: v.contiguous() for k, v in (net.state_dict() | changed).items()}, path, about)


@pytest.mark.parametrize('config', [dict(layers=10**9), dict(d=10**9), dict(d=2**70), dict(d='x')], ids=str)
def test_a_record_of_a_huge_network_is_refused_before_anything_is_made(tmp_path, config):
    old_file(tmp_path/'n', network(), config)
    with pytest.raises(ValueError, match='n: (its|holds no)') as e: load_denoiser(tmp_path/'n')
    assert one_line(e)


def test_layers_without_end_are_refused(tmp_path):
    rates = graph_rate_network(4)
    old_file(tmp_path/'r', rates, {}, kinds=torch.full((10,), 2**40))
    with pytest.raises(ValueError, match='r: its record does not describe its tensors'):
        load_rate_network(tmp_path/'r')
    old_file(tmp_path/'r', rates, dict(K=10**12))
    with pytest.raises(ValueError, match='r: its tensors do not fit its own'): load_rate_network(tmp_path/'r')
