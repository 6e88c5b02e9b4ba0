"""Answers found and compared, programs run apart, intervals against their definitions, mistakes planted and mended."""
import math
from fractions import Fraction

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st


from remask.denoiser import Denoised
from remask.judging import boxed, extract, found, margin, mend, mended, number, pass_at, planted, run_program, same, share
from remask.sampler import Noise, Process, argmax, sample
from remask.schedules import linear, uniform_grid
from remask.tokens import TokenSpace

# ---- the published extractor's table, with what it should say

@pytest.mark.parametrize('text, want', [
    ('The total is 1,234', '1,234'), ('x\n#### 72 apples', '72'), ('#### $18', '18'), ('#### 1,234,567', '1,234,567'),
    ('#### 3\nor\n#### 5', '5'), ('####\n\n 7 \n', '7'), ('a 3 then -4.5', '-4.5'), ('#### -12', '-12'), ('.5 of it', '.5'),
    ('3.', '3'), ('in 2024, 3', '3'), (r'\boxed{\frac{1}{2}}', r'\frac{1}{2}'), (r'\boxed{1} so \boxed{2}', '2'),
    (r'\boxed{\text{(A)}}', r'\text{(A)}'), (r'\boxed{\{1,2\}}', r'\{1,2\}'), ('nothing', None), ('', None), ('####', None)])
def test_the_answer_is_found(text, want): assert extract(text) == want


@pytest.mark.parametrize('a, b, want', [
    ('1,234', '1234', True), ('18', '18.0', True), ('$18', '18', True), (r'\frac{1}{2}', r'\frac{1}{3}', False),
    (r'\frac{1}{2}', '0.5', True), (r'\dfrac{-3}{4}', '-.75', True), ('50%', '.5', True), ('1/3', '.3333333', False),
    ('x^2', 'x ^ 2', True), ('x', 'y', False), ('3', 'x', False), (None, None, False), ('1/0', '1/0', True)])
def test_answers_are_compared(a, b, want): assert same(a, b) is want and same(b, a) is want


@given(st.fractions())
def test_numbers_are_read_exactly(q):
    assert number(f'{q.numerator}/{q.denominator}') == q and number(rf'\frac{{{q.numerator}}}{{{q.denominator}}}') == q
    assert number(f'{q.numerator:,}') == q.numerator and number(str(float(Fraction(q.numerator, 8)))) is not None


def test_a_box_that_is_not_closed_is_none(): assert boxed(r'\boxed{\frac{1}{2}') is None


# ---- programs

@pytest.mark.parametrize('code, why', [
    ('assert sum([1, 2]) == 3', ''), ('assert False, "no"', 'AssertionError: no'), ('def f(:', 'SyntaxError'),
    ('import os; os._exit(0)', 'ended early, code 0'), ('raise SystemExit(0)', 'ended early, code 0'),
    ('print("a"*100); import sys; print("true", file=sys.stderr)', ''), ('x = bytearray(1 << 31)', 'MemoryError'),
    ('open("a", "w").write("x"*(1 << 25))', 'OSError'), ('"é"', '')])
def test_programs_are_judged_by_how_they_end(code, why):
    got = run_program(code, seconds=2)
    assert got.passed == (why == '') and why in got.why


def test_an_endless_program_is_ended():
    assert not run_program('while True: pass', seconds=1).passed
    assert 'not done' in run_program('import time; time.sleep(60)', seconds=1).why


def test_there_is_no_network_or_it_is_said():
    code = 'import socket; s = socket.socket(); s.settimeout(1)\ntry: s.connect(("127.0.0.1", 9))\nexcept OSError as e: assert e.errno == 101, e'
    got = run_program(code)
    assert got.passed or got.open == 'network'


def test_nothing_stays_and_nothing_is_inherited(monkeypatch):
    monkeypatch.setenv('SECRET_WORD', 'x')
    got = run_program('import os; assert "SECRET_WORD" not in os.environ and os.listdir(".") == []')
    assert got.passed, got


def test_pass_at_k_is_the_share_of_draws():
    passed = np.array([[1, 0, 0, 1, 0], [0]*5, [1]*5], bool)
    import itertools
    for k in (1, 2, 3):
        want = np.mean([np.mean([any(row[i] for i in c) for c in itertools.combinations(range(5), k)]) for row in passed])
        assert math.isclose(pass_at(k, passed), want)
    with pytest.raises(ValueError, match='ask for 1 to 5'): pass_at(6, passed)


# ---- intervals

