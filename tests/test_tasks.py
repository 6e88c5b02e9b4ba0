"""Problems that can be checked, against Python's own arithmetic; published sets, field by field."""
import gzip, json, pathlib, re
from collections import Counter
from fractions import Fraction

import pandas as pd, pyarrow as pa, pytest
from hypothesis import given, settings, strategies as st

from remask import tasks as T
from remask.tasks import ARITHMETIC, EOS, KINDS, Dice, as_pairs, as_rows, problems, read_pairs, read_records, same_as, verify

CELLS = [(k, level) for k in KINDS for level in (1, 2, 3)]
SHARED = pathlib.Path(__file__).parents[2]/'shared'/'data'


def one_line(e): return '\n' not in str(e.value) and len(str(e.value)) < 400


# ---- problems

def plays(numbers, target): # every way to reach a target with all the numbers
    if len(numbers) == 1: return numbers[0] == target
    some = ((i, j) for i in range(len(numbers)) for j in range(len(numbers)) if i != j)
    return any(plays([n for k, n in enumerate(numbers) if k not in (i, j)] + [v], target)
               for i, j in some for v in (numbers[i] + numbers[j], numbers[i] - numbers[j], numbers[i]*numbers[j]))


@pytest.mark.parametrize('kind, level', CELLS)
def test_answers_are_right_by_another_arithmetic(kind, level):
    for p in problems(kind, level, 40, seed=3):
        result = int(p.answer.rpartition('#')[2])
        if kind == 'countdown':
            given, _, target = p.prompt.partition('>')
            assert result == int(target) and plays([*map(int, given.split(','))], result)
        else: assert result == eval(p.prompt)
        for step in p.answer.partition('#')[0].split(';'):
            left, _, right = step.partition('=')
            assert eval(left) == int(right)
        assert verify(p.prompt, p.answer) == (True, True, -1, '')


@pytest.mark.parametrize('kind, level', CELLS)
def test_harder_is_longer_and_the_same_on_every_machine(kind, level):
    ps = problems(kind, level, 60)
    assert ps == problems(kind, level, 60) != problems(kind, level, 60, seed=1)
    if level > 1: assert sum(len(p.answer) for p in ps) > sum(len(p.answer) for p in problems(kind, level - 1, 60))


def test_the_first_problems_are_known():
    assert [problems(k, 2, 1)[0].prompt for k in KINDS] == ['4365+9788', '1+(3-3)+9', '8,10,9>8']
    assert Dice('add', 1)(10**6) == 828646


def test_dice_are_fair():
    d = Dice(0)
    n = Counter(d(7) for _ in range(70_000))
    assert sum((v - 10_000)**2/10_000 for v in n.values()) < 22.5                 # chi-square, 6 degrees, p = .001


def test_carries_run_far():
    carries = [step[4] for p in problems('addition', 3, 300) for step in p.answer.partition('#')[0].split(';')[1:]]
    assert carries.count('1')/len(carries) > .6


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_tested_was_never_trained_on(kind):
    trained = {same_as(p.prompt) for p in problems(kind, 1, 1500)}
    tested = [same_as(p.prompt) for p in problems(kind, 1, 60, test=True)]
    assert len(set(tested)) == 60 and not trained & set(tested)


def test_the_order_of_numbers_makes_no_new_problem():
    assert same_as('57+48') == same_as('48+57') and same_as('1,2,3>7') == same_as('3,1,2>7') != same_as('3,1,2>8')
    assert same_as('8-5-2') != same_as('2-5-8')


@pytest.mark.parametrize('call, why', [(lambda: problems('division', 1, 1), 'addition, expression, countdown'),
                                       (lambda: problems('addition', 4, 1), 'must be 1, 2 or 3')])
def test_no_such_problem(call, why):
    with pytest.raises(ValueError, match=why) as e: call()
    assert one_line(e)


# ---- verify

@settings(max_examples=80, deadline=None)
@given(st.sampled_from(CELLS), st.integers(0, 30), st.data())
def test_one_changed_digit_is_found_in_its_step(cell, k, data):
    p = problems(*cell, k + 1, seed=5)[-1]
    at = data.draw(st.sampled_from([m.start() for m in re.finditer(r'\d', p.answer)]))
    digit = data.draw(st.sampled_from([c for c in '0123456789' if c != p.answer[at]]))
    spoilt = p.answer[:at] + digit + p.answer[at+1:]
    v, step = verify(p.prompt, spoilt), len(re.findall('[;#]', p.answer[:at]))
    if cell[0] == 'addition': assert v.step == step and not v.right
    else: assert v.right or v.step >= step      # what stands before the change holds; another way may be right too


