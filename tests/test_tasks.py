"""Problems that can be checked, against Python's own arithmetic; published sets, field by field."""
import gzip, itertools, json, pathlib, re, unicodedata
from collections import Counter
from fractions import Fraction

import numpy as np, pandas as pd, pyarrow as pa, pytest
from hypothesis import given, settings, strategies as st

from remask.domains import tasks as T
from remask.core.files import read_records
from remask.domains.tasks import (
    ARITHMETIC, EOS, KINDS, Dice, Pair, as_pairs, as_rows, problems, read_pairs, read_tabbed,
    same_as, collect_characters, verify)

CELLS = [(k, level) for k in KINDS for level in (1, 2, 3)]
SHARED = pathlib.Path(__file__).parents[2]/'shared'/'data'


def one_line(e): return '\n' not in str(e.value) and len(str(e.value)) < 400


# ---- problems

def reachable(numbers, target):
    "Whether some sequence of operations makes the target of all the numbers"
    if len(numbers) == 1: return numbers[0] == target
    for a, b, *rest in itertools.permutations(numbers):
        results = a + b, a - b, a*b
        if any(reachable([v, *rest], target) for v in results): return True
    return False


@pytest.mark.parametrize('kind, level', CELLS)
def test_answers_are_right_by_another_arithmetic(kind, level):
    for p in problems(kind, level, 40, seed=3):
        result = int(p.answer.rpartition('#')[2])
        if kind == 'countdown':
            given, _, target = p.prompt.partition('>')
            assert result == int(target) and reachable([*map(int, given.split(','))], result)
        else: assert result == eval(p.prompt)
        for step in p.answer.partition('#')[0].split(';'):
            left, _, right = step.partition('=')
            assert eval(left) == int(right)
        assert verify(p.prompt, p.answer) == (True, True, -1, '')


@pytest.mark.parametrize('kind, level', CELLS)
def test_harder_is_longer_and_the_same_on_every_machine(kind, level):
    ps = problems(kind, level, 60)
    assert ps == problems(kind, level, 60) != problems(kind, level, 60, seed=1)
    def characters(ps): return sum(len(p.answer) for p in ps)
    if level > 1: assert characters(ps) > characters(problems(kind, level - 1, 60))


def test_the_first_problems_are_known():
    assert [problems(k, 2, 1)[0].prompt for k in KINDS] == ['4365+9788', '1+(3-3)+9', '8,10,9>8']
    assert Dice('add', 1)(10**6) == 828646


def test_dice_are_fair():
    d = Dice(0)
    n = Counter(d(7) for _ in range(70_000))
    assert sum((v - 10_000) ** 2 / 10_000 for v in n.values()) < 22.5  # chi-square, 6 degrees, p = .001


def test_carries_run_far():
    carries = []
    for p in problems('addition', 3, 300):
        steps = p.answer.partition('#')[0].split(';')
        carries += [step[4] for step in steps[1:]]
    assert carries.count('1')/len(carries) > .6


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_tested_was_never_trained_on(kind):
    trained = {same_as(p.prompt) for p in problems(kind, 1, 1500)}
    tested = [same_as(p.prompt) for p in problems(kind, 1, 60, test=True)]
    assert len(set(tested)) == 60 and not trained & set(tested)


def test_the_order_of_numbers_makes_no_new_problem():
    assert same_as('57+48') == same_as('48+57')
    assert same_as('1,2,3>7') == same_as('3,1,2>7') != same_as('3,1,2>8')
    assert same_as('8-5-2') != same_as('2-5-8')


@pytest.mark.parametrize(
    'kind, level, why',
    [
        ('division', 1, 'addition, expression, countdown'),
        ('addition', 4, 'must be 1, 2 or 3'),
    ],
)
def test_an_unknown_kind_or_level_is_refused(kind, level, why):
    with pytest.raises(ValueError, match=why) as e: problems(kind, level, 1)
    assert one_line(e)


# ---- verify

@settings(max_examples=80, deadline=None)
@given(st.sampled_from(CELLS), st.integers(0, 30), st.data())
def test_one_changed_digit_is_found_in_its_step(cell, k, data):
    p = problems(*cell, k + 1, seed=5)[-1]
    at = data.draw(st.sampled_from([m.start() for m in re.finditer(r'\d', p.answer)]))
    digit = data.draw(st.sampled_from([c for c in '0123456789' if c != p.answer[at]]))
    changed = p.answer[:at] + digit + p.answer[at+1:]
    v, step = verify(p.prompt, changed), len(re.findall('[;#]', p.answer[:at]))
    if cell[0] == 'addition': assert v.step == step and not v.right
    else: assert v.right or v.step >= step  # the steps before the change hold; another way may be right too


