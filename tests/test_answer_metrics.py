"""Extraction, comparison, programs in a process apart, intervals by definition, injected errors."""
import itertools, math, pathlib, time
from fractions import Fraction
from typing import NamedTuple

import numpy as np, pytest, torch
from helpers import refusal
from hypothesis import given, settings, strategies as st


from remask.core.denoiser import Denoised
from remask.evaluate import answer_metrics
from remask.evaluate.answer_metrics import (
    boxed, detection_metrics, extract, inject_errors, paired_margin, parse_number, pass_at,
    program_in, remask_below, repair_statistics, right_answers, same_answer, share,
    short_answer)
from remask.lm.programs import run_program
from remask.core.sampler import Noise, Process, argmax, sample
from remask.core.schedules import linear, uniform_grid
from remask.domains.tasks import SETS, Pair, as_pairs, read_pairs
from remask.core.tokens import TokenSpace

# ---- the table of the published extractor, with the answer it should extract

@pytest.mark.parametrize('text, want', [
    ('The total is 1,234', '1,234'), ('x\n#### 72 apples', '72'), ('#### $18', '18'),
    ('#### 1,234,567', '1,234,567'),
    ('#### 3\nor\n#### 5', '5'), ('####\n\n 7 \n', '7'), ('a 3 then -4.5', '-4.5'), ('#### -12', '-12'),
    ('.5 of it', '.5'),
    ('3.', '3'), ('in 2024, 3', '3'), (r'\boxed{\frac{1}{2}}', r'\frac{1}{2}'),
    (r'\boxed{1} so \boxed{2}', '2'),
    (r'\boxed{\text{(A)}}', r'\text{(A)}'), (r'\boxed{\{1,2\}}', r'\{1,2\}'), ('nothing', None), ('', None),
    ('####', None)])
def test_the_answer_is_found(text, want): assert extract(text) == want


@pytest.mark.parametrize('a, b, want', [
    ('1,234', '1234', True), ('18', '18.0', True), ('$18', '18', True),
    (r'\frac{1}{2}', r'\frac{1}{3}', False),
    (r'\frac{1}{2}', '0.5', True), (r'\dfrac{-3}{4}', '-.75', True), ('50%', '.5', True),
    ('1/3', '.3333333', False),
    ('x^2', 'x ^ 2', True), ('x', 'y', False), ('3', 'x', False), (None, None, False), ('1/0', '1/0', True)])
def test_answers_are_compared(a, b, want): assert same_answer(a, b) is want and same_answer(b, a) is want


@given(st.fractions())
def test_numbers_are_read_exactly(q):
    n, d = q.numerator, q.denominator
    assert parse_number(f'{n}/{d}') == q
    assert parse_number(rf'\frac{{{n}}}{{{d}}}') == q
    assert parse_number(f'{n:,}') == n
    assert parse_number(str(float(Fraction(n, 8)))) is not None


def test_a_box_that_is_not_closed_is_none(): assert boxed(r'\boxed{\frac{1}{2}') is None


@pytest.mark.parametrize('text, want', [
    (r'\boxed{\frac{1}{\sqrt{2}}}', r'\frac{1}{\sqrt{2}}'), (r'\boxed{\{1, \{2\}\}}', r'\{1, \{2\}\}'),
    (r'\boxed{x \} y}', r'x \} y'),
    (r'\boxed {5}', '5'), (r'\fbox{5}', '5'), (r'\boxed 5$', '5'), (r'\boxed $5$', '5'),
    (r'\boxed{\boxed{3}}', '3'),
    ('\\boxed{\n7\n}', '7'), (r'\boxed{a\\{b}}', r'a\\{b}'),
    (r'\boxed{}', ''), (r'\boxed', None), ('boxed{3}', None)])
def test_braces_of_a_box_are_counted(text, want): assert boxed(text) == want


# ---- numbers in every writing

MINUS = ['-', '−', '－', '﹣', '‑', '–']
GAPS = ['', ',', '{,}', ',\\!', '\\,', '\\ ', '~', '\u2009', '\u202f', '\u00a0', '，']
WIDE = str.maketrans('0123456789', '０１２３４５６７８９')
AROUND = ['{}', '${}', '${}$', '\\${}', '{} apples', '{}.', '{{{}}}', '{}\\text{{ miles}}', ' {} cm^2',
          'x = {}', r'\({}\)', '{}^\\circ', '{}°', '{} kg']