@pytest.mark.parametrize('prompt, answer, step', [
    ('58+67', '8+7+0=15;5+6+1=12#125', -1), ('58+67', '8+7+0=15#125', 1), ('58+67', '#125', 0), ('58+67', '', 0),
    ('58+67', '8+7+0=15;5+6+1=12#126', 2), ('58+67', '8+7+0=15;5+6+1=12', 2), ('58+67', '8+7+0=15;5+6+1=12;0+0+1=01#125', 2),
    ('2+3*4', '3*4=12;2+12=14#14', -1), ('2+3*4', '2+3=5;5*4=20#20', 0), ('2+3*4', '3*4=12#14', 1), ('(5-2)*(3-1)', '3-1=2;5-2=3;3*2=6#6', -1),
    ('1,2,3>9', '2+1=3;3*3=9#9', -1), ('1,2,3>9', '3*3=9#9', 0), ('1,2,3>9', '2+1=3#9', 1), ('1,2,3>9', '2+1=3;3*3=9#8', 2)])
def test_the_first_wrong_step_is_named(prompt, answer, step):
    v = verify(prompt, answer)
    assert v.step == step and v.right == (step == -1) and bool(v.why) != v.right


def test_a_right_result_without_the_work_is_solved_but_not_right():
    assert verify('58+67', '8+7+0=14;5+6+1=12#125')[:2] == (False, True)
    assert verify('1,2,3>9', '#9')[:2] == (False, False)      # the result stands in the prompt
    with pytest.raises(ValueError, match='no sum, expression or countdown'): verify('import os', '1')


# ---- rows

def test_rows_there_and_back():
    ps = problems('expression', 2, 20)
    rows = as_rows(ARITHMETIC, [p[2:] for p in ps], 16, 40)
    assert T.answers(ARITHMETIC, rows.x, 16) == [p.answer for p in ps]
    assert T.prompts(ARITHMETIC, rows.x, 16) == [p.prompt for p in ps]
    hidden = T.ask(ARITHMETIC.space(56), rows)
    assert (hidden[:, :16] == rows.x[:, :16]).all() and (hidden[:, 16:] == ARITHMETIC.mask).all()
    assert (rows.x[:, -1] == ARITHMETIC.encode(EOS)).all()


@pytest.mark.parametrize('pair, why', [(('1+1', ''), 'is empty'), (('1'*17, '2'), 'room for 16'), (('1+1', '2'*40), 'G=40'),
                                       (('1+1', '2' + EOS), 'may not stand'), (('one', '2'), "character 'o'")])
def test_rows_that_do_not_fit(pair, why):
    with pytest.raises(ValueError, match=re.escape(why)) as e: as_rows(ARITHMETIC, [('1+1', '2'), pair], 16, 40)
    assert one_line(e)


# ---- published sets: each mistake of the published loader, and that it is not made here

RECORDS = dict(
    gsm8k=dict(question='How many?', answer='6/2=<<6/2=3>>3\n#### 3'),
    math500=dict(problem='$1+1$?', solution='It is $2$.', answer='2', subject='Algebra', level=1, unique_id='a'),
    s1k=dict(question='Why?', solution='So.', deepseek_thinking_trajectory='hm', deepseek_attempt='So!'),
    opc_educational_instruct=dict(seq_id=1, instruction='Add.', output='```def f```', code='def f(a): return a', entry_point='f',
                                  testcase=['assert f(1) == 1']),
    opc_evol_instruct=dict(seq_id=1, instruction='Add.', output='text'),
    opc_mceval_instruct=dict(seq_id=1, instruction='Add.', output='text', language='Go'),
    humaneval=dict(task_id='a/0', prompt='def f(a):\n', canonical_solution='    return {}\n', entry_point='f',
                   test='def check(f): assert f(1) == {}'),
    mbpp=dict(text='Add.', code='def f(a): return a', test_list=['assert f(1) == 1'], test_setup_code='import math', task_id=1),
    mbpp_sanitized=dict(prompt='Add.', code='def f(a): return a', test_list=['assert f(1) == 1'], test_imports=['import math']))


