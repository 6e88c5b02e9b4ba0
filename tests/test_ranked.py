"""Methods in which old and new tokens compete, against plain rewritings of the published loops."""
import pytest, torch
from dataclasses import replace
from remask.core.tokens import TokenSpace, hide, real
from remask.core.schedules import linear, uniform_grid
from remask.core.denoiser import Denoised
from remask.core.fast import NFECounter, only_where, count_nfe
from remask.policies.ranked import (
    falling_threshold, adaptive, blended, by_group, compete, consensus, partly_random, ratio_grid, extra_pass,
    shielded)
from remask.core.sampler import CHOOSE, DRAW, Noise, Process, categorical, confidence, sample

L, V, N = 14, 9, 7
SPACE = TokenSpace(7, 8, (torch.arange(V) < 7).expand(L, -1))
G = torch.Generator().manual_seed(3)
EMB, HEAD = (torch.randn(L, V, generator=G).double() for _ in range(2))


def look(x, t=0., ok=None):
    h = torch.sin(EMB[torch.arange(L), x].sum(1, keepdim=True) + EMB[torch.arange(L), x])
    return Denoised(3*torch.sin(2*h[..., None]*HEAD))


PROC = Process(look, linear, SPACE)


def start():
    x = hide(SPACE, torch.arange(L) < torch.tensor([[14], [14], [9], [5]]))
    x[1, :3] = 2                                              # a prompt
    return x


def probabilities(row):
    z = look(torch.tensor([row])).logits[0, :, :7].softmax(-1)
    return z.tolist()


def token(p, u):
    run, total = 0., sum(p)
    for i, q in enumerate(p):
        run += q
        if u*total < run: return i
    return len(p) - 1


def published_loop(row, noise, strength, literal, exact):
    "Fill every masked position; then hide so many of the most surprising tokens, with chance mixed in"
    row, prompt = list(row), [v != 7 for v in row]
    ours = [i for i in range(L) if not prompt[i] and row[i] != 8]
    for it in range(N):
        p, u = probabilities(row), noise(it, DRAW, L)[0].tolist()
        new = [token(p[i], u[i]) if row[i] == 7 else row[i] for i in range(L)]
        row_p = probabilities(new) if literal else p
        wrongness = [1 - row_p[i][new[i]] if i in ours else 0. for i in range(L)]
        row, luck = new, noise(it, CHOOSE, L)[0].tolist()
        if it == N - 1: return row
        alpha = 1 - .999*(1 - (it + 1)/N)
        count = len(ours) - round(alpha*len(ours))
        if exact:
            guided = sorted(ours, key=lambda i: (-wrongness[i], i))[:int(torch.tensor(count*(1 - strength)).round())]
            chance = sorted(set(ours) - set(guided), key=lambda i: (luck[i], -i))
            hide_now = guided + chance[:count - len(guided)]
        else:
            key = {i: strength*(1 - luck[i]) + (1 - strength)*wrongness[i] for i in ours}
            hide_now = sorted(ours, key=lambda i: -key[i])[:count]
        for i in hide_now: row[i] = 7


@pytest.mark.parametrize('exact', [False, True], ids=['sum', 'share'])
@pytest.mark.parametrize('literal', [False, True], ids=['free', 'literal'])
@pytest.mark.parametrize('strength', [0., .3, 1.])
def test_self_masking_decides_as_the_published_loop(strength, literal, exact):
    score = extra_pass(proc=PROC) if literal else confidence
    score = (partly_random if exact else blended)(score, strength)
    x, states = start(), []
    ours = sample(PROC, x, uniform_grid(N), compete(score), categorical(1.), callback=lambda st, new, keep: states.append(new))
    for b in range(len(x)):
        want = published_loop(x[b].tolist(), Noise(0, torch.tensor([b])), strength, literal, exact)
        assert ours[b].tolist() == want, b


def test_a_strength_of_one_is_the_same_chance_in_both_readings():
    x = start()
    runs = [sample(PROC, x, uniform_grid(N), compete(how(confidence, 1.)), categorical(1.)) for how in (blended, partly_random)]
    assert runs[0].equal(runs[1])


def test_the_share_at_random_is_exact():
    "Of 20 tokens to hide at strength .4, 12 are the worst and the other 8 are spread over the rest"
    space = TokenSpace(1, 2, torch.tensor([[True, False, False]]).expand(40, -1))
    proc = Process(lambda x, t, ok: Denoised(torch.zeros(*x.shape, 3)), linear, space)
    rank, seen = torch.arange(40.).expand(500, -1)/40, []
    policy = compete(partly_random(lambda st: rank, .4))
    sample(proc, torch.ones(500, 40).long(), torch.tensor([1., .5, 0]), policy, noise=Noise(1, torch.arange(500)),
           callback=lambda st, new, keep: seen.append(new == 1))
    hidden = seen[0]
    assert (hidden.sum(1) == 20).all() and hidden[:, :12].all()
    share = hidden[:, 12:].double().mean(0)
    assert (share - 8/28).abs().max() < .1                      # 500 rows: standard error .02