@settings(max_examples=200, deadline=None)
@given(st.integers(-10**9, 10**9), st.integers(0, 999), st.sampled_from(MINUS), st.sampled_from(GAPS),
       st.booleans(), st.sampled_from(AROUND))
def test_a_number_is_itself_in_every_writing(whole, part, minus, gap, wide, around):
    value = Fraction(abs(whole)) + Fraction(part, 1000)
    digits = f'{abs(whole):,}'.replace(',', gap)
    if part: digits += f'.{part:03}'
    if wide: digits = digits.translate(WIDE)
    text, opposite = digits, '-' + digits
    if whole < 0: value, text, opposite = -value, minus + digits, digits.lstrip(''.join(MINUS))
    written = around.format(text)
    assert parse_number(written) == value
    assert same_answer(written, str(float(value)) if part else str(int(value)))
    assert not same_answer(written, str(value + 1))
    assert value == 0 or not same_answer(written, around.format(opposite))
    assert parse_number(extract(f'First 7, then it is {text}. So that is all')) == value
    assert parse_number(extract(f'Some 3.\n#### {written}\n')) == value
    assert parse_number(extract(rf'Box \boxed{{{written}}} and 5')) == value


@pytest.mark.parametrize('text, want', [
    ('1/2', Fraction(1, 2)), ('−1/2', Fraction(-1, 2)), ('1 1/2', Fraction(3, 2)),
    (r'1\frac12', Fraction(3, 2)), (r'-\frac{3}{4}', Fraction(-3, 4)),
    (r'\tfrac{3}4', Fraction(3, 4)), (r'\cfrac 3 4', Fraction(3, 4)), (r'\frac{12}{5}', Fraction(12, 5)),
    ('50%', Fraction(1, 2)), (r'50\%', Fraction(1, 2)),
    ('12.5 percent', Fraction(1, 8)), ('-$5', -5), ('$-5', -5), ('5€', 5), ('10 000', 10000),
    ('1 234.5', Fraction(2469, 2)), ('2e3', 2000), ('+7', 7),
    ('72 golden apples', 72), ('5 miles per hour', 5), (r'\text{72 apples}', 72), ('(5)', None),
    ('1,2', None), ('1,23', None), ('1,2345', None), ('3 4', None),
    ('12 34', None), ('2 million', None), ('2 pi', None), ('2 x', None), ('2x', None), ('1/0', None),
    ('--5', None), ('5 or 6', None), ('', None), ('-', None),
    ('1e999999999', None), ('1'*5000, None), ('1.2.3', None), ('x²', None), ('5²', None)])
def test_what_is_a_number_and_what_is_none(text, want): assert parse_number(text) == want


@pytest.mark.parametrize('text, want', [
    ('10-12', '12'), ('10–12', '12'), ('5 - 3', '3'), ('x-3', '3'), ('so −2', '-2'), ('it is 3/4', '3/4'),
    ('3 1/2 hours', '3 1/2'), (r'is $\frac{1}{2}$', r'\frac{1}{2}'),
    ('#### −1,234 apples\nmore 5', '-1,234'), ('#### north\n', 'north'), ('a\u2028#### 5\u2028b', '5'),
    ('####\r\n\r\n 7\r\n', '7'),
    ('Line 1\nLine 2\nso 3\n', '3'), ('-$5', '-$5'), ('1e5', '1e5')])
def test_the_last_number_is_found(text, want): assert extract(text) == want


@pytest.mark.parametrize('a, b, want', [
    ('−2', '-2', True), ('−2', '2', False), ('1\u202f234', '1234', True), ('１２', '12', True),
    ('1,2', '12', False), ('(1,2)', '(12)', False), ('3 4', '34', False),
    (r'\frac12', '0.5', True), (r'\frac12', r'\frac{1}{3}', False), (r'\dfrac{\pi}{2}', r'\frac{\pi}2', True),
    (r'\left( 3, \frac{\pi}{2} \right)', r'(3,\frac{\pi}{2})', True),
    (r'(3, .5)', r'\left(3,\frac{1}{2}\right)', True), ('(0,9)', '[0,9]', False), ('(0,9]', '(0, 9]', True),
    ('1,-2', '-2,1', False), ('1, −2', '1,-2', True),
    ('(1,2,3)', '(1,2)', False), (r'\sqrt3', r'\sqrt{3}', True), ('√3', r'\sqrt{3}', True),
    ('2π', r'2\pi', True), ('x²', 'x^{2}', True), ('x≤5', r'x \leq 5', True),
    (r'\text{(A)}', '(A)', True), ('x = 5', '5', True), ('y=2x+3', '2x+3', True), ('', '', False),
    (' ', ' ', False), ('yes', 'yes', True), ('yes', 'no', False),
    ('2 million', '2', False), ('2 pi', '2', False), (r'90^\circ', '90', True),
    (r'\{1,2\}', r'\{1, 2\}', True), ('e\u0301', 'e', False), ('x2', 'x²', False)])
