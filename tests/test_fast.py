"""The wrappers of a denoiser change no output, alone or combined, and count the evaluations made."""
import pytest, torch
from hypothesis import given, settings, strategies as st
from remask.core.tokens import fully_masked, masked
from remask.domains.graphs import graph_space, slots
from remask.core.schedules import linear, uniform_grid
from remask.core.denoiser import Denoised, trimmed
from remask.core.sampler import Noise, Process, as_is, sample
from remask.core.fast import NFECounter, cached_rows, count_nfe, deduplicated, only_where, tabulated
from remask.methods.registry import METHODS
from remask.methods.catalogue import METHOD_INFO
from remask.methods.step_statistics import StepStatistics
from remask.methods.generation import generate_rows

SPACE = graph_space(3)
few = settings(max_examples=40, deadline=None)


def any_masked(x, t): return masked(SPACE, x).any(1)


class Exact:
    "A 'network' of whole numbers: float64 outputs that no order of summation can change; reads t if timed"
    def __init__(self, space, timed):
        g = torch.Generator().manual_seed(space.L)
        self.emb, self.out = (torch.randint(997, (space.L, space.V), generator=g) for _ in range(2))
        self.config, self.asked = dict(timed=timed), []

    def __call__(self, x, t, real, at):
        self.asked.append(len(x))
        own = self.emb[at, x]
        h = (own*real).sum(1, keepdim=True) + 31*own
        if self.config['timed']:
            moved = torch.as_tensor(t).double()*997
            h = h + moved.round().long().reshape(-1, 1)
        logits = ((h[..., None]*self.out[at])%1009).double()/128
        some = torch.stack([h, own], -1).double()
        return Denoised(logits*real[..., None], some*real[..., None], {'ups': h.double()*real})

    def whole(self, x, t, real): return self(x, t, real, torch.arange(x.shape[1]))


def same(a, b, rows=slice(None)):
    def parts(d): return d.logits, d.hidden_states, d.heads['ups']
    return all(p[rows].equal(q[rows]) for p, q in zip(parts(a), parts(b), strict=True))


@st.composite
def batches(draw, calls=1):
    "A batch of rows, some equal, some complete, some fully masked, as it changes from call to call"
    B, seed = draw(st.integers(1, 6)), draw(st.integers(0, 10**6))
    g = torch.Generator().manual_seed(seed)
    real = slots(torch.randint(1, 4, (B,), generator=g), 3)
    start, out = fully_masked(SPACE, real), []
    clean = SPACE.legal.double().multinomial(1, generator=g).T.expand(B, -1)
    full = torch.where(real, clean, start)
    for _ in range(calls):
        share = draw(st.sampled_from([0., .3, .8, 1.]))
        complete = torch.rand(B, 1, generator=g) < share
        fresh = torch.where(complete, full, start)
        change = torch.rand(B, 1, generator=g) < draw(st.sampled_from([0., .5, 1.]))
        out.append(torch.where(change, fresh, out[-1]) if out else fresh)
    return out, real


@few
@given(batches(), st.floats(0, 1))
def test_equal_rows_are_evaluated_once(batch, t):
    (x,), real = batch
    net = Exact(SPACE, True)
    got = deduplicated(net.whole)(x, t, real)
    assert net.asked == [len({tuple(r) for r in x.tolist()})]
    assert same(got, net.whole(x, t, real))


@few
@given(batches(), st.floats(0, 1))
def test_a_trimmed_network_gives_the_same_output_at_real_positions(batch, t):
    (x,), real = batch
    net = Exact(SPACE, True)
    assert same(trimmed(net)(x, t, real), net.whole(x, t, real))


