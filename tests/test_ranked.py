"""Methods in which old and new tokens compete, against plain rewritings of the published loops."""
import pytest, torch
from dataclasses import replace
from remask.core.tokens import TokenSpace, fully_masked, real
from remask.core.schedules import linear, uniform_grid
from remask.core.denoiser import Denoised
from remask.core.fast import NFECounter, count_nfe, only_where
from remask.policies.ranked import (
    adaptive, blended, by_group, compete, consensus, extra_pass, falling_threshold, partly_random,
    random_score, ratio_grid, shielded)
from remask.core.sampler import CHOOSE, DRAW, Noise, Process, categorical, confidence, sample

L, V, N, MASK = 14, 9, 7, 7
SPACE = TokenSpace(7, 8, (torch.arange(V) < 7).expand(L, -1))
G = torch.Generator().manual_seed(3)
EMB, HEAD = (torch.randn(L, V, generator=G).double() for _ in range(2))


def denoise(x, t=0., ok=None):
    own = EMB[torch.arange(L), x]
    h = torch.sin(own.sum(1, keepdim=True) + own)
    return Denoised(3*torch.sin(2*h[..., None]*HEAD))


PROC = Process(denoise, linear, SPACE)


def start():
    x = fully_masked(SPACE, torch.arange(L) < torch.tensor([[14], [14], [9], [5]]))
    x[1, :3] = 2                                              # a prompt
    return x


def run(policy, steps=N, proc=PROC):
    "Sample; return the rows, and the (state, new ids) of every step"
    log = []
    def record(st, new, keep): log.append((st, new))
    out = sample(proc, start(), uniform_grid(steps), policy, categorical(1.), callback=record)
    return out, log


def probabilities(row):
    z = denoise(torch.tensor([row])).logits[0, :, :7].softmax(-1)
    return z.tolist()


def token(p, u):
    run, total = 0., sum(p)
    for i, q in enumerate(p):
        run += q
        if u*total < run: return i
    return len(p) - 1


def worst_by_share(ours, wrongness, u, count, strength):
    "The share 1 - strength of the count by the score, and the rest at random"
    def by_wrongness(i): return -wrongness[i], i
    def by_chance(i): return u[i], -i
    n = int(torch.tensor(count*(1 - strength)).round())
    guided = sorted(ours, key=by_wrongness)[:n]
    random = sorted(set(ours) - set(guided), key=by_chance)
    return guided + random[:count - len(guided)]


def worst_by_sum(ours, wrongness, u, count, strength):
    "The count by a weighted sum of uniforms and score"
    def weighted(i): return strength*(1 - u[i]) + (1 - strength)*wrongness[i]
    return sorted(ours, key=weighted, reverse=True)[:count]


def published_loop(row, noise, strength, literal, worst):
    "Fill every masked position; then mask so many of the most surprising tokens, partly at random"
    row, prompt = list(row), [v != MASK for v in row]
    ours = [i for i in range(L) if not prompt[i] and row[i] != 8]
    for it in range(N):
        p, u = probabilities(row), noise(it, DRAW, L)[0].tolist()
        new = [token(q, v) if own == MASK else own for q, v, own in zip(p, u, row)]
        row_p = probabilities(new) if literal else p
        wrongness = [1 - row_p[i][new[i]] if i in ours else 0. for i in range(L)]
        row = new
        if it == N - 1: return row
        alpha = 1 - .999*(1 - (it + 1)/N)
        count = len(ours) - round(alpha*len(ours))
        u = noise(it, CHOOSE, L)[0].tolist()
        for i in worst(ours, wrongness, u, count, strength): row[i] = MASK


@pytest.mark.parametrize('exact', [False, True], ids=['sum', 'share'])
@pytest.mark.parametrize('literal', [False, True], ids=['free', 'literal'])
@pytest.mark.parametrize('strength', [0., .3, 1.])
def test_self_masking_decides_as_the_published_loop(strength, literal, exact):
    score = extra_pass(proc=PROC) if literal else confidence
    score = (partly_random if exact else blended)(score, strength)
    worst = worst_by_share if exact else worst_by_sum
    out, _ = run(compete(score))
    for b, row in enumerate(start().tolist()):
        want = published_loop(row, Noise(0, torch.tensor([b])), strength, literal, worst)
        assert out[b].tolist() == want, b


def test_at_a_strength_of_one_both_readings_agree():
    out = [run(compete(reading(confidence, 1.)))[0] for reading in (blended, partly_random)]
    assert out[0].equal(out[1])


def test_the_share_at_random_is_exact():
    "Of 20 tokens to mask at strength 0.4, 12 are the worst and the other 8 are spread over the rest"
    space = TokenSpace(1, 2, torch.tensor([[True, False, False]]).expand(40, -1))
    def uniform(x, t, real): return Denoised(torch.zeros(*x.shape, 3))
    proc = Process(uniform, linear, space)
    rank, log = torch.arange(40.).expand(500, -1)/40, []
    def record(st, new, keep): log.append(new == 1)
    def score(st): return rank
    policy = compete(partly_random(score, .4))
    ts, noise = torch.tensor([1., .5, 0]), Noise(1, torch.arange(500))
    sample(proc, torch.ones(500, 40).long(), ts, policy, noise=noise, callback=record)
    masked = log[0]
    assert (masked.sum(1) == 20).all() and masked[:, :12].all()
    share = masked[:, 12:].double().mean(0)
    assert (share - 8/28).abs().max() < .1                      # 500 rows: standard error .02