def test_answers_of_every_writing_are_compared(a, b, want):
    assert same_answer(a, b) is want and same_answer(b, a) is want


PIECES = st.lists(st.sampled_from([*'0123456789,.-/ $%{}()[]xy=^_\\', '\\frac', '\\sqrt', '\\text{',
                                   '\\boxed{', '####', '−', '\u2009', 'π', 'apples', '\n', '１']),
                  max_size=12).map(''.join)


@settings(max_examples=300, deadline=None)
@given(PIECES | st.text(max_size=30), PIECES | st.text(max_size=30))
def test_any_text_can_be_judged(a, b):
    assert same_answer(a, b) is same_answer(b, a)
    assert same_answer(a, a) is (a.strip() != '' and same_answer(a, a))
    for text in a, b:
        found_one, value = extract(text), parse_number(text)
        assert found_one is None or isinstance(found_one, str)
        assert value is None or same_answer(text, f'{value.numerator}/{value.denominator}')


def test_long_texts_are_judged_quickly():
    for text in (
        '1 ' * 20_000,
        ' ' * 20_000 + '1',
        '1,234' * 5000,
        '\\frac' * 5000,
        '{' * 20_000,
        '-' * 20_000,
        'a ' * 20_000 + '1',
        '1' + '\u2009' * 20_000,
        '\\boxed{' * 3000,
    ):
        start = time.perf_counter()
        extract(text)
        parse_number(text)
        same_answer(text, '1')
        program_in(text)
        assert time.perf_counter() - start < 3, text[:10]


# ---- programs

@pytest.mark.parametrize('code, why', [
    ('assert sum([1, 2]) == 3', ''), ('assert False, "no"', 'AssertionError: no'), ('def f(:', 'SyntaxError'),
    ('import os; os._exit(0)', 'ended early, code 0'), ('raise SystemExit(0)', 'ended early, code 0'),
    ('print("a"*100); import sys; print("true", file=sys.stderr)', ''),
    ('x = bytearray(1 << 31)', 'MemoryError'),
    ('open("a", "w").write("x"*(1 << 25))', 'OSError'), ('"é"', '')])
def test_programs_are_judged_by_how_they_end(code, why):
    got = run_program(code, seconds=2)
    assert got.passed == (why == '') and why in got.why


def test_an_endless_program_is_ended():
    assert not run_program('while True: pass', seconds=1).passed
    assert 'not done' in run_program('import time; time.sleep(60)', seconds=1).why


def test_there_is_no_network_or_the_result_names_it():
    code = ('import socket; s = socket.socket(); s.settimeout(1)\ntry: s.connect(("127.0.0.1", 9))\n'
            'except OSError as e: assert e.errno == 101, e')
    got = run_program(code)
    assert got.passed


def test_a_program_inherits_no_environment_and_starts_in_an_empty_folder(monkeypatch):
    monkeypatch.setenv('SECRET_WORD', 'x')
    got = run_program('import os; assert "SECRET_WORD" not in os.environ and os.listdir(".") == []')
    assert got.passed, got


def test_pass_at_k_is_the_share_of_draws():
    passed = np.array([[1, 0, 0, 1, 0], [0]*5, [1]*5], bool)
    def share_of_draws(row, k): return np.mean([any(drawn) for drawn in itertools.combinations(row, k)])
    for k in (1, 2, 3):
        want = np.mean([share_of_draws(row, k) for row in passed])
        assert math.isclose(pass_at(k, passed), want)
    with pytest.raises(ValueError, match='ask for 1 to 5'): pass_at(6, passed)


# ---- every published set: records as published (without fields not read), right and wrong answers