@few
@given(batches(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_rows_that_are_not_evaluated_get_zeros(batch, wanted):
    (x,), real = batch
    net, counter, want = Exact(SPACE, True), NFECounter(), torch.tensor(wanted)[:len(x)]
    def where(x, t): return want
    got = only_where(net.whole, where, counter)(x, .5, real)
    assert counter.rows.tolist() == want.int().tolist()
    assert net.asked == [max(1, int(want.sum()))]
    assert same(got, net.whole(x, .5, real), want)
    assert (got.logits[~want] == 0).all() and got.logits.shape == (len(x), SPACE.L, SPACE.V)


def test_without_rows_the_denoiser_runs_once_for_the_shapes():
    net, counter = Exact(SPACE, True), NFECounter()
    x = fully_masked(SPACE, slots(torch.tensor([1, 2, 3]), 3))
    real = x != SPACE.pad
    wanted = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1]]).bool()
    def where(x, t): return wanted[t]
    f = only_where(net.whole, where, counter)
    for t, want in enumerate(wanted):
        got = f(x, t, real)
        assert same(got, net.whole(x, t, real), want)
        assert (got.logits[~want] == 0).all()
        net.asked.pop()                                      # made by the comparison
    assert net.asked == [1, 2, 3] and counter.rows.tolist() == [2, 1, 2]


@few
@given(batches(calls=6), st.lists(st.sampled_from([.1, .5, .9]), min_size=6, max_size=6))
def test_a_tabulated_schedule_gives_the_same_values_and_is_evaluated_once(batch, times):
    calls, real = batch
    asked = []
    def schedule(t, real):
        asked.append((t, len(real)))
        return speeds(t, real)
    table = tabulated(schedule)
    parts = [real, real[:2], real[-1:], real.flip(0), real, real[:1]]   # the first contains all patterns
    for t, part in zip(times, parts): assert table(t, part).equal(speeds(t, part))
    kinds = len({tuple(r) for r in real.tolist()})
    assert sorted(asked) == sorted((t, kinds) for t in set(times))


@few
@given(batches(), batches())
def test_a_new_pattern_clears_the_table(a, b):
    table = tabulated(linear), tabulated(speeds)
    for real in a[1], b[1], a[1]:
        for f, plain in zip(table, (linear, speeds)): assert f(.3, real).equal(plain(.3, real))


def test_a_schedule_is_evaluated_once_per_time_of_a_run():
    asked, x = [], fully_masked(SPACE, slots(torch.tensor([3, 2, 1]*4), 3))
    def schedule(t, real):
        asked.append(t)
        return speeds(t, real)
    m = METHODS['random_topp09_remdm_cap_eta02']
    generate_rows(Exact(SPACE, True), schedule, SPACE, m, x, uniform_grid(9), batch=3)
    assert sorted(asked, reverse=True) == uniform_grid(9)[:-1].tolist()


@few
@given(batches(calls=5))
def test_a_row_that_did_not_change_is_cached(batch):
    calls, real = batch
    net, counter = Exact(SPACE, False), NFECounter()
    asked, last = [0]*len(real), [None]*len(real)
    f = cached_rows(net.whole, counter)
    for k, x in enumerate(calls):
        assert same(f(x, 1 - k/5, real), Exact(SPACE, False).whole(x, 0., real))
        for b, row in enumerate(x.tolist()): asked[b] += row != last[b]
        last = x.tolist()
        assert counter.rows.tolist() == asked
    assert sum(net.asked) == sum(asked)


@pytest.mark.parametrize('v', range(SPACE.V))
def test_the_first_call_counts_every_row_whatever_it_holds(v):
    counter = NFECounter()
    x = torch.full((3, SPACE.L), v)
    real = torch.ones(x.shape, dtype=torch.bool)
    f = cached_rows(Exact(SPACE, False).whole, counter)
    for _ in range(2): f(x, 1., real)
    assert counter.rows.tolist() == [1, 1, 1] and counter.rows.dtype is torch.long   # evaluations are whole