def test_complete_rows_stop_under_a_falling_threshold():
    def confident(x, t, ok): return Denoised(6*denoise(x).logits)
    counter = NFECounter()
    plain, _ = run(falling_threshold(), proc=PROC._replace(denoise=confident))
    def incomplete(x, t): return (x == MASK).any(1)
    skipping = PROC._replace(denoise=only_where(confident, incomplete, counter))
    out, log = run(falling_threshold(), proc=skipping)
    assert out.equal(plain) and not (out == MASK).any()         # a finished row is never evaluated
    rows = [start(), *(new for _, new in log[:-1])]
    evaluations = torch.stack([(x == MASK).any(1) for x in rows]).sum(0)
    assert counter.rows.equal(evaluations) and (evaluations < N).any()


def test_an_extra_pass_scores_the_draft_and_counts_its_evaluations():
    counter = NFECounter()
    proc = PROC._replace(denoise=count_nfe(denoise, counter))
    def is_two(x): return x == 2
    policy = compete(consensus(extra_pass(proc=proc), shielded(confidence, is_two, 1.)))
    out, log = run(policy)
    assert (counter.rows == N).all() and not (out == MASK).any()
    st = log[3][0]
    def row_p(r): return [p[v] if v < MASK else 0. for p, v in zip(probabilities(r), r)]
    want = torch.tensor([row_p(r) for r in st.draft.tolist()])
    got = extra_pass(proc=PROC)(st)
    assert torch.where(real(SPACE, st.draft), got - want, 0).abs().max() < 1e-6
    assert (policy.score(st) - (got + st.p + (st.draft == 2))/2).abs().max() < 1e-12


def test_scores_are_mixed_with_the_mean_of_their_group():
    group = torch.tensor([[0]*5 + [1]*4 + [2]*5]).expand(4, -1)
    st = run(compete(), 3)[1][1][0]
    def group_of(x): return group
    got = by_group(confidence, group_of, .25)(st)
    for b, i in st.ours.nonzero().tolist():
        same_group = (group[b] == group[b, i]) & st.ours[b]
        want = .25*float(st.p[b, same_group].mean()) + .75*float(st.p[b, i])
        assert float(got[b, i]) == pytest.approx(want)


def test_randomness_falls_as_confidence_rises():
    st = run(compete(), 3)[1][1][0]
    sure, unsure = (replace(st, p=torch.full_like(st.p, v)) for v in (.9, .2))
    assert adaptive(.5)(sure).allclose(torch.tensor(.05).double())
    assert adaptive(.5)(unsure).allclose(torch.tensor(.4).double())
    mixed = blended(confidence, adaptive(.5))(sure)
    assert mixed.allclose(.05*sure.u + .95*.9)


@pytest.mark.parametrize('bad', [-.1, 1.1, float('nan')])
@pytest.mark.parametrize('reading', [blended, partly_random])
def test_a_strength_outside_its_range_is_named(reading, bad):
    with pytest.raises(ValueError, match='randomness_strength=.* must lie in'):
        sample(PROC, start(), uniform_grid(2), compete(reading(confidence, bad)))


@pytest.mark.parametrize('ratios', [[0], [.5, 0], [.9, .9, .2, 0], [1, .3, 0]])
def test_masked_ratios_are_kept_step_by_step(ratios):
    "With n positions exactly round((1 - ratio)*n) are unmasked after each step, whatever the score"
    L, log = 40, []
    space = TokenSpace(3, 4, (torch.arange(5) < 3).repeat(L, 1))
    def uniform(x, t, ok): return Denoised(torch.zeros(*x.shape, 5))
    def to_zero(t, real): return linear(t, real, eps=0.)
    flat = Process(uniform, to_zero, space)
    def record(st, x, keep): log.append((x == 3).sum(1).tolist())
    start, ts = torch.full((3, L), 3), ratio_grid(ratios)
    sample(flat, start, ts, compete(random_score), categorical(1.), callback=record)
    assert log == [[round(r*L)]*3 for r in ratios]


NAN = float('nan')


@pytest.mark.parametrize('ratios, why', [
    ([], 'one per step'), ([.5], 'the last one 0'), ([1.2, 0], r'in \[0,1\]'), ([-.1, 0], r'in \[0,1\]'),
    ([NAN, 0], r'in \[0,1\]'), ([.3, .2, .4, 0], '0.4 after step 3 is above the 0.2 before it')])
def test_ratios_that_cannot_be_kept_are_refused(ratios, why):
    with pytest.raises(ValueError, match=why): ratio_grid(ratios)
