"""Files written completely or not at all, text read unchanged, records of every format with places."""
import gzip, json, math, os

import numpy as np, pandas as pd, pyarrow as pa, pytest
from hypothesis import given, settings, strategies as st

from remask.core import files as F
from remask.core.files import located_records, read_records, read_utf8, read_whole, save_json, write_whole

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
    else: monkeypatch.setattr(F.Path, 'write_bytes', full)
    with pytest.raises(OSError, match='a.jsonl could not be written .No space left'): write_whole(f, b'new')
    assert [p.name for p in tmp_path.iterdir()] == ['a.jsonl'] and read_whole(f) == b'old'


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
