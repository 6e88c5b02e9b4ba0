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
    top = max(z)
    e = [math.exp(v - top) for v in z]
    return [v/sum(e) for v in e]


def most_likely_first(p):
    "Places from the largest value to the smallest; of equal ones, the first"
    def place(i): return -p[i], i
    return sorted(range(len(p)), key=place)


def pick_token(z, top_p, u):
    "Nucleus: most likely first, keep while the mass before is below top_p, invert the sum; else argmax"
    if top_p is None: return most_likely_first(z)[0]
    p = softmax(z)
    kept, before = [], 0.
    for i in most_likely_first(p):
        if before >= top_p: break
        kept.append(i)
        before += p[i]
    total, run = sum(p[i] for i in kept), 0.
    for i in kept:
        run += p[i]
        if u*total < run: return i
    return kept[-1]


def half_even(ps):
    "v1's round(p n) is v2's round(sum of p) where all p are the same; float32, half to even"
    p = torch.tensor(ps, dtype=torch.float32)
    equal = len(set(ps)) == 1
    return int(torch.round(p[0]*len(p) if equal else p.sum()))


def legal(l): return range(13) if l < 8 else range(13, 24)
def legal_logits(z, l): return [z[l][v] for v in legal(l)]


def chosen(params, masked, p, prob, u_keep, u_own, last):
    "The masked positions that one step unmasks"
    if params['unmask'] == 'llada':
        k = len(masked) if last else min(len(masked), max(1, half_even(list(p.values()) or [0.])))
        order = most_likely_first([prob[l] for l in masked])
        return [masked[i] for i in order[:k]]
    u = u_keep if params['remask'] == 'none' else u_own
    return [l for l in masked if u[l] < p[l]]


def remasking_probability(params, decoded, sigma_max, prob):
    if params['remask'] == 'cap': return {l: min(params['eta'], sigma_max[l]) for l in decoded}
    e = {l: math.exp(-prob[l]) for l in decoded}
    total, n = sum(e.values()), len(decoded)
    return {l: min(1., sigma_max[l]*e[l]/total*n) for l in decoded}


def plain(params, x, logits_of, real, noise, alpha=fixed):
    "One row through the loop of Davis: choose tokens, unmask, then remask old and new alike"
    x = list(x)
    for step, i in enumerate(range(N - 1, -1, -1)):
        now, after = (i + 1)/N, i/N
        z = logits_of(x, now)
        u_draw, u_keep, u_own = (noise(step, k, L)[0].tolist() for k in (DRAW, KEEP, CHOOSE))
        masked = [l for l in range(L) if x[l] == MASK]
        token, prob, p = list(x), {}, {}
        for l in masked:
            token[l] = legal(l)[pick_token(legal_logits(z, l), params['top_p'], u_draw[l])]
            rate = (alpha(after, l) - alpha(now, l))/(1 - alpha(now, l) + 1e-8)
            p[l] = rate if i else 1.
        for l in range(L):
            if real[l]: prob[l] = softmax(legal_logits(z, l))[token[l] - legal(l)[0]]
        for l in chosen(params, masked, p, prob, u_keep, u_own, i == 0): x[l] = token[l]
        if params['remask'] != 'none' and i > 0 and now < params['t_switch']:
            decoded = [l for l in range(L) if real[l] and x[l] != MASK]
            sigma_max = {l: min(1., (1 - alpha(after, l))/alpha(now, l)) for l in decoded}
            sigma = remasking_probability(params, decoded, sigma_max, prob)
            for l in decoded:
                if not u_keep[l] < 1 - sigma[l]: x[l] = MASK
    return x


def both(name, alpha, tensor):
    "Rows of four sizes by the sampler and by the plain rewriting"
    space, g = graph_space(8), torch.Generator().manual_seed(1)
    emb = torch.randn(L, space.V, generator=g).double()
    head = torch.randn(L, space.V, generator=g).double()
    def logits(x, t):
        own = emb[torch.arange(L), x]
        h = torch.sin(own.sum(-1, keepdim=True) + own)
        return 2*torch.sin(2*h[..., None]*head + t)
    def denoise(x, t, real): return Denoised(logits(x, t))
    def logits_of(x, t): return logits(torch.tensor(x)[None], t)[0].tolist()
    m, real = METHODS[name], slots(torch.tensor([8, 6, 4, 7]))
    start, states = fully_masked(space, real), []
    def record(st, x, keep): states.append(st)
    proc = Process(denoise, tensor, space)
    ours = sample(proc, start, uniform_grid(N), m.policy, m.draw, callback=record)
    rows = []
    for b, (x, of_row) in enumerate(zip(start.tolist(), real.tolist())):
        noise = Noise(0, torch.tensor([b]))
        rows.append(plain(m.params, x, logits_of, of_row, noise, alpha))
    return ours.tolist(), rows, states


@pytest.mark.parametrize('name', PUBLISHED)
def test_every_published_method_decides_as_its_rewriting(name):
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
    "The two published methods of the learned process, and the other methods of its code"
    ours, rows, states = both(name, learned, learned_tensor)
    for b, row in enumerate(rows): assert row == ours[b], f'{name}, row {b}'
    for st in states:
        assert (st.sigma_max[~st.ours] == 0).all()
        assert st.sigma_max.shape == (4, L)


VALUES = dict(unmask=('llada', 'random'))
VALUES['remask'] = 'none', 'cap', 'rescale', 'confidence', 'self', 'threshold'
VALUES |= dict(eta=(0.0, 0.2, 1.0), t_switch=(0.5, 1.0))
VALUES |= dict(top_p=(None, 0.9, 0.95), temperature=(0.0, 0.7))
VALUES['form'] = 'published', 'consistent', 'balanced'
VALUES |= dict(grid=('uniform', 'unmasked'), sigma_of=('own', 'linear'), trust=('logits', 'psi'))
VALUES |= dict(decay=(0.0, 2.0), protect=(False, True), strength=(0.0, 0.4), chance=('sum', 'share'))


def possible():
    for values in itertools.product(*VALUES.values()):
        try: yield make_method(**dict(zip(VALUES, values)))
        except ValueError as e: assert 'means nothing here' in str(e)


def test_every_set_of_choices_has_a_name_of_its_own():
    made = list(possible())
    assert len(made) > 500 and list(VALUES) == list(Choices._fields)
    for names in [m.name for m in made], [method_id(m.name) for m in made]:
        assert len(set(names)) == len(made)
    for m in made:
        assert '.' not in method_id(m.name)
        assert make_method(**m.params).name == m.name


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
