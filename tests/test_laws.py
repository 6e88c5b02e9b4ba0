"""The laws of the sampler, for every method, on graphs, text and Sudoku, with one alpha per row and one per position."""
import pytest, torch
from dataclasses import replace
from hypothesis import given, settings, strategies as hs
from remask.core.tokens import TokenSpace, hide, is_clean
from remask.domains.graphs import graph_space, slots
from remask.core.schedules import SCHEDULES, linear, uniform_grid
from remask.core.denoiser import Denoised
from remask.core.sampler import Noise, Process, ancestral, as_is, sample
from remask.methods.registry import METHODS, METHOD_INFO
from remask.core.exact import sudoku

# Methods with the published semantics, and no others, may break law 2 (visible share) and law 3 (reveal and remask in one step).
CONFIDENCE = 'llada_topp09_remdm_confidence_tsw10'
EXEMPT = {'llada_argmax_no_remask', 'llada_topp09_no_remask',
          *(f'{u}_topp09_remdm_cap_eta{e}' for u in ('llada', 'random') for e in ('02', '04', '06', '08', '10')),
          *(f'{u}_topp09_remdm_confidence_tsw{t}' for u in ('llada', 'random') for t in ('03', '05', '07', '10')),
          'llada_topp08_no_remask', 'llada_topp095_no_remask', 'llada_topp09_no_remask_grid_unmasked',
          'llada_topp08_remdm_confidence_tsw10', 'llada_topp095_remdm_confidence_tsw10',
          *(f'{CONFIDENCE}_{remedy}' for remedy in ('grid_unmasked', 'sigma_linear', 'psi', 'decay20', 'protect')),
          'llada_topp09_threshold',
          # of the field: published as they are, or ahead of the schedule by design
          'remdm_conf', 'davis_rate', 'davis_confidence', 'threshold', 'entropy_bound', 'falling_threshold', 'davis_order',
          'tolerator', 'wino', 'threshold_remask'}


def test_only_published_methods_are_exempt():
    assert {k for k, m in METHODS.items() if m.preserves == 'published'} == EXEMPT


def text_space():
    legal = torch.zeros(12, 11, dtype=torch.bool); legal[:, :9] = True
    return TokenSpace(9, 10, legal)


def per_position(t, real):
    "A (B,L) schedule: every position has its own speed; PAD is always visible"
    power = torch.linspace(.5, 2, real.shape[1], dtype=torch.float64)
    a = 1 - torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1)**power
    return torch.where(real, a.expand(len(real), -1), 1.)


def rows(space):
    if space.L == 36: real = slots(torch.tensor([4, 5, 6, 7, 8, 8, 3, 1]))
    elif space.L == 16: real = torch.ones(8, 16, dtype=torch.bool)
    else: real = torch.arange(12)[None] < torch.tensor([12, 12, 9, 7, 5, 12, 1, 3])[:, None]
    x = hide(space, real)
    x[::2, 0] = 3                                           # a prompt in every other row
    return x, real


def denoiser(space, dtype=torch.float64):
    "A fixed random function of the whole row, in which every row is computed alike whatever its company"
    g = torch.Generator().manual_seed(0)
    emb, out = (torch.randn(space.L, space.V, generator=g).to(dtype) for _ in range(2))
    def f(x, t, real):
        h = torch.sin(emb[torch.arange(space.L), x].sum(1, keepdim=True) + emb[torch.arange(space.L), x])
        heads = {name: torch.sin((k + 4)*h) for k, name in enumerate(('prism', 'ups', 'planner', 'critic'))}
        return Denoised(2*torch.sin(3*h[..., None]*out + t), None, heads)
    return f


def solver(grids):
    "The exact denoiser of 4x4 Sudoku, with heads that know nothing"
    heads = denoiser(grids.space)
    return lambda x, t, real: heads(x, t, real)._replace(logits=grids.logits(x))


GRIDS = sudoku()
DOMAINS = dict(graph=(s := graph_space(8), denoiser(s)), text=(s := text_space(), denoiser(s)), sudoku=(GRIDS.space, solver(GRIDS)))
CASES = {f'{d}-{v}': (*DOMAINS[d], a) for d in DOMAINS for v, a in dict(v1=linear, v2=per_position).items()}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    space, denoise, alpha = request.param
    return Process(denoise, alpha, space), *rows(space)


@pytest.mark.parametrize('name', METHODS)
def test_laws(name, case):
    m, (proc, _, real) = METHODS[name], case
    keeps_the_laws(m, *case, m.times(23 if METHOD_INFO[m.family].extra != 'L' else 5, proc.alpha, real[:1] | True))