@pytest.mark.parametrize(
    'prompt, answer, step',
    [
        ('58+67', '8+7+0=15;5+6+1=12#125', -1),
        ('58+67', '8+7+0=15#125', 1),
        ('58+67', '#125', 0),
        ('58+67', '', 0),
        ('58+67', '8+7+0=15;5+6+1=12#126', 2),
        ('58+67', '8+7+0=15;5+6+1=12', 2),
        ('58+67', '8+7+0=15;5+6+1=12;0+0+1=01#125', 2),
        ('2+3*4', '3*4=12;2+12=14#14', -1),
        ('2+3*4', '2+3=5;5*4=20#20', 0),
        ('2+3*4', '3*4=12#14', 1),
        ('(5-2)*(3-1)', '3-1=2;5-2=3;3*2=6#6', -1),
        ('1,2,3>9', '2+1=3;3*3=9#9', -1),
        ('1,2,3>9', '3*3=9#9', 0),
        ('1,2,3>9', '2+1=3#9', 1),
        ('1,2,3>9', '2+1=3;3*3=9#8', 2),
    ],
)
def test_the_first_wrong_step_is_named(prompt, answer, step):
    v = verify(prompt, answer)
    assert v.step == step and v.right == (step == -1) and bool(v.why) != v.right


def test_a_right_result_of_wrong_steps_is_solved_but_not_right():
    assert verify('58+67', '8+7+0=14;5+6+1=12#125')[:2] == (False, True)
    assert verify('1,2,3>9', '#9')[:2] == (False, False)      # the prompt has the result
    with pytest.raises(ValueError, match='no sum, expression or countdown'): verify('import os', '1')


# ---- rows

def test_encoded_rows_decode_to_their_pairs():
    ps = problems('expression', 2, 20)
    rows = as_rows(ARITHMETIC, [p[2:] for p in ps], 16, 40)
    assert T.answers(ARITHMETIC, rows.x, 16) == [p.answer for p in ps]
    assert T.prompts(ARITHMETIC, rows.x, 16) == [p.prompt for p in ps]
    prompt, answer = T.ask(ARITHMETIC.space(56), rows).split([16, 40], 1)
    assert (prompt == rows.x[:, :16]).all()
    assert (answer == ARITHMETIC.mask).all()
    assert (rows.x[:, -1] == ARITHMETIC.encode(EOS)).all()


@pytest.mark.parametrize(
    'pair, why',
    [
        (('1+1', ''), 'is empty'),
        (('1' * 17, '2'), 'room for 16'),
        (('1+1', '2' * 40), 'G=40'),
        (('1+1', '2' + EOS), 'may not stand'),
        (('one', '2'), "character 'o'"),
    ],
)
def test_pairs_that_do_not_fit_a_row_are_refused(pair, why):
    with pytest.raises(ValueError, match=re.escape(why)) as e:
        as_rows(ARITHMETIC, [('1+1', '2'), pair], 16, 40)
    assert one_line(e)


# ---- published sets: the mistakes of the published loader are not made here

RECORDS = {}
RECORDS['gsm8k'] = dict(question='How many?', answer='6/2=<<6/2=3>>3\n#### 3')
RECORDS['math500'] = dict(
    problem='$1+1$?', solution='It is $2$.', answer='2', subject='Algebra', level=1, unique_id='a'
)
RECORDS['s1k'] = dict(
    question='Why?', solution='So.', deepseek_thinking_trajectory='hm', deepseek_attempt='So!'
)
RECORDS['opc_educational_instruct'] = dict(
    seq_id=1,
    instruction='Add.',
    output='```def f```',
    code='def f(a): return a',
    entry_point='f',
    testcase=['assert f(1) == 1'],
)
RECORDS['opc_evol_instruct'] = dict(seq_id=1, instruction='Add.', output='text')
RECORDS['opc_mceval_instruct'] = dict(seq_id=1, instruction='Add.', output='text', language='Go')
RECORDS['humaneval'] = dict(
    task_id='a/0',
    prompt='def f(a):\n',
    canonical_solution='    return {}\n',
    entry_point='f',
    test='def check(f): assert f(1) == {}',
)
RECORDS['mbpp'] = dict(
    text='Add.',
    code='def f(a): return a',
    test_list=['assert f(1) == 1'],
    test_setup_code='import math',
    task_id=1,
)
RECORDS['mbpp_sanitized'] = dict(
    prompt='Add.', code='def f(a): return a', test_list=['assert f(1) == 1'], test_imports=['import math']
)