POLAR = dict(
    problem='Convert to polar coordinates.',
    subject='Precalculus',
    level=2,
    unique_id='test/precalculus/807.json',
    answer=r'\left( 3, \frac{\pi}{2} \right)',
    solution='We have $r = 3$.\n\nTherefore, the polar coordinates are '
    '$\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.$',
)
DIFFERENCE = dict(
    problem='What is $1-3$?',
    subject='Prealgebra',
    level=1,
    unique_id='b',
    answer='-2',
    solution=r'It is $\boxed{-2}$.',
)
HALF = dict(
    problem='Half of it?',
    subject='Prealgebra',
    level=1,
    unique_id='c',
    answer=r'\frac{1}{2}',
    solution=r'It is $\boxed{\frac12}$.',
)
MATH = [POLAR, DIFFERENCE, HALF]
GSM = [dict(question='How many clips?', answer='48/2 = <<48/2=24>>24\n#### 72'),
       dict(question='What is left?', answer='Lost 3.\n#### -1,234')]
S1K = [dict(question='q', solution=t, deepseek_thinking_trajectory='x')
       for t in ('128', 'So\n\nthe answer is \\boxed{2\\sqrt{3}}.', 'The probability is 2/3.', 'yes')]
HUMANEVAL = [
    dict(
        task_id='HumanEval/53',
        prompt='\n\ndef add(x: int, y: int):\n'
        '    """Add two numbers x and y\n    >>> add(2, 3)\n    5\n    """\n',
        entry_point='add',
        canonical_solution='    return x + y\n',
        test='\n\nMETADATA = {}\n\n\ndef check(candidate):\n    import random\n\n'
        '    assert candidate(0, 1) == 1\n    assert candidate(2, 3) == 5\n',
    )
]
MBPP = [dict(text='Write a function to add.', code='def add(a, b):\r\n\ts = a + b\r\n\treturn s', task_id=601,
             test_setup_code='', challenge_test_list=[],
             test_list=['assert add(1, 2) == 3', 'assert add(2, 2) == 4'])]
SANITIZED = [dict(source_file='a.ipynb', task_id=2, prompt='Write a function to find pi.',
                  code='import math\ndef pi():\n  return math.pi',
                  test_imports=['import math'], test_list=['assert pi() == math.pi'])]
OPC = [dict(seq_id=1, instruction='Write a function to add.',
            output='Here:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds.', entry_point='add',
            code='def add(a, b):\n    return a + b', testcase=['assert add(1, 2) == 3',
                                                               'assert add(0, 0) == 0'])]
class Case(NamedTuple):
    "A published set, and texts that are right and wrong answers to each record"
    records: list
    right: list      # besides the published answer
    wrong: list


CASES = {}


def answers(name, record, right, wrong):
    case = CASES.setdefault(name, Case([], [], []))
    case.records.append(record)
    case.right.append(right)
    case.wrong.append(wrong)


answers('gsm8k', GSM[0], wrong=['#### 24', '', '24/2', '72 or 73'],
        right=['#### 72.0', 'so 72', r'\boxed{72 \text{ clips}}', 'It is\n#### 72 clips\n', '７２'])
answers('gsm8k', GSM[1], wrong=['1234', '1,234', 'no idea'], right=['−1234', '#### −1,234', '-$1,234'])
answers('math500', POLAR, wrong=[r'\boxed{(3,\frac{\pi}{3})}', '3', ''],
        right=[r'\boxed{(3,\frac{\pi}{2})}', r'\boxed{\left(3, \dfrac{π}{2}\right)}'])
answers('math500', DIFFERENCE, wrong=['2', r'\boxed{2}', '-2 no 3'], right=['−2', r'\boxed{−2}', 'it is -2.'])
answers('math500', HALF, wrong=[r'\boxed{\frac13}', '2', r'\boxed{\frac{1}{3}}'],
        right=['0.5', '1/2', r'\boxed{\dfrac{1}{2}}'])
answers('s1k', S1K[0], wrong=['129', ''], right=['so 128', r'\boxed{128}'])
answers('s1k', S1K[1], wrong=[r'\boxed{\sqrt{3}}', '2'], right=[r'\boxed{2\sqrt3}', '2√3'])
answers('s1k', S1K[2], wrong=['3', '.667'], right=['2/3', r'\boxed{\frac23}'])
answers('s1k', S1K[3], wrong=['no', 'yes or no'], right=['yes', r'\boxed{\text{yes}}'])
answers('humaneval', HUMANEVAL[0],
        wrong=['    return x - y\n', '    return 5\n', '', '    exit(0)\n', 'x + y'],
        right=['    z = y\n    return z + x\n', '```python\ndef add(x, y):\n    return y + x\n```'])