def test_threshold_rows_stop_by_themselves():
    counter, asked, sure = NFECounter(), [], PROC._replace(denoise=lambda x, t, ok: Denoised(6*look(x).logits))
    proc = sure._replace(denoise=only_where(sure.denoise, lambda x, t: (x == SPACE.mask).any(1), counter))
    x = start()
    out = sample(proc, x, uniform_grid(N), falling_threshold(), categorical(1.), callback=lambda st, new, keep: asked.append(new))
    plain = sample(sure, x, uniform_grid(N), falling_threshold(), categorical(1.))
    assert out.equal(plain) and not (out == 7).any()            # a finished row's answer is never read
    done = torch.stack([(a == 7).any(1) for a in [x, *asked[:-1]]]).sum(0)
    assert counter.rows.equal(done) and (done < N).any()


def test_scores_see_the_draft_and_count_their_looks():
    counter, seen = NFECounter(), []
    proc = PROC._replace(denoise=count_nfe(look, counter))
    policy = compete(consensus(extra_pass(proc=proc), shielded(confidence, lambda x: x == 2, 1.)))
    out = sample(PROC, start(), uniform_grid(N), policy, categorical(1.), callback=lambda st, new, keep: seen.append(st))
    assert (counter.rows == N).all() and not (out == 7).any()
    st = seen[3]
    want = torch.tensor([[probabilities(r.tolist())[i][r[i]] if r[i] < 7 else 0. for i in range(L)] for r in st.draft])
    got = extra_pass(proc=PROC)(st)
    assert torch.where(real(SPACE, st.draft), got - want, 0).abs().max() < 1e-6
    assert (policy.score(st) - (got + st.p + (st.draft == 2))/2).abs().max() < 1e-12


def test_groups_are_judged_by_their_mean():
    st, group = None, torch.tensor([[0]*5 + [1]*4 + [2]*5]).expand(4, -1)
    seen = []
    sample(PROC, start(), uniform_grid(3), compete(), callback=lambda s, new, keep: seen.append(s))
    st = seen[1]
    got = by_group(confidence, lambda x: group, .25)(st)
    for b in range(4):
        for i in st.ours[b].nonzero()[:, 0].tolist():
            mates = [j for j in range(L) if group[b, j] == group[b, i] and st.ours[b, j]]
            assert float(got[b, i]) == pytest.approx(.25*sum(float(st.p[b, j]) for j in mates)/len(mates) + .75*float(st.p[b, i]))


def test_chance_falls_as_confidence_rises():
    seen = []
    sample(PROC, start(), uniform_grid(3), compete(), callback=lambda s, new, keep: seen.append(s))
    sure, unsure = (replace(seen[1], p=torch.full_like(seen[1].p, v)) for v in (.9, .2))
    assert adaptive(.5)(sure).allclose(torch.tensor(.05).double()) and adaptive(.5)(unsure).allclose(torch.tensor(.4).double())
    mixed = blended(confidence, adaptive(.5))(sure)
    assert mixed.allclose(.05*sure.u + .95*.9)


@pytest.mark.parametrize('bad', [-.1, 1.1, float('nan')])
@pytest.mark.parametrize('how', [blended, partly_random])
def test_a_strength_outside_its_range_is_named(how, bad):
    with pytest.raises(ValueError, match='randomness_strength=.* must lie in'):
        sample(PROC, start(), uniform_grid(2), compete(how(confidence, bad)))


@pytest.mark.parametrize('ratios', [[0], [.5, 0], [.9, .9, .2, 0], [1, .3, 0]])
def test_a_plan_of_ratios_is_kept_step_by_step(ratios):
    "With n positions exactly round((1 - ratio)*n) are visible after each step, whatever the score"
    L, seen = 40, []
    space = TokenSpace(3, 4, (torch.arange(5) < 3).repeat(L, 1))
    flat = Process(lambda x, t, ok: Denoised(torch.zeros(*x.shape, 5)), lambda t, real: linear(t, real, eps=0.), space)
    note = lambda st, x, keep: seen.append((x == 3).sum(1).tolist())
    sample(flat, torch.full((3, L), 3), ratio_grid(ratios), compete(lambda st: st.u), categorical(1.), callback=note)
    assert seen == [[round(r*L)]*3 for r in ratios]


@pytest.mark.parametrize('ratios, why', [([], 'one per step'), ([.5], 'the last one 0'), ([1.2, 0], r'in \[0,1\]'), ([-.1, 0], r'in \[0,1\]'),
                                         ([float('nan'), 0], r'in \[0,1\]'), ([.3, .2, .4, 0], '0.4 after step 3 is above the 0.2 before it')])
def test_a_plan_that_cannot_be_kept_is_refused(ratios, why):
    with pytest.raises(ValueError, match=why): ratio_grid(ratios)