@pytest.mark.parametrize('name', T.SETS)
def test_every_set_has_a_prompt_and_an_answer(name):
    p, = as_pairs([RECORDS[name]], name)
    fields = RECORDS[name].values()
    assert p.prompt in fields and p.answer in fields
    assert p.prompt != p.answer
    if name == 'math500':
        assert p == ('$1+1$?', 'It is $2$.', '2', '', '')  # published: the bare answer, no prompt
    if p.after and name != 'opc_educational_instruct': exec(p.before + p.answer + p.after, {})


@pytest.mark.parametrize('name', T.SETS)
def test_a_missing_field_is_named(name):
    for f in T.SETS[name][0].split():
        r = {k: v for k, v in RECORDS[name].items() if k != f}
        with pytest.raises(ValueError, match=rf'record 1 of {name} has no {f}; it has') as e:
            as_pairs([RECORDS[name], r], name)
        assert one_line(e)


def test_sets_are_not_mixed_up():
    with pytest.raises(ValueError, match='has no problem'): as_pairs([RECORDS['gsm8k']], 'math500')
    with pytest.raises(ValueError, match='has no code, entry_point, testcase'):
        as_pairs([RECORDS['opc_evol_instruct']], 'opc_educational_instruct')
    with pytest.raises(ValueError, match="set 'gsm' is unknown"): as_pairs([], 'gsm')


def test_every_form_of_file_gives_the_same_records(tmp_path):
    rows = [RECORDS['gsm8k'], RECORDS['gsm8k'] | dict(question='Ünd?')]
    text = '\n'.join(map(json.dumps, rows)) + '\n\n'
    (tmp_path/'a.jsonl').write_text(text)
    (tmp_path/'a.jsonl.gz').write_bytes(gzip.compress(text.encode()))
    pd.DataFrame(rows).to_parquet(tmp_path/'a.parquet')
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(tmp_path / 'a.arrow'), 'wb') as f, pa.ipc.new_stream(f, table.schema) as w:
        w.write_table(table)
    assert all(read_records(tmp_path/f'a.{e}') == rows for e in ('jsonl', 'jsonl.gz', 'parquet', 'arrow'))


def test_a_missing_part_or_subset_is_refused(tmp_path):  # published: another part is taken
    for sub, part in (('main', 'train'), ('main', 'test'), ('socratic', 'train')):
        (tmp_path/sub).mkdir(exist_ok=True)
        table = pd.DataFrame([dict(question=sub, answer=part)])
        table.to_parquet(tmp_path/sub/f'{part}-00000-of-00001.parquet')
    (tmp_path/'dataset_info.json').write_text('{}')
    assert read_pairs(tmp_path, 'gsm8k', 'train', 'socratic')[0][:2] == ('socratic', 'train')
    with pytest.raises(ValueError, match="no part 'test' of 'socratic'; it has main/test"):
        read_pairs(tmp_path, 'gsm8k', 'test', 'socratic')
    with pytest.raises(ValueError, match="no part 'validation'"): read_pairs(tmp_path, 'gsm8k', 'validation')


# ---- files of exactly the published forms