def keeps_the_laws(m, proc, x, real, ts):
    log, told = [], real & (x != proc.space.mask)
    out = sample(proc, x, ts, m.policy, m.draw, callback=lambda st, new, keep: log.append((st, new, keep)))
    # 1: PAD and prompt stay, nothing is hidden at the end, every id is legal at its position
    assert (out[~real] == proc.space.pad).all() and out[told].equal(x[told]) and is_clean(proc.space, out).all()
    for st, new, keep in log:
        sigma = torch.as_tensor(m.policy.remask(replace(st, score=m.policy.score(st))))*(st.s > 0)
        assert (st.sigma_max.expand_as(st.p)[~real] == 0).all() or st.alpha_t.shape[1] == 1 # PAD is never hidden
        if st.s == 0: assert (new != proc.space.mask)[st.decoded].all()                     # 3: nothing is remasked at the end
        if m.preserves == 'rate':                                                                 # 2
            unmask = m.policy.unmask(replace(st, sigma=sigma))
            law = (1 - sigma)*st.alpha_t + unmask*(1 - st.alpha_t) - st.alpha_s
            assert law.abs().masked_fill(~st.ours, 0).max() < 1e-12
            if st.alpha_t.shape[1] == 1:                                                    # one sigma for the whole row
                low, high = sigma.masked_fill(~st.ours, 1).amin(1), sigma.masked_fill(~st.ours, 0).amax(1)
                assert ((high - low) < 1e-12)[st.ours.any(1)].all()
        if m.preserves == 'ranked':
            assert ((new != proc.space.mask) & st.ours).sum(1, keepdim=True).equal(st.n_unmasked.long())
        if m.preserves == 'balanced':                                                             # 2: on average (unless, by luck,
            hold = (1 - sigma)*st.decoded                                                   # more is visible already)
            unmask = m.policy.unmask(replace(st, sigma=sigma))*st.masked
            due = (st.alpha_s*st.ours).sum(1, keepdim=True).maximum(hold.sum(1, keepdim=True))
            assert ((hold + unmask).sum(1, keepdim=True) - due).abs().max() < 1e-12
        if m.policy.edit is as_is and (m.preserves != 'published' or m.choices.protect):                                       # 3: hidden stay themselves
            assert (new == st.x)[st.decoded & (new != proc.space.mask)].all()


@hs.composite
def trials(draw):
    "A small process of any shape, rows that are in part given and padded, and times as they come"
    L, V, B = draw(hs.integers(1, 7)), draw(hs.integers(1, 5)), draw(hs.integers(1, 3))
    legal = torch.tensor(draw(hs.lists(hs.lists(hs.booleans(), min_size=V, max_size=V), min_size=L, max_size=L)))
    legal[legal.sum(1) == 0, 0] = True
    space = TokenSpace(V, V + 1, torch.cat([legal, torch.zeros(L, 2, dtype=torch.bool)], 1))
    real = torch.arange(L) < torch.tensor(draw(hs.lists(hs.integers(1, L), min_size=B, max_size=B)))[:, None]
    told = torch.tensor(draw(hs.lists(hs.lists(hs.booleans(), min_size=L, max_size=L), min_size=B, max_size=B))) & real
    x = torch.where(told, legal.int().argmax(1), hide(space, real))
    inner = draw(hs.lists(hs.floats(1e-3, 1 - 1e-3), max_size=5, unique=True))
    ts = torch.tensor([1., *sorted(inner, reverse=True), 0.], dtype=torch.float64)
    return Process(denoiser(space), draw(hs.sampled_from([*SCHEDULES.values(), per_position])), space), x, real, ts


@pytest.mark.parametrize('name', [k for k, m in METHODS.items() if k == m.family])
@settings(max_examples=12, deadline=None)
@given(trials())
def test_laws_whatever_the_shape(name, trial): keeps_the_laws(METHODS[name], *trial)


@pytest.mark.parametrize('name', METHODS)
def test_batch_invariance(name, case):                                                      # 4
    proc, x, real = case
    m = METHODS[name]
    ts = m.times(11 if METHOD_INFO[m.family].extra != 'L' else 3, proc.alpha, real[:1] | True)
    run = lambda ids: sample(proc, x[ids], ts, m.policy, m.draw, Noise(3, ids), check=False)
    whole, order = run(torch.arange(8)), torch.tensor([6, 1, 3, 0])
    assert run(order).equal(whole[order]) and run(torch.tensor([5])).equal(whole[5:6])


def test_a_lagging_reveal_rate_breaks_the_law():
    "The rate law can fail: MDLM's rate under cap remasking does not reach alpha_s"
    proc, (x, _) = Process(denoiser(graph_space(8)), linear, graph_space(8)), rows(graph_space(8))
    seen = []
    sample(proc, x, uniform_grid(9), METHODS['random_topp09_remdm_cap_eta02'].policy, callback=lambda st, new, keep: seen.append(st))
    st = replace(seen[4], sigma=torch.full_like(seen[4].p, .2))
    assert ((.8*st.alpha_t + ancestral(replace(st, sigma=0.))*(1 - st.alpha_t)) - st.alpha_s).max() < -.01


@pytest.mark.parametrize('alpha', SCHEDULES.values(), ids=SCHEDULES)
def test_every_schedule_reaches_the_end(alpha):
    space = text_space()
    x, real = rows(space)
    out = sample(Process(denoiser(space), alpha, space), x, uniform_grid(7))
    assert is_clean(space, out).all()
