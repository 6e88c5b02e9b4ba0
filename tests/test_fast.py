"""The shortcuts change no answer, alone or stacked, and count what was really asked."""
import pytest, torch
from hypothesis import given, settings, strategies as st
from remask.core.tokens import hide, masked
from remask.domains.graphs import graph_space, slots
from remask.core.schedules import linear, uniform_grid
from remask.core.denoiser import Denoised, trimmed
from remask.core.sampler import Noise, Process, as_is, sample
from remask.core.fast import NFECounter, only_where, count_nfe, deduplicated, cached_rows, tabulated, unfinished
from remask.methods.registry import METHODS, METHOD_INFO
from remask.methods.step_statistics import StepStatistics
from remask.methods.generation import generate_rows

SPACE = graph_space(3)
few = settings(max_examples=40, deadline=None)


class Exact:
    "A 'network' of whole numbers: float64 answers that no order of summation can change; looks at t only if timed"
    def __init__(self, space, timed):
        g = torch.Generator().manual_seed(space.L)
        self.emb, self.out = (torch.randint(997, (space.L, space.V), generator=g) for _ in range(2))
        self.config, self.asked = dict(timed=timed), []

    def __call__(self, x, t, real, at):
        self.asked.append(len(x))
        own = self.emb[at, x]
        h = (own*real).sum(1, keepdim=True) + 31*own
        if self.config['timed']: h = h + (torch.as_tensor(t).double()*997).round().long().reshape(-1, 1)
        logits = ((h[..., None]*self.out[at])%1009).double()/128
        some = torch.stack([h, own], -1).double()
        return Denoised(logits*real[..., None], some*real[..., None], {'ups': h.double()*real})

    def whole(self, x, t, real): return self(x, t, real, torch.arange(x.shape[1]))


def same(a, b, rows=slice(None)):
    parts = lambda d: [d.logits, d.hidden_states, d.heads['ups']]
    return all(p[rows].equal(q[rows]) for p, q in zip(parts(a), parts(b), strict=True))


@st.composite
def batches(draw, calls=1):
    "A batch of rows, some alike, some finished, some hidden, and what became of it from call to call"
    B, seed = draw(st.integers(1, 6)), draw(st.integers(0, 10**6))
    g = torch.Generator().manual_seed(seed)
    real = slots(torch.randint(1, 4, (B,), generator=g), 3)
    start, out = hide(SPACE, real), []
    full = torch.where(real, SPACE.legal.double().multinomial(1, generator=g).T.expand(B, -1), start)
    for _ in range(calls):
        share = draw(st.sampled_from([0., .3, .8, 1.]))
        fresh = torch.where(torch.rand(B, 1, generator=g).expand(real.shape) < share, full, start)
        change = torch.rand(B, 1, generator=g) < draw(st.sampled_from([0., .5, 1.]))
        out.append(torch.where(change, fresh, out[-1]) if out else fresh)
    return out, real


@few
@given(batches(), st.floats(0, 1))
def test_equal_rows_are_asked_once(batch, t):
    (x,), real = batch
    net = Exact(SPACE, True)
    got = deduplicated(net.whole)(x, t, real)
    assert net.asked == [len({tuple(r) for r in x.tolist()})]
    assert same(got, net.whole(x, t, real))


@few
@given(batches(), st.floats(0, 1))
def test_a_trimmed_network_says_the_same_where_it_matters(batch, t):
    (x,), real = batch
    net = Exact(SPACE, True)
    assert same(trimmed(net)(x, t, real), net.whole(x, t, real))


