"""The 24 published methods against an independent plain rewriting of Davis's step, decision for decision."""
import itertools, math
import pytest, torch
from remask.domains.graphs import MASK, graph_space, slots
from remask.core.tokens import fully_masked
from remask.core.schedules import linear, uniform_grid
from remask.core.denoiser import Denoised
from remask.core.sampler import CHOOSE, DRAW, KEEP, Noise, Process, sample
from remask.methods.published import (
    NAMED, PUBLISHED, Choices, Compared, compared, make_method, method_id, method_name, parse_name)
from remask.methods.registry import METHODS, get_method

L, N, EPS = 36, 40, 1e-3


def fixed(t, l): return 1 - (1 - EPS)*t


def learned(t, l):
    "Like a trained rate network: gamma from -13 to 5, rising at another pace at every position"
    w = .1 + .8*((7*l)%L)/L
    return 1/(1 + math.exp(-13 + 18*(w*t + (1 - w)*t**4)))


def learned_tensor(t, real):
    w = .1 + .8*((7*torch.arange(L))%L)/L
    a = torch.sigmoid(13 - 18*(w.double()*t + (1 - w.double())*t**4))
    return torch.where(real, a, 1.)


def softmax(z):
    m = max(z); e = [math.exp(v - m) for v in z]
    return [v/sum(e) for v in e]


def pick_token(z, top_p, u):
    "Nucleus: most likely first, keep while the mass before is below top_p, invert the sum; else argmax"
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


def half_even(ps):
    "v1's round(p n) is v2's round(sum of p) where all p are the same; float32, half to even"
    p = torch.tensor(ps, dtype=torch.float32)
    return int(torch.round(p[0]*len(p) if len(set(ps)) == 1 else p.sum()))


def plain(params, x, logits_of, real, noise, alpha=fixed):
    "One row through the reference system's loop: choose tokens, unmask, then remask old and new alike"
    x, tau = list(x), params['t_switch']
    for step, i in enumerate(range(N - 1, -1, -1)):
        now, nxt = (i + 1)/N, i/N
        z = logits_of(x, now)
        u_draw, u_keep, u_own = (noise(step, k, L)[0].tolist() for k in (DRAW, KEEP, CHOOSE))
        hidden = [l for l in range(L) if x[l] == MASK]
        legal = lambda l: range(13) if l < 8 else range(13, 24)
        token = {
            l: legal(l)[pick_token([z[l][v] for v in legal(l)], params['top_p'], u_draw[l])] for l in hidden
        }
        prob = {
            l: softmax([z[l][v] for v in legal(l)])[(token[l] if l in token else x[l]) - legal(l)[0]]
            for l in range(L)
            if real[l]
        }
        p = {l: (alpha(nxt, l) - alpha(now, l))/(1 - alpha(now, l) + 1e-8) if i else 1. for l in hidden}
        if params['unmask'] == 'llada':
            k = len(hidden) if i == 0 else min(len(hidden), max(1, half_even([p[l] for l in hidden] or [0.])))
            chosen = sorted(hidden, key=lambda l: (-prob[l], l))[:k]
        elif params['remask'] == 'none': chosen = [l for l in hidden if u_keep[l] < p[l]]
        else: chosen = [l for l in hidden if u_own[l] < p[l]]
        for l in chosen: x[l] = token[l]
        if params['remask'] != 'none' and i > 0 and now < tau:
            visible = [l for l in range(L) if real[l] and x[l] != MASK]
            smax = {l: min(1., (1 - alpha(nxt, l))/alpha(now, l)) for l in visible}
            if params['remask'] == 'cap': sigma = {l: min(params['eta'], smax[l]) for l in visible}
            else:
                e = {l: math.exp(-prob[l]) for l in visible}
                sigma = {l: min(1., smax[l]*e[l]/sum(e.values())*len(visible)) for l in visible}
            for l in visible:
                if not u_keep[l] < 1 - sigma[l]: x[l] = MASK
    return x


def both(name, alpha, tensor):
    "Rows of four sizes by the sampler and by the plain rewriting"
    space, g = graph_space(8), torch.Generator().manual_seed(1)
    emb = torch.randn(L, space.V, generator=g).double()
    head = torch.randn(L, space.V, generator=g).double()
    def logits(x, t):
        h = torch.sin(emb[torch.arange(L), x].sum(-1, keepdim=True) + emb[torch.arange(L), x])
        return 2*torch.sin(2*h[..., None]*head + t)
    m, real = METHODS[name], slots(torch.tensor([8, 6, 4, 7]))
    start, seen = fully_masked(space, real), []
    ours = sample(
        Process(lambda x, t, ok: Denoised(logits(x, t)), tensor, space),
        start,
        uniform_grid(N),
        m.policy,
        m.draw,
        callback=lambda st, x, keep: seen.append(st),
    )
    rows = [
        plain(
            m.params,
            start[b].tolist(),
            lambda x, t: logits(torch.tensor(x)[None], t)[0].tolist(),
            real[b].tolist(),
            Noise(0, torch.tensor([b])),
            alpha,
        )
        for b in range(len(real))
    ]
    return ours.tolist(), rows, seen


@pytest.mark.parametrize('name', PUBLISHED)
def test_same_decisions(name):
    ours, rows, _ = both(name, fixed, linear)
    for b, row in enumerate(rows): assert row == ours[b], f'{name}, row {b}'