answers('mbpp', MBPP[0], wrong=['def add(a, b): return 3', '', 'import os; os._exit(0)', 'add = 3'],
        right=['def add(a, b): return b + a', '```\ndef add(a, b): return b + a\n```'])
answers('mbpp_sanitized', SANITIZED[0], wrong=['def pi(): return 3.14', 'print(3)'],
        right=['def pi(): return math.pi'])
answers('opc_educational_instruct', OPC[0], wrong=['```python\ndef add(a, b): return 3\n```', ''],
        right=['def add(a, b):\n    return a + b', '```py\nadd = int.__add__\n```\n```\n3\n```'])


@pytest.mark.parametrize('name', CASES)
def test_every_published_set_is_judged(name):
    records, right, wrong = CASES[name]
    pairs = as_pairs(records, name)
    own = right_answers(name, pairs, [p.answer for p in pairs], programs='run')
    assert own.dtype == bool and own.shape == (len(pairs),) and own.all()
    for pair, is_right, is_wrong in zip(pairs, right, wrong):
        [got] = right_answers(name, [pair], [is_right + is_wrong], programs='run').tolist()
        want = [True]*len(is_right) + [False]*len(is_wrong)
        assert got == want, (name, [*zip(is_right + is_wrong, got)])
    with pytest.raises(ValueError, match='as many texts for each'):
        right_answers(name, pairs + pairs, [['a']]*len(pairs) + ['a']*len(pairs), 'run')


def test_several_answers_to_a_pair_give_pass_at_k():
    pairs = as_pairs(HUMANEVAL*2, 'humaneval')
    texts = [['    return x + y\n', '    return 0\n'], ['    return 0\n']*2]
    right = right_answers('humaneval', pairs, texts, programs='run')
    assert right.tolist() == [[True, False], [False, False]]
    assert pass_at(1, right) == .25
    assert pass_at(2, right) == .5
    assert share(right_answers('gsm8k', as_pairs(GSM, 'gsm8k'), ['72', '3']))[0] == .5


@pytest.mark.parametrize('name', [n for n in CASES if n not in ('gsm8k', 'math500', 's1k')])
def test_programs_run_only_with_consent(name, monkeypatch):
    def run(*args): pytest.fail('it was run')
    monkeypatch.setattr(answer_metrics, 'run_program', run)
    pairs = as_pairs(CASES[name].records, name)
    for how in {}, dict(programs='refuse'), dict(programs=True), dict(programs='yes'):
        with pytest.raises(
            ValueError,
            match=rf"answers of {name} are programs, which would be run on this machine: pass programs='run'",
        ) as e:
            right_answers(name, pairs, [p.answer for p in pairs], **how)
        assert '\n' not in str(e.value) and len(str(e.value)) < 300


GSM_PAIRS = as_pairs(GSM, 'gsm8k')


@pytest.mark.parametrize('name, pairs, texts, why', [
    ('gsm', GSM_PAIRS, ['1', '2'], "set 'gsm' is unknown; choose one of gsm8k"),
    ('opc_evol_instruct', GSM_PAIRS, ['1', '2'], 'neither tests nor short answers'),
    ('opc_mceval_instruct', GSM_PAIRS, ['1', '2'], 'cannot be judged'),
    ('gsm8k', [], [], 'no pairs to judge'), ('gsm8k', GSM_PAIRS, ['1'], '1 answers, 2 pairs'),
    ('gsm8k', GSM_PAIRS, ['1', None], "answer 1 is 'None'"), ('gsm8k', GSM_PAIRS, [['1'], ['2', '3']],
                                                              'some pairs have 1 answers and some 2'),
    ('gsm8k', GSM_PAIRS, [[], []], 'as many texts for each'),
    ('gsm8k', GSM_PAIRS, [['1', 2], ['3', '4']], 'answer 0 is'),
    ('gsm8k', [Pair('q', 'a', 'several'), Pair('q', 'a')], ['1', '2'],
     'pair 0 of gsm8k has no short answer to compare with .2 of 2 have none.: leave it out'),
    ('s1k', [Pair('q', '5'), Pair('q', 'A proof.\n\nIt has 3 steps.')], ['5', '3'],
     'pair 1 of s1k has no short answer'),
    ('math500', [Pair('q', 'no box')], ['5'], 'pair 0 of math500 has no short answer'),
    ('mbpp', [Pair('q', 'a', after='\n')], ['5'], 'pair 0 of mbpp has no tests to run')])