# a record of each set, with the fields that are not read
PUBLISHED = {}
PUBLISHED['gsm8k'] = dict(
    question="Natalia sold clips to 48 friends.\u2028How many?",
    answer='She sold 48/2 = <<48/2=24>>24 clips.\nThat is 48+24 = 72.\n#### 72',
)
PUBLISHED['math500'] = dict(
    problem='Convert $(0,3)$ to polar coordinates.\n\n[asy]\ndraw((0,0)--(1,1));\n[/asy]',
    subject='Precalculus',
    level=2,
    solution='We have $r = 3.$\n\nHence \\[\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.\\]',
    unique_id='test/precalculus/807.json',
    answer='\\left( 3, \\frac{\\pi}{2} \\right)',
)
PUBLISHED['s1k'] = dict(
    solution='128',
    question='Given a rational number θ ≥ ½,\nhow many?',
    cot_type='math',
    source_type='qq8933/AIME_1983_2024',
    metadata="{'ID': '1'}",
    gemini_thinking_trajectory='a\nb',
    gemini_attempt='c',
    deepseek_thinking_trajectory='x² ≤ 5\nso',
    deepseek_attempt='d',
    gemini_grade='Yes',
    gemini_grade_reason='e',
    deepseek_grade='No',
    deepseek_grade_reason='f',
)
PUBLISHED['opc_educational_instruct'] = dict(
    seq_id=1,
    instruction='Write a function\nto add.',
    output='```python\ndef add(a, b):\n    return a + b\n```',
    code='def add(a, b):\n    return a + b',
    entry_point='add',
    testcase=['assert add(1, 2) == 3', 'assert add(0, 0) == 0'],
)
PUBLISHED['opc_evol_instruct'] = dict(
    seq_id=2, instruction='Rewrite.', output='Here:\n```python\nx = 1\n```\n', tag='evol'
)
PUBLISHED['opc_mceval_instruct'] = dict(
    seq_id=3, instruction='In Go.', output='```go\nfunc f() {}\n```', language='Go'
)
PUBLISHED['humaneval'] = dict(
    task_id='HumanEval/53',
    prompt='\n\ndef add(x: int, y: int):\n'
    '    """Add two numbers x and y\n    >>> add(2, 3)\n    5\n    """\n',
    entry_point='add',
    canonical_solution='    return x + y\n',
    test='\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2, 3) == 5\n',
)
PUBLISHED['mbpp'] = dict(
    text='Write a function\nto add.',
    code='def add(a, b):\r\n\treturn a + b',
    task_id=601,
    test_setup_code='',
    test_list=['assert add(1, 2) == 3'],
    challenge_test_list=[],
)
PUBLISHED['mbpp_sanitized'] = dict(
    source_file='Benchmark Questions Verification V2.ipynb',
    task_id=2,
    prompt='Write a function to find pi.',
    code='import math\ndef pi():\n  return math.pi',
    test_imports=['import math'],
    test_list=['assert pi() == math.pi'],
)


def written(folder, rows): # every form in which such records are handed on
    text = '\n'.join(json.dumps(r, ensure_ascii=False) for r in rows)
    for name, data in (
        ('a.jsonl', text),
        ('m.jsonl', '\ufeff\n' + text + '\n\n'),
        ('c.jsonl', text.replace('\n', '\r\n')),
        ('a.json', json.dumps(rows)),
        ('i.json', json.dumps(rows, indent=4, ensure_ascii=False)),
    ):
        (folder/name).write_bytes(data.encode())
        (folder/f'{name}.gz').write_bytes(gzip.compress(data.encode()))
        yield from (folder/name, folder/f'{name}.gz')
    table = pa.Table.from_pylist(rows)
    pd.DataFrame(rows).to_parquet(folder/'a.parquet')
    with pa.OSFile(str(folder / 'a.arrow'), 'wb') as f, pa.ipc.new_stream(f, table.schema) as w:
        w.write_table(table)
    yield from (folder/'a.parquet', folder/'a.arrow')


@pytest.mark.parametrize('name', T.SETS)
def test_every_set_is_read_from_every_published_form(tmp_path, name):
    rows = [PUBLISHED[name], PUBLISHED[name]]
    want, files = as_pairs(rows, name), [*written(tmp_path, rows)]
    assert len(files) == 12 and want[0].prompt and want[0].answer
    for f in files: assert read_pairs(f, name) == want, f
    if name == 'gsm8k': assert want[0].gold == '72' and '\u2028' in want[0].prompt
    if name == 'math500': assert want[0].gold == r'\left( 3, \frac{\pi}{2} \right)'


LAYOUTS = {  # as the hub serves a set or `save_to_disk` lays it out -> the one way to ask for it
    'main/train-00000-of-00001.parquet': {},
    'data/train-00000-of-00001.parquet': {},
    'train/data-00000-of-00001.arrow': {},
    'train.jsonl': {},
    'gsm8k-train.jsonl.gz': {},
    'test.jsonl': dict(part='test'),
    'educational_instruct/data-00000-of-00001.arrow': dict(subset='educational_instruct'),
    'sanitized/test-00000-of-00001.parquet': dict(part='test', subset='sanitized'),
    'anything.json': {},
}