LLADA = 'llada_topp09_'
V2 = [
    LLADA + 'no_remask',
    LLADA + 'remdm_confidence_tsw10',
    LLADA + 'remdm_cap_eta02',
    'random_topp09_no_remask',
    'random_topp09_remdm_confidence_tsw10',
    'random_topp09_remdm_cap_eta02',
]


@pytest.mark.parametrize('name', V2)
def test_same_decisions_with_an_alpha_for_every_position(name):
    "The two published methods of the learned process, and what else its code would have done"
    ours, rows, seen = both(name, learned, learned_tensor)
    for b, row in enumerate(rows): assert row == ours[b], f'{name}, row {b}'
    for st in seen: assert (st.sigma_max[~st.ours] == 0).all() and st.sigma_max.shape == (4, L)


STARTS = dict(
    unmask=('llada', 'random'),
    remask=('none', 'cap', 'rescale', 'confidence', 'self', 'threshold'),
    eta=(0.0, 0.2, 1.0),
    t_switch=(0.5, 1.0),
    top_p=(None, 0.9, 0.95),
    temperature=(0.0, 0.7),
    form=('published', 'consistent', 'balanced'),
    grid=('uniform', 'unmasked'),
    sigma_of=('own', 'linear'),
    trust=('logits', 'psi'),
    decay=(0.0, 2.0),
    protect=(False, True),
    strength=(0.0, 0.4),
    chance=('sum', 'share'),
)


def possible():
    for values in itertools.product(*STARTS.values()):
        try: yield make_method(**dict(zip(STARTS, values)))
        except ValueError as e: assert 'means nothing here' in str(e)


def test_every_set_of_choices_has_a_name_of_its_own():
    made = list(possible())
    assert len(made) > 500 and list(STARTS) == list(Choices._fields)
    for names in [m.name for m in made], [method_id(m.name) for m in made]:
        assert len(set(names)) == len(made)
    for m in made: assert '.' not in method_id(m.name) and make_method(**m.params).name == m.name


def test_a_name_is_read_back_in_both_spellings():
    for m in possible():
        choices = parse_name(m.name)
        assert method_name(choices) == m.name and parse_name(method_id(m.name)) == choices
        assert make_method(**choices._asdict()).params == m.params


@pytest.mark.parametrize(
    'name',
    [
        'llada_topp0.9',
        'llada_topp_no_remask',
        'lada_topp0.9_no_remask',
        'llada_topp0.9_remdm_cap_eta0.2_',
        'llada_topp0.9_no_remask_published',
        'llada_topp100_no_remask',
        'llada_topp0.90_no_remask',
        '',
    ],
)
def test_what_is_no_name_is_read_as_none(name): assert parse_name(name) is None


@pytest.mark.parametrize('name', NAMED)
def test_a_name_finds_its_method_and_takes_other_numbers(name):
    m = METHODS[name]
    assert get_method(m.name).name == get_method(name).name == m.name
    if m.params['eta']: assert get_method(name, eta=.25).params['eta'] == .25
    assert get_method(name, top_p=.5).params == m.params | dict(top_p=.5, temperature=0.)


@pytest.mark.parametrize('process', ['v1', 'v2', 'unweighted'])
@pytest.mark.parametrize(
    'overrides', [{}, dict(steps=36), dict(logit_adjusted=True), dict(logit_adjusted=True, steps=12)]
)
def test_the_key_of_a_compared_method_encodes_all_of_it(process, overrides):
    rows = [Compared(m.name, process, overrides) for m in NAMED.values()]
    assert len({r.key for r in rows}) == len({r.name for r in rows}) == len(rows)
    for r in rows: assert compared(r.key) == compared(r.name) == r


@pytest.mark.parametrize(
    'bad,words',
    [
        (dict(unmask='lada'), 'llada'),
        (dict(sigma_off='linear'), "choice='sigma_off' is unknown; did you mean sigma_of"),
        (dict(remask='cap', eta=-1.0), 'eta=-1'),
        (dict(remask='cap', grid='unmaskt'), 'unmasked'),
        (dict(decay=1.0), 'decay=1.0 means nothing here: llada with none, published, reads none'),
        (dict(remask='self'), 'it exists as llada with consistent'),
        (dict(remask='self', form='consistent', chance='share'), 'randomness_strength is 0'),
        (dict(remask='threshold', unmask='random'), 'it exists as llada with published'),
        (dict(remask='self', form='consistent', strength=2.0), 'randomness_strength=2.0'),
        (dict(remask='cap', decay=-1.0), 'decay=-1'),
        (dict(remask='cap', decay=float('nan')), 'decay=nan'),
        (dict(remask='cap', t_switch=1.5), 't_switch=1.5'),
        (dict(remask='cap', t_switch=1.5, form='consistent'), 't_switch=1.5'),
        (dict(remask='cap', form='consistent', protect=True), 'protect=True'),
        (dict(remask='confidence', protect='no'), "protect='no'"),
        (dict(remask='confidence', form='consistent', trust='psi'), "trust='psi'"),
        (dict(form='balanced'), 'random with balanced'),
        (dict(temperature=0.5), 'top_p takes its place'),
        (dict(top_p=None, temperature=-1.0), 'temperature=-1'),
        (dict(remask='cap', sigma_of='cosine'), "sigma_of='cosine'"),
        (dict(eta=0.5), 'eta=0.5'),
    ],
)
def test_a_choice_that_cannot_be_is_named_in_one_sentence(bad, words):
    with pytest.raises(ValueError) as e: make_method(**bad)
    assert words in str(e.value) and '\n' not in str(e.value)