def test_what_cannot_be_judged_is_refused_before_anything_runs(name, pairs, texts, why):
    with pytest.raises(ValueError, match=why) as e: right_answers(name, pairs, texts, programs='run')
    assert '\n' not in str(e.value) and len(str(e.value)) < 300


def test_every_set_but_two_can_be_judged():
    assert set(SETS) - set(CASES) == {'opc_evol_instruct', 'opc_mceval_instruct'}


@pytest.mark.parametrize('text, want', [
    ('x = 1', 'x = 1'), ('```\nx = 1\n```', 'x = 1\n'), ('a\n```python\nx\ny\n```\nb\n```\nz\n```', 'x\ny\n'),
    ('```py\nx', 'x'), ('s = "```"', 's = "```"'),
    ('    return x\n', '    return x\n'), ('```python\r\nx\r\n```', 'x\r\n'), ('', '')])
def test_the_program_is_extracted_from_its_fences(text, want): assert program_in(text) == want


@pytest.mark.parametrize('solution, want', [
    ('128', '128'), ('$\\frac{1}{2}$', '$\\frac{1}{2}$'), ('Long.\n\n\\boxed{7}', '7'), ('a\n#### 8', '8'),
    ('The answer is 9 apples.', '9'), ('B', 'B'),
    ('Two lines\nof proof 3', None), ('It is clear.', None), ('', None)])
def test_the_short_answer_of_a_solution(solution, want):
    assert short_answer('s1k', Pair('q', solution, solution)) == want


def test_canonical_programs_pass_against_themselves():
    f = pathlib.Path(__file__).parents[2]/'shared'/'data'/'HumanEval.jsonl.gz'
    if not f.is_file(): pytest.skip('not here')
    pairs = read_pairs(f, 'humaneval')[::14]
    assert right_answers('humaneval', pairs, [p.answer for p in pairs], programs='run').all()
    swapped = right_answers('humaneval', pairs[:3], [p.answer for p in pairs[1:4]], programs='run')
    assert not swapped.any()


@pytest.mark.parametrize('file', ['gsm8k-test.jsonl', 'gsm8k-train.jsonl'])
def test_published_answers_are_right(file):
    f = pathlib.Path(__file__).parents[2]/'shared'/'data'/file
    if not f.is_file(): pytest.skip('not here')
    pairs = read_pairs(f, 'gsm8k')[::7]
    assert right_answers('gsm8k', pairs, [p.answer for p in pairs]).all()
    assert right_answers('gsm8k', pairs, [p.answer for p in pairs[1:] + pairs[:1]]).mean() < .1


# ---- nothing to count

@pytest.mark.parametrize('message, call', [
    refusal('no answers to count', share, []),
    refusal(r'give \(N,n\)', pass_at, 1, []),
    refusal(r'shape \(2,\)', pass_at, 1, [True, False]),
    refusal(r'shape \(0, 3\)', pass_at, 1, np.zeros((0, 3))),
    refusal('no answers to compare', paired_margin, [], []),
    refusal('no answers', paired_margin, np.zeros((3, 0)), np.zeros((3, 0))),
])
def test_empty_input_is_refused_in_a_sentence(message, call):
    with pytest.raises(ValueError, match=message) as e: call()
    assert '\n' not in str(e.value)


# ---- intervals

@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.data())
def test_share_has_the_interval_of_wilson(n, data):
    k, z = data.draw(st.integers(0, n)), 1.959963984540054
    v, low, high = share([True]*k + [False]*(n - k))
    p, shrink = k/n, 1 + z*z/n
    middle = (p + z*z/2/n)/shrink
    half = z/shrink*math.sqrt(p*(1 - p)/n + z*z/4/n/n)
    assert math.isclose(v, p)
    assert abs(low - max(middle - half, 0)) < 1e-9
    assert abs(high - min(middle + half, 1)) < 1e-9