@pytest.mark.parametrize('where', LAYOUTS)
def test_folders_as_the_hub_serves_them(tmp_path, where):
    made = {f.name.partition('.')[2]: f for f in written(tmp_path, [PUBLISHED['gsm8k']])}
    to = tmp_path/'set'/where
    to.parent.mkdir(parents=True)
    to.write_bytes(made[to.name.partition('.')[2]].read_bytes())
    for about in (
        'dataset_info.json',
        'state.json',
        'dataset_dict.json',
        'dataset_infos.json',
        '.cache/huggingface/train.json',
        'README.md',
    ):
        (tmp_path/'set'/about).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'set'/about).write_text('{}')
    assert read_pairs(tmp_path/'set', 'gsm8k', **LAYOUTS[where]) == as_pairs([PUBLISHED['gsm8k']], 'gsm8k')
    with pytest.raises(ValueError, match="has no part 'validation'"):
        read_pairs(tmp_path / 'set', 'gsm8k', 'validation')


def test_shards_are_read_in_order_and_nothing_twice(tmp_path):
    def made(k): return json.dumps(dict(question=str(k), answer=f'#### {k}'))
    for k in 2, 0, 1: (tmp_path/f'train-0000{k}-of-00003.jsonl').write_text(made(k))
    assert [p.gold for p in read_pairs(tmp_path, 'gsm8k')] == ['0', '1', '2']
    (tmp_path/'train.json').write_text(made(0))
    with pytest.raises(ValueError, match="has 'train' several times .*name a subset or a file") as e:
        read_pairs(tmp_path, 'gsm8k')
    assert one_line(e)
    for sub in 'main', 'domain', 'socratic':
        (tmp_path/'two'/sub).mkdir(parents=True)
        (tmp_path/'two'/sub/'train.jsonl').write_text(made(sub))
    with pytest.raises(ValueError, match="several times .domain/train.jsonl, main/train.jsonl, socratic"):
        read_pairs(tmp_path / 'two', 'gsm8k')
    assert read_pairs(tmp_path/'two', 'gsm8k', subset='main')[0].gold == 'main'


@pytest.mark.parametrize('name', T.SETS)
@pytest.mark.parametrize('odd', [float('nan'), float('inf'), 3, True, {'a': 1}])
def test_a_field_that_is_no_text_is_named_with_file_and_record(tmp_path, name, odd):
    for field in T.SETS[name][0].split():
        if field in ('task_id', 'level'): continue
        rows = [PUBLISHED[name], PUBLISHED[name] | {field: odd}]
        with pytest.raises(
            ValueError, match=rf'record 1 of {name} has .* as {field}, which is no (list of )?text'
        ) as e:
            as_pairs(rows, name)
        assert one_line(e)
        (tmp_path/'a.jsonl').write_text('\n\n'.join(map(json.dumps, rows)))
        with pytest.raises(ValueError, match=rf'a.jsonl, line 3: a record of {name} has .* as {field}') as e:
            read_pairs(tmp_path / 'a.jsonl', name)
        assert one_line(e)


def test_a_missing_value_of_pandas_is_no_answer(tmp_path):
    pd.DataFrame([PUBLISHED['gsm8k'], dict(question='Why?')]).to_parquet(tmp_path/'a.parquet')
    with pytest.raises(ValueError, match='a.parquet, record 2: a record of gsm8k has no answer'):
        read_pairs(tmp_path / 'a.parquet', 'gsm8k')
    table = pd.DataFrame([dict(question='Why?', answer=np.nan)])
    table.to_json(tmp_path/'a.jsonl', orient='records', lines=True)
    with pytest.raises(ValueError, match='a.jsonl, line 1: a record of gsm8k has no answer'):
        read_pairs(tmp_path / 'a.jsonl', 'gsm8k')


@pytest.mark.parametrize(
    'records, why',
    [
        ([], 'there are no records of gsm8k'),
        (['a'], "record 0 of gsm8k is 'a' and no record"),
        ([RECORDS['gsm8k'], None], "record 1 of gsm8k is 'None'"),
        ([{1: 2}], 'record 0 of gsm8k has no question, answer; it has 1'),
    ],
)
def test_what_is_no_record_is_named(records, why):
    with pytest.raises(ValueError, match=re.escape(why)) as e: as_pairs(records, 'gsm8k')
    assert one_line(e)


@pytest.mark.parametrize(
    'data, why',
    [
        (b'', 'is empty'),
        (b'[]', 'holds no records'),
        (b'3', 'holds no records'),
        (b'[3]', 'record 1: 3 is no record'),
    ],
)
def test_files_without_records_are_refused(tmp_path, data, why):
    (tmp_path/'a.json').write_bytes(data)
    with pytest.raises(ValueError, match=why) as e: read_pairs(tmp_path/'a.json', 'gsm8k')
    assert 'a.json' in str(e.value) and one_line(e)
    with pytest.raises(OSError, match='none.json could not be read'):
        read_pairs(tmp_path / 'none.json', 'gsm8k')
    with pytest.raises(ValueError, match="set 'gsm' is unknown"): read_pairs(tmp_path/'none.json', 'gsm')