def test_another_batch_is_not_mistaken_for_the_last():
    net, counter = Exact(SPACE, False), NFECounter()
    f = cached_rows(net.whole, counter)
    x = fully_masked(SPACE, slots(torch.tensor([1, 2, 3]), 3))
    real = x != SPACE.pad
    f(x, 1., real)
    counter.rows = None                                        # the next batch has a count of its own
    assert same(f(x[1:], 1., real[1:]), net.whole(x[1:], 1., real[1:]))
    assert counter.rows.tolist() == [1, 1]


def deduplicated_trimmed(net, a, b): return deduplicated(trimmed(net))


def where_deduplicated_trimmed(net, a, b):
    return only_where(deduplicated(trimmed(net)), any_masked, a)


def deduplicated_where_trimmed(net, a, b):
    return deduplicated(only_where(trimmed(net), any_masked, a))


def cached_deduplicated_trimmed(net, a, b): return cached_rows(deduplicated(trimmed(net)), a)


def cached_where_deduplicated_trimmed(net, a, b):
    return cached_rows(where_deduplicated_trimmed(net, b, a), a)


def counted_cached_trimmed(net, a, b): return count_nfe(cached_rows(trimmed(net), b), a)


STACKS = [deduplicated_trimmed, where_deduplicated_trimmed, deduplicated_where_trimmed]
STACKS += [cached_deduplicated_trimmed, cached_where_deduplicated_trimmed, counted_cached_trimmed]


def name(f): return f.__name__


@pytest.mark.parametrize('stack', STACKS, ids=name)
@settings(max_examples=15, deadline=None)
@given(batches(calls=4))
def test_combined_wrappers_give_the_output_of_the_network(stack, batch):
    calls, real = batch
    outer, inner = NFECounter(), CountOfOtherRows()
    if stack is deduplicated_where_trimmed: outer, inner = inner, outer
    f = stack(Exact(SPACE, False), outer, inner)
    for x in calls:
        rows = masked(SPACE, x).any(1) if 'where' in name(stack) else slice(None)
        assert same(f(x, .5, real), Exact(SPACE, False).whole(x, .5, real), rows)


class CountOfOtherRows(NFECounter):
    "A counter for batches of changing size: only the sum has a meaning"
    def add(self, rows):
        before = 0 if self.rows is None else self.rows
        self.rows = rows.long().sum() + before


def unmasking_steps(states, last, b):
    "The states from which a token of a row is unmasked"
    after = [*(s.x for s in states[1:]), last]
    return [s.x[b] for s, x in zip(states, after) if (s.masked[b] & (x[b] != SPACE.mask)).any()]


def evaluations(m, timed, states, last):
    "Count for each row of a plain run the steps that needed an evaluation"
    rows = range(len(last))
    if m.policy.edit is not as_is: return [len(states)]*len(rows)
    if not m.policy.reads_network:
        used = [unmasking_steps(states, last, b) for b in rows]
        def again(x, before): return timed or not x.equal(before)      # a row that is evaluated again
        return [len(u[:1]) + sum(map(again, u[1:], u)) for u in used]
    def changes(b): return sum(not a.x[b].equal(z.x[b]) for a, z in zip(states, states[1:]))
    if not timed: return [1 + changes(b) for b in rows]
    trusts = m.family == 'davis_confidence' and m.params.get('trust', 'logits') == 'logits'
    reads = m.params.get('t_switch', 1) if trusts else 0
    def needed(b): return sum(bool(s.masked[b].any()) or s.t < reads for s in states)
    return [needed(b) for b in rows]


def speeds(t, real):
    "A schedule with an alpha for every position"
    a = linear(t, real)**torch.linspace(.5, 3, real.shape[1], dtype=torch.float64)
    return torch.where(real, a, 1.)


def one_pass(info): return info.extra == '0' and not info.needs


# one evaluation a step, and no heads
PLAIN = [k for k, m in METHODS.items() if one_pass(METHOD_INFO[m.family])]