@pytest.mark.parametrize('name', T.SETS)
def test_every_set_has_a_prompt_and_an_answer(name):
    p, = as_pairs([RECORDS[name]], name)
    assert p.prompt in RECORDS[name].values() and p.answer in RECORDS[name].values() and p.prompt != p.answer
    if name == 'math500': assert p == ('$1+1$?', 'It is $2$.', '2', '', '')       # published: the bare answer, no prompt
    if p.after and name != 'opc_educational_instruct': exec(p.before + p.answer + p.after, {})


@pytest.mark.parametrize('name', T.SETS)
def test_a_missing_field_is_named(name):
    for f in T.SETS[name][0].split():
        r = {k: v for k, v in RECORDS[name].items() if k != f}
        with pytest.raises(ValueError, match=rf'record 1 of {name} has no {f}; it has') as e: as_pairs([RECORDS[name], r], name)
        assert one_line(e)


def test_sets_are_not_mixed_up():
    with pytest.raises(ValueError, match='has no problem'): as_pairs([RECORDS['gsm8k']], 'math500')
    with pytest.raises(ValueError, match='has no code, entry_point, testcase'): as_pairs([RECORDS['opc_evol_instruct']], 'opc_educational_instruct')
    with pytest.raises(ValueError, match="set 'gsm' is unknown"): as_pairs([], 'gsm')


def test_every_form_of_file_holds_the_same(tmp_path):
    rows = [RECORDS['gsm8k'], RECORDS['gsm8k'] | dict(question='Ünd?')]
    text = '\n'.join(map(json.dumps, rows)) + '\n\n'
    (tmp_path/'a.jsonl').write_text(text)
    (tmp_path/'a.jsonl.gz').write_bytes(gzip.compress(text.encode()))
    pd.DataFrame(rows).to_parquet(tmp_path/'a.parquet')
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(tmp_path/'a.arrow'), 'wb') as f, pa.ipc.new_stream(f, table.schema) as w: w.write_table(table)
    assert all(read_records(tmp_path/f'a.{e}') == rows for e in ('jsonl', 'jsonl.gz', 'parquet', 'arrow'))


def test_a_part_or_subset_that_is_not_there_is_never_another_one(tmp_path): # published: any other part will do
    for sub, part in (('main', 'train'), ('main', 'test'), ('socratic', 'train')):
        (tmp_path/sub).mkdir(exist_ok=True)
        pd.DataFrame([dict(question=sub, answer=part)]).to_parquet(tmp_path/sub/f'{part}-00000-of-00001.parquet')
    (tmp_path/'dataset_info.json').write_text('{}')
    assert read_pairs(tmp_path, 'gsm8k', 'train', 'socratic')[0][:2] == ('socratic', 'train')
    with pytest.raises(ValueError, match="no part 'test' of 'socratic'; it has main/test"): read_pairs(tmp_path, 'gsm8k', 'test', 'socratic')
    with pytest.raises(ValueError, match="no part 'validation'"): read_pairs(tmp_path, 'gsm8k', 'validation')


@pytest.mark.parametrize('name, data, why', [
    ('a.csv', b'x', 'is no .jsonl'), ('a.jsonl', b'', 'is empty'), ('a.jsonl', b'3', 'no records'), ('a.jsonl', b'{"a": 1}\n{', 'line 2: is no JSON'),
    ('a.jsonl.gz', b'{}', 'cannot be read'), ('a.parquet', b'{}', 'cannot be read'), ('a.arrow', b'{}', 'cannot be read'),
    ('a.jsonl', b'\xff\xfe', 'cannot be read')])
def test_files_that_cannot_be_used(tmp_path, name, data, why):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(ValueError, match=why) as e: read_records(tmp_path/name)
    assert one_line(e)


@pytest.mark.parametrize('file, name, n', [('gsm8k-train.jsonl', 'gsm8k', 7473), ('gsm8k-test.jsonl', 'gsm8k', 1319),
                                           ('HumanEval.jsonl.gz', 'humaneval', 164)])
def test_the_real_files(file, name, n):
    if not (SHARED/file).is_file(): pytest.skip('not here')
    pairs = read_pairs(SHARED/file, name)
    assert len(pairs) == n and all(p.prompt and p.answer for p in pairs)
    if name == 'gsm8k': assert all(Fraction(p.gold.replace(',', '')) is not None for p in pairs)