# ---- pairs of a text file

ANY = st.text(
    alphabet=st.characters(exclude_categories=['Cs'], exclude_characters='\0\t\n\r'), min_size=1, max_size=12
).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=5))
def test_pairs_of_a_text_file_are_read_as_written(tmp_path_factory, pairs):
    f = tmp_path_factory.getbasetemp()/'pairs.txt'
    for end in '\n', '\r\n', '\n\n', '\r\n \r\n':
        for mark in '\ufeff', '' if not pairs[0][0].startswith('\ufeff') else '\ufeff':
            f.write_bytes((mark + end.join(map('\t'.join, pairs)) + end).encode())
            assert read_tabbed(f) == [Pair(*p) for p in pairs]


@pytest.mark.parametrize(
    'text, why',
    [
        ('a\tb\na b\n', 'line 2: has 0 tabs and needs one'),
        ('a\tb\n\na\tb\tc\n', 'line 3: has 2 tabs and needs one'),
        ('a\tb\t', 'line 1: has 2 tabs'),
        ('\tb', 'line 1: has an empty prompt'),
        ('a\t \r\n', 'line 1: has an empty answer'),
        ('a\tb\n \t ', 'line 2: has an empty prompt'),
        ('\ufeff', 'holds no pairs'),
        (' \n', 'is empty'),
        ('a\t\0', 'zero byte'),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, text, why):
    (tmp_path/'pairs.txt').write_text(text, encoding='utf-8', newline='')
    with pytest.raises(ValueError, match=why) as e: read_tabbed(tmp_path/'pairs.txt')
    assert 'pairs.txt' in str(e.value) and one_line(e)


# ---- any character

ODD = ['x² ≤ 5 and θ ≥ π/2', 'e\u0301 é', '👩\u200d🚀 𝔸', 'a\u2028b\u0085c\nd', '−2', '１２']


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=9), st.text(min_size=1, max_size=9)), min_size=1, max_size=5))
def test_rows_hold_any_character_of_unicode(pairs):
    if any(c in q + a for q, a in pairs for c in EOS + '░✗'): return     # the signs of decode
    vocab = collect_characters([t for pair in pairs for t in pair])
    rows = as_rows(vocab, pairs, 9, 10)
    assert rows.x.shape == (len(pairs), 19)
    assert T.answers(vocab, rows.x, 9) == [a for _, a in pairs]
    assert T.prompts(vocab, rows.x, 9) == [q.lstrip(' ') for q, _ in pairs]


def test_decoded_answers_are_those_that_were_encoded():
    vocab = collect_characters(ODD)
    assert set(vocab.chars) == set(''.join(ODD)) | {' ', EOS} and 'x²' in ODD[0]
    assert T.answers(vocab, as_rows(vocab, [('', t) for t in ODD], 0, 30).x, 0) == ODD
    assert unicodedata.normalize('NFC', ODD[1]) != ODD[1]                # a combining mark is kept as one


def test_no_pairs_and_unknown_characters_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match='give at least one pair') as e: as_rows(ARITHMETIC, [], 4, 4)
    assert one_line(e)
    no_rows = ARITHMETIC.encode('').view(0, 8)
    assert T.answers(ARITHMETIC, no_rows, 4) == T.prompts(ARITHMETIC, no_rows, 4) == []
    with pytest.raises(ValueError, match="row 1: character '−' at position 1") as e:
        as_rows(ARITHMETIC, [('1', '2'), ('1−1', '0')], 4, 4)
    assert one_line(e)


@pytest.mark.parametrize(
    'file, name, n',
    [
        ('gsm8k-train.jsonl', 'gsm8k', 7473),
        ('gsm8k-test.jsonl', 'gsm8k', 1319),
        ('HumanEval.jsonl.gz', 'humaneval', 164),
    ],
)
def test_the_published_files_are_read_whole(file, name, n):
    if not (SHARED/file).is_file(): pytest.skip('not here')
    pairs = read_pairs(SHARED/file, name)
    assert len(pairs) == n and all(p.prompt and p.answer for p in pairs)
    if name == 'gsm8k': assert all(Fraction(p.gold.replace(',', '')) is not None for p in pairs)