@pytest.mark.parametrize('timed', [True, False], ids=['timed', 'free'])
@pytest.mark.parametrize('name', PLAIN)
@pytest.mark.parametrize('alpha', [linear, speeds], ids=['v1', 'v2'])
def test_generate_rows_gives_the_samples_of_the_plain_loop_and_counts_its_evaluations(name, timed, alpha):
    space = graph_space(5)
    m, net, states = METHODS[name], Exact(space, timed), []
    ts = m.times(17, alpha, torch.ones(1, space.L, dtype=torch.bool))
    x = fully_masked(space, slots(torch.tensor([5, 1, 4, 5, 2, 3]), 5))
    def keep_state(s, new, keep): states.append(s)
    proc, noise = Process(net.whole, alpha, space), Noise(7, torch.arange(6))
    asks_all = m.policy._replace(reads_network=True)
    plain = sample(proc, x, ts, asks_all, m.draw, noise, check=False, callback=keep_state)
    got = generate_rows(net, alpha, space, m, x, ts, seed=7, batch=4)
    assert got.x.equal(plain)
    assert got.nfe.tolist() == evaluations(m, timed, states, plain)


def row_counts(s, new, keep, b, mask):
    "The statistics of one row in one step; of `sigma` only if it has decoded positions"
    ours, was, unmasked = s.ours[b], s.decoded[b], new[b] != mask
    def at_ours(v): return v.expand_as(s.p)[b][ours]
    top, sigma = at_ours(s.sigma_max), (1 - keep)[b][was]
    row = dict(ours=int(ours.sum()), before=int(was.sum()), after=int((unmasked & ours).sum()))
    row['remasked'] = int((was & ~unmasked).sum())
    row['unmasked'] = int((s.masked[b] & unmasked).sum())
    row |= dict(alpha_s=float(at_ours(s.alpha_s).sum()), wanted=float(sigma.sum()))
    row |= dict(sigma_max=float(top.mean()), sigma_max_spread=float(top.std(correction=0)))
    if was.any(): row |= dict(sigma=float(sigma.mean()), sigma_spread=float(sigma.std(correction=0)))
    return row


def means(counts):
    "Means over six rows; shares of all our positions; sigma over the rows that have decoded ones"
    def mean(name): return sum(row[name] for row in counts)/6
    some = [row for row in counts if 'sigma' in row]
    plain = 'remasked', 'unmasked', 'wanted', 'sigma_max', 'sigma_max_spread'
    out = {name: mean(name) for name in plain}
    out |= {name: mean(name)/mean('ours') for name in ('before', 'after', 'alpha_s')}
    out |= {name: sum(row[name] for row in some)/max(1, len(some)) for name in ('sigma', 'sigma_spread')}
    return out


@pytest.mark.parametrize('name', [
    'llada_topp09_remdm_confidence_tsw10', 'random_topp09_remdm_cap_eta02_consistent',
    'random_topp09_remdm_confidence_tsw10_balanced', 'llada_topp09_remdm_cap_eta02_consistent'])
def test_step_statistics_equal_a_row_by_row_count(name):
    space, log, statistics, m = graph_space(5), [], StepStatistics(), METHODS[name]
    x, ts = fully_masked(space, slots(torch.tensor([5, 1, 4, 5, 2, 3]), 5)), uniform_grid(9)
    def callback(*seen):
        statistics(*seen)
        log.append(seen)
    generate_rows(Exact(space, True), speeds, space, m, x, ts, seed=7, batch=4, callback=callback)
    table, remasked = statistics.table(), [0]*6
    for k in range(9):                                       # two batches of nine steps
        each = [(*seen[:3], b) for seen in (log[k], log[k + 9]) for b in range(len(seen[1]))]
        counts = [row_counts(*row, space.mask) for row in each]
        want = dict(t=float(ts[k])) | means(counts)
        assert {n: float(table[n][k]) for n in want} == pytest.approx(want, abs=1e-9)
        for b, row in enumerate(counts): remasked[b] += row['remasked']
    assert statistics.remasks().tolist() == remasked