def test_the_margin_covers_zero_for_equals_and_mcnemar_is_a_binomial_test():
    rng, hit = np.random.default_rng(1), 0
    for k in range(60):
        base = rng.random(300)
        a, b = (base + .15*rng.random((1, 300)) < .6 for _ in range(2))
        m = paired_margin(a, b, n=300, seed=k)
        hit += m.low <= 0 <= m.high
    assert hit >= 52
    a = np.array([[1]*8 + [0]*2 + [1]*20])
    b = np.array([[0]*8 + [1]*2 + [1]*20])
    m = paired_margin(a, b)
    assert (m.only_a, m.only_b) == (8, 2)
    assert math.isclose(m.p, 2*sum(math.comb(10, i) for i in range(3))/1024)


def test_seeds_of_one_problem_are_not_taken_for_problems():
    a, b = np.random.default_rng(2).random((2, 100)) < .5
    once = paired_margin(a, b)
    thrice = paired_margin(np.stack([a]*3), np.stack([b]*3))
    assert abs((once.high - once.low) - (thrice.high - thrice.low)) < .03


# ---- error injection and repair

SPACE = TokenSpace(4, 5, (torch.arange(6) < 4).repeat(10, 1))
X0 = torch.randint(0, 4, (40, 10), generator=torch.Generator().manual_seed(0))
MINE = (torch.arange(10) > 2).expand(40, 10)


def exact_denoiser(x, t, real):
    "An exact denoiser with a head that detects every wrong token"
    x0 = X0[:len(x)]
    logits = torch.nn.functional.one_hot(x0, 6).float()*9
    not_wrong = (x == x0) | (x == 4)
    return Denoised(logits, None, dict(ups=torch.where(not_wrong, 5., -5.)))


PROC = Process(exact_denoiser, linear, SPACE)


@pytest.mark.parametrize('k', [1, 2, 4])
def test_k_errors_are_injected_where_they_are_allowed(k):
    u = torch.rand(40, 10, 3, generator=torch.Generator().manual_seed(k))
    x = inject_errors(PROC, X0, MINE, k, u)
    wrong = x != X0
    assert (wrong.sum(1) == k).all() and not (wrong & ~MINE).any()
    assert (x < 4).all()
    assert torch.equal(x, inject_errors(PROC, X0, MINE, k, u))
    with pytest.raises(ValueError, match='inject fewer'): inject_errors(PROC, X0, MINE, 8, u)


def test_a_detector_of_all_errors_repairs_them_and_nothing_else():
    u = torch.rand(40, 10, 3, generator=torch.Generator().manual_seed(1))
    x = inject_errors(PROC, X0, MINE, 2, u)
    def refine(policy):
        return sample(PROC, x, uniform_grid(4), policy, argmax, Noise(0, torch.arange(40)), ~MINE)
    def ups(st): return torch.sigmoid(st.heads['ups'].double())
    def no_error(st): return torch.ones_like(st.p)
    y = refine(remask_below(ups))
    assert repair_statistics(x, y, X0, MINE, torch.full((40,), 2)) == (1., 1., 0., 2.)
    y = refine(remask_below(no_error))
    assert torch.equal(y, x)
    assert repair_statistics(x, y, X0, MINE, torch.ones(40))[:3] == (0., 0., 0.)
    with pytest.raises(ValueError, match='below=2'): remask_below(ups, 2)


def test_false_remasks_are_counted_apart_from_repairs():
    x0 = torch.zeros(1, 10).long()
    x, y, where = x0.clone(), x0.clone(), torch.ones(1, 10).bool()
    x[0, 4] = 1
    y[0, 5] = 1
    assert repair_statistics(x, y, x0, where, torch.ones(1)) == (1., 0., pytest.approx(1/9), 1.)


def test_misses_and_false_alarms_are_equal_at_the_matched_threshold():
    g = torch.Generator().manual_seed(3)
    wrong, use = (torch.rand(30, 12, generator=g) < share for share in (.2, .8))
    s = torch.rand(30, 12, generator=g) - .3*wrong
    f = detection_metrics(s, wrong, use)
    assert f['misses_matched'] == f['false_alarms_matched']
    assert f['hits_matched'] + f['misses_matched'] == int((wrong & use).sum())
    assert sum(v for k, v in f.items() if 'at_0.5' in k) == int(use.sum())
    assert .5 < f['auc'] < 1
    assert f['hits_at_0.5'] == int(((s < .5) & wrong & use).sum())
