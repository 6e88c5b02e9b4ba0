"""The 22 published methods against an independent plain rewriting of the reference system's step, decision for decision."""
import math
import pytest, torch
from remask.graphs import MASK, PAD, graph_space, slots
from remask.schedules import linear, uniform_grid
from remask.denoiser import Denoised
from remask.sampler import CHOOSE, DRAW, KEEP, Noise, Process, sample
from remask.methods import METHODS, PUBLISHED

L, N, EPS = 36, 40, 1e-3


def alpha(t): return 1 - (1 - EPS)*t


def softmax(z):
    m = max(z); e = [math.exp(v - m) for v in z]
    return [v/sum(e) for v in e]


def pick_token(z, top_p, u):
    "Nucleus: most likely first, keep while the mass before is below top_p, invert the cumulative sum; argmax without top_p"
    if top_p is None: return max(range(len(z)), key=lambda i: (z[i], -i))
    p = softmax(z)
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    kept, before = [], 0.
    for i in order:
        if before >= top_p: break
        kept.append(i); before += p[i]
    total, run = sum(p[i] for i in kept), 0.
    for i in kept:
        run += p[i]
        if u*total < run: return i
    return kept[-1]


def half_even(p, n):
    v = torch.tensor(p, dtype=torch.float32)*n
    return int(torch.round(v))


def plain(params, x, logits_of, real, noise):
    "One row through the reference system's loop: choose tokens, unmask, then remask old and new alike"
    x, tau = list(x), params['t_switch']
    for step, i in enumerate(range(N - 1, -1, -1)):
        now, nxt = (i + 1)/N, i/N
        z = logits_of(x, now)
        u_draw, u_keep, u_own = (noise(step, k, L)[0].tolist() for k in (DRAW, KEEP, CHOOSE))
        hidden = [l for l in range(L) if x[l] == MASK]
        legal = lambda l: range(13) if l < 8 else range(13, 24)
        token = {l: legal(l)[pick_token([z[l][v] for v in legal(l)], params['top_p'], u_draw[l])] for l in hidden}
        prob = {l: softmax([z[l][v] for v in legal(l)])[(token[l] if l in token else x[l]) - legal(l)[0]] for l in range(L) if real[l]}
        p = (alpha(nxt) - alpha(now))/(1 - alpha(now)) if i else 1.
        if params['unmask'] == 'llada':
            k = len(hidden) if i == 0 else min(len(hidden), max(1, half_even(p, len(hidden))))
            chosen = sorted(hidden, key=lambda l: (-prob[l], l))[:k]
        elif params['remask'] == 'none': chosen = [l for l in hidden if u_keep[l] < p]
        else: chosen = [l for l in hidden if u_own[l] < p]
        for l in chosen: x[l] = token[l]
        if params['remask'] != 'none' and i > 0 and now < tau:
            visible = [l for l in range(L) if real[l] and x[l] != MASK]
            smax = min(1., (1 - alpha(nxt))/alpha(now))
            if params['remask'] == 'cap': sigma = {l: min(params['eta'], smax) for l in visible}
            else:
                e = {l: math.exp(-prob[l]) for l in visible}
                sigma = {l: min(1., smax*e[l]/sum(e.values())*len(visible)) for l in visible}
            for l in visible:
                if not u_keep[l] < 1 - sigma[l]: x[l] = MASK
    return x


@pytest.mark.parametrize('name', PUBLISHED)
def test_same_decisions(name):
    space, g = graph_space(8), torch.Generator().manual_seed(1)
    emb = torch.randn(L, space.V, generator=g).double()
    head = torch.randn(L, space.V, generator=g).double()
    def logits(x, t):
        h = torch.sin(emb[torch.arange(L), x].sum(-1, keepdim=True) + emb[torch.arange(L), x])
        return 2*torch.sin(2*h[..., None]*head + t)
    m, sizes = METHODS[name], torch.tensor([8, 6, 4, 7])
    real = slots(sizes)
    start = torch.where(real, MASK, PAD)
    ours = sample(Process(lambda x, t, ok: Denoised(logits(x, t)), linear, space), start, uniform_grid(N), m.policy, m.draw)
    for b in range(len(sizes)):
        row = plain(m.params, start[b].tolist(), lambda x, t: logits(torch.tensor(x)[None], t)[0].tolist(), real[b].tolist(),
                    Noise(0, torch.tensor([b])))
        assert row == ours[b].tolist(), f'{name}, row {b}'