@few
@given(batches(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_rows_that_need_no_answer_get_an_empty_one(batch, wanted):
    (x,), real = batch
    net, counter, want = Exact(SPACE, True), NFECounter(), torch.tensor(wanted)[:len(x)]
    got = only_where(net.whole, lambda x, t: want, counter)(x, .5, real)
    assert counter.rows.tolist() == want.int().tolist()
    assert net.asked == [max(1, int(want.sum()))]
    assert same(got, net.whole(x, .5, real), want)
    assert (got.logits[~want] == 0).all() and got.logits.shape == (len(x), SPACE.L, SPACE.V)


def test_no_row_is_asked_about_only_to_learn_the_shapes_once():
    x, net, counter = hide(SPACE, slots(torch.tensor([1, 2, 3]), 3)), Exact(SPACE, True), NFECounter()
    wanted = [[0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1]]
    f = only_where(net.whole, lambda x, t: torch.tensor(wanted[t]).bool(), counter)
    for t, want in enumerate(wanted):
        got, want = f(x, t, x != SPACE.pad), torch.tensor(want).bool()
        assert same(got, net.whole(x, t, x != SPACE.pad), want) and (got.logits[~want] == 0).all()
        net.asked.pop()                                      # the comparison's own
    assert net.asked == [1, 2, 3] and counter.rows.tolist() == [2, 1, 2]


@few
@given(batches(calls=6), st.lists(st.sampled_from([.1, .5, .9]), min_size=6, max_size=6))
def test_a_tabled_schedule_says_the_same_and_is_asked_once(batch, times):
    calls, real = batch
    asked = []
    table = tabulated(lambda t, real: (asked.append((t, len(real))), speeds(t, real))[1])
    parts = [real, real[:2], real[-1:], real.flip(0), real, real[:1]]   # the first has seen them all
    for t, part in zip(times, parts): assert table(t, part).equal(speeds(t, part))
    kinds = len({tuple(r) for r in real.tolist()})
    assert sorted(asked) == sorted((t, kinds) for t in set(times))


@few
@given(batches(), batches())
def test_a_new_pattern_is_not_answered_from_the_old_table(a, b):
    table = tabulated(linear), tabulated(speeds)
    for real in a[1], b[1], a[1]:
        for f, plain in zip(table, (linear, speeds)): assert f(.3, real).equal(plain(.3, real))


def test_a_schedule_is_evaluated_once_per_time_of_a_run():
    asked, x = [], hide(SPACE, slots(torch.tensor([3, 2, 1]*4), 3))
    note = lambda t, real: (asked.append(t), speeds(t, real))[1]
    generate_rows(Exact(SPACE, True), note, SPACE, METHODS['random_topp09_remdm_cap_eta02'], x, uniform_grid(9), batch=3)
    assert sorted(asked, reverse=True) == uniform_grid(9)[:-1].tolist()


@few
@given(batches(calls=5))
def test_a_row_that_did_not_change_is_remembered(batch):
    calls, real = batch
    net, counter, asked, last = Exact(SPACE, False), NFECounter(), [0]*len(real), None
    f = cached_rows(net.whole, counter)
    for k, x in enumerate(calls):
        assert same(f(x, 1 - k/5, real), Exact(SPACE, False).whole(x, 0., real))
        for b, row in enumerate(x.tolist()): asked[b] += last is None or row != last[b]
        last = x.tolist()
        assert counter.rows.tolist() == asked
    assert sum(net.asked) == sum(asked)


def test_another_batch_is_not_mistaken_for_the_last():
    net, counter = Exact(SPACE, False), NFECounter()
    f, x = cached_rows(net.whole, counter), hide(SPACE, slots(torch.tensor([1, 2, 3]), 3))
    f(x, 1., x != SPACE.pad)
    counter.rows = None                                        # the next batch counts for itself
    assert same(f(x[1:], 1., x[1:] != SPACE.pad), net.whole(x[1:], 1., x[1:] != SPACE.pad))
    assert counter.rows.tolist() == [1, 1]


STACKS = {
    'once of trimmed': lambda net, a, b: deduplicated(trimmed(net)),
    'where of once of trimmed': lambda net, a, b: only_where(deduplicated(trimmed(net)), unfinished(SPACE), a),
    'once of where of trimmed': lambda net, a, b: deduplicated(only_where(trimmed(net), unfinished(SPACE), a)),
    'remembered of once of trimmed': lambda net, a, b: cached_rows(deduplicated(trimmed(net)), a),
    'remembered of where of once of trimmed':
        lambda net, a, b: cached_rows(only_where(deduplicated(trimmed(net)), lambda x, t: masked(SPACE, x).any(1), b), a),
    'counted of remembered of trimmed': lambda net, a, b: count_nfe(cached_rows(trimmed(net), b), a)}


@pytest.mark.parametrize('stack', STACKS)
@settings(max_examples=15, deadline=None)
@given(batches(calls=4))
def test_stacks(stack, batch):
    calls, real = batch
    if 'where' in stack and 'remembered' in stack: counter = [NFECounter(), _Any()]  # the inner one sees ever other rows
    elif 'once of where' in stack: counter = [_Any(), NFECounter()]
    else: counter = [NFECounter(), _Any()]
    net = Exact(SPACE, False)
    f = STACKS[stack](net, *counter)
    for x in calls:
        rows = masked(SPACE, x).any(1) if 'where' in stack else slice(None)
        assert same(f(x, .5, real), Exact(SPACE, False).whole(x, .5, real), rows)


class _Any(NFECounter):
    "A tally of batches of changing size: the sum is all that is meant"
    def add(self, rows): self.rows = rows.long().sum() + (0 if self.rows is None else self.rows)


def evaluations(m, timed, states):
    "Row by row from what a plain run passed through: in how many steps was an answer needed?"
    rows = range(len(states[0].x))
    if m.policy.edit is not as_is: return [len(states)]*len(rows)
    if not timed: return [1 + sum(not a.x[b].equal(z.x[b]) for a, z in zip(states, states[1:])) for b in rows]
    c = m.choices
    reads = c.t_switch if m.preserves == 'published' and c.remask == 'confidence' and c.trust == 'logits' else 0
    return [sum(bool(s.masked[b].any()) or s.t < reads for s in states) for b in rows]


def speeds(t, real):
    "A schedule with an alpha for every position"
    a = linear(t, real)**torch.linspace(.5, 3, real.shape[1], dtype=torch.float64)
    return torch.where(real, a, 1.)


@pytest.mark.parametrize('timed', [True, False], ids=['timed', 'free'])
@pytest.mark.parametrize('name', [k for k, m in METHODS.items() if METHOD_INFO[m.family].extra == '0' and not METHOD_INFO[m.family].needs])
@pytest.mark.parametrize('alpha', [linear, speeds], ids=['v1', 'v2'])
def test_generate_gives_the_plain_loops_samples_and_counts_what_they_took(name, timed, alpha):
    space = graph_space(5)
    m, net, states = METHODS[name], Exact(space, timed), []
    ts = m.times(17, alpha, torch.ones(1, space.L, dtype=torch.bool))
    x = hide(space, slots(torch.tensor([5, 1, 4, 5, 2, 3]), 5))
    plain = sample(Process(net.whole, alpha, space), x, ts, m.policy, m.draw, Noise(7, torch.arange(6)), check=False,
                   callback=lambda s, new, keep: states.append(s))
    got = generate_rows(net, alpha, space, m, x, ts, seed=7, batch=4)
    assert got.x.equal(plain)
    assert got.nfe.tolist() == evaluations(m, timed, states)


@pytest.mark.parametrize('name', ['llada_topp09_remdm_confidence_tsw10', 'random_topp09_remdm_cap_eta02_consistent',
                                  'random_topp09_remdm_confidence_tsw10_balanced', 'llada_topp09_remdm_cap_eta02_consistent'])
def test_a_diary_sums_up_what_a_row_by_row_look_sees(name):
    space, log, statistics, m = graph_space(5), [], StepStatistics(), METHODS[name]
    x, ts = hide(space, slots(torch.tensor([5, 1, 4, 5, 2, 3]), 5)), uniform_grid(9)
    generate_rows(Exact(space, True), speeds, space, m, x, ts, seed=7, batch=4,
             callback=lambda *seen: (statistics(*seen), log.append(seen)))
    table, taken, pairs = statistics.table(), [0]*6, [(log[k], log[k + 9]) for k in range(9)]    # two batches of nine steps
    for k, two in enumerate(pairs):
        each = [(s, new, keep, b) for s, new, keep in two for b in range(len(new))]
        mean = lambda f: sum(f(*row) for row in each)/6
        gone = lambda s, new, keep, b: int((s.decoded & (new == space.mask))[b].sum())
        own, some = mean(lambda s, new, keep, b: int(s.ours[b].sum())), [r for r in each if r[0].decoded[r[3]].any()]
        want = dict(t=float(ts[k]), remasked=mean(gone), before=mean(lambda s, new, keep, b: int(s.decoded[b].sum()))/own,
                    after=mean(lambda s, new, keep, b: int(((new != space.mask) & s.ours)[b].sum()))/own,
                    unmasked=mean(lambda s, new, keep, b: int((s.masked & (new != space.mask))[b].sum())),
                    alpha_s=mean(lambda s, new, keep, b: float(s.alpha_s.expand_as(s.p)[b][s.ours[b]].sum()))/own,
                    wanted=mean(lambda s, new, keep, b: float((1 - keep)[b][s.decoded[b]].sum())),
                    sigma_max=mean(lambda s, new, keep, b: float(s.sigma_max.expand_as(s.p)[b][s.ours[b]].mean())),
                    sigma_max_spread=mean(lambda s, n, k, b: float(s.sigma_max.expand_as(s.p)[b][s.ours[b]].std(correction=0))),
                    sigma=sum(float((1 - q)[b][s.decoded[b]].mean()) for s, n, q, b in some)/max(1, len(some)),
                    sigma_spread=sum(float((1 - q)[b][s.decoded[b]].std(correction=0)) for s, n, q, b in some)/max(1, len(some)))
        assert {n: float(table[n][k]) for n in want} == pytest.approx(want, abs=1e-9)
        for b, row in enumerate(each): taken[b] += gone(*row)
    assert statistics.remasks().tolist() == taken