@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.data())
def test_wilsons_interval(n, data):
    k, z = data.draw(st.integers(0, n)), 1.959963984540054
    v, low, high = share([True]*k + [False]*(n - k))
    mid, half = (k/n + z*z/2/n)/(1 + z*z/n), z/(1 + z*z/n)*math.sqrt(k/n*(1 - k/n)/n + z*z/4/n/n)
    assert math.isclose(v, k/n) and abs(low - max(mid - half, 0)) < 1e-9 and abs(high - min(mid + half, 1)) < 1e-9


def test_the_margin_covers_the_truth_and_mcnemar_is_a_coin():
    rng, hit = np.random.default_rng(1), 0
    for k in range(60):
        base = rng.random(300)
        a, b = (base + .15*rng.random((1, 300)) < .6), (base + .15*rng.random((1, 300)) < .6)
        m = margin(a, b, n=300, seed=k)
        hit += m.low <= 0 <= m.high
    assert hit >= 52
    m = margin(np.array([[1]*8 + [0]*2 + [1]*20]), np.array([[0]*8 + [1]*2 + [1]*20]))
    assert (m.only_a, m.only_b) == (8, 2) and math.isclose(m.p, 2*sum(math.comb(10, i) for i in range(3))/1024)


def test_seeds_of_one_problem_are_not_taken_for_problems():
    a, b = np.random.default_rng(2).random((2, 100)) < .5
    once, thrice = margin(a, b), margin(np.stack([a]*3), np.stack([b]*3))
    assert abs((once.high - once.low) - (thrice.high - thrice.low)) < .03


# ---- mistakes

SPACE = TokenSpace(4, 5, (torch.arange(6) < 4).repeat(10, 1))
X0 = torch.randint(0, 4, (40, 10), generator=torch.Generator().manual_seed(0))
MINE = (torch.arange(10) > 2).expand(40, 10)


def knows(x, t, real): # a denoiser that knows the truth, and a head that sees what differs from it
    logits = torch.nn.functional.one_hot(X0[:len(x)], 6).float()*9
    return Denoised(logits, None, dict(ups=torch.where((x == X0[:len(x)]) | (x == 4), 5., -5.)))


PROC = Process(knows, linear, SPACE)


@pytest.mark.parametrize('k', [1, 2, 4])
def test_so_many_mistakes_are_planted_where_they_may_stand(k):
    u = torch.rand(40, 10, 3, generator=torch.Generator().manual_seed(k))
    x = planted(PROC, X0, MINE, k, u)
    assert ((x != X0).sum(1) == k).all() and not ((x != X0) & ~MINE).any() and (x < 4).all()
    assert torch.equal(x, planted(PROC, X0, MINE, k, u))
    with pytest.raises(ValueError, match='plant fewer'): planted(PROC, X0, MINE, 8, u)


def test_who_sees_them_mends_them_and_harms_nothing():
    x = planted(PROC, X0, MINE, 2, torch.rand(40, 10, 3, generator=torch.Generator().manual_seed(1)))
    by = lambda st: torch.sigmoid(st.heads['ups'].double())
    y = sample(PROC, x, uniform_grid(4), mend(by), argmax, Noise(0, torch.arange(40)), ~MINE)
    got = mended(x, y, X0, MINE, torch.full((40,), 2))
    assert got == (1., 1., 0., 2.)
    blind = sample(PROC, x, uniform_grid(4), mend(lambda st: torch.ones_like(st.p)), argmax, Noise(0, torch.arange(40)), ~MINE)
    assert torch.equal(blind, x) and mended(x, blind, X0, MINE, torch.ones(40))[:3] == (0., 0., 0.)
    with pytest.raises(ValueError, match='below=2'): mend(by, 2)


def test_harm_is_counted_apart_from_repair():
    x0 = torch.zeros(1, 10).long()
    x, y = x0.clone(), x0.clone()
    x[0, 4], y[0, 5], where = 1, 1, torch.ones(1, 10).bool()
    assert mended(x, y, x0, where, torch.ones(1)) == (1., 0., pytest.approx(1/9), 1.)


def test_confusion_at_the_matched_line_balances():
    g = torch.Generator().manual_seed(3)
    wrong, use = torch.rand(30, 12, generator=g) < .2, torch.rand(30, 12, generator=g) < .8
    s = torch.rand(30, 12, generator=g) - .3*wrong
    f = found(s, wrong, use)
    assert f['misses_matched'] == f['false_alarms_matched'] and f['hits_matched'] + f['misses_matched'] == int((wrong & use).sum())
    assert sum(v for k, v in f.items() if 'at_0.5' in k) == int(use.sum()) and .5 < f['auc'] < 1
    assert f['hits_at_0.5'] == int(((s < .5) & wrong & use).sum())
