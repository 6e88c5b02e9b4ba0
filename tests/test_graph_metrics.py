"""Every metric against a second implementation in plain python and networkx; invariances; bad input."""
import math
from collections import Counter, defaultdict
from itertools import accumulate, combinations, permutations, product

import networkx as nx
import numpy as np
import pytest
import torch

from remask.core.statistics import aggregate, means
from remask.evaluate import plan_rows
from remask.evaluate import graph_metrics as gm
from remask.domains.graphs import MASK, NO_EDGE, PAD, Graph, decode_graphs, encode_graphs, relate, slots
from remask.domains.plans import plan_tokens, plans

FORBIDDEN = {0: '1 2 3 4 5 6 7 8 9 10 11', 1: '2 3 4 5 6 7 8 9 10 11', 2: '1 3 5 6 7 8 9 10 11',
             3: '10', 4: '1 3 5 8 9 10 11', 5: '2 3 4 9 10 11', 6: '3 9 10', 7: '3 9 10', 8: '3 9 10',
             9: '2 3 6 10 11', 10: '1 2 3 4 5 6 7 8 9 11', 11: '9'}
FORBIDDEN = {(a, int(b)) for a, bs in FORBIDDEN.items() for b in bs.split()}
PUBLISHED = """validity/validity validity/inside_validity validity/spatial_transitivity coverage/diversity
    coverage/novelty coverage/mode_coverage_weighted coverage/mode_coverage_unweighted
    coverage/unique_archetypes distribution/node_js distribution/edge_js distribution/node_tv
    distribution/edge_tv distribution/rooms_w1
    structure/mmd_degree structure/mmd_clustering structure/mmd_spectral conditional/edge_js_weighted
    conditional/edge_tv_weighted conditional/degree_tv_weighted""".split()


def physical(N, seed, n_max=8):
    "Boxes dropped at random: relations that fit together, some graphs apart, few types so that plans repeat"
    rng = np.random.default_rng(seed)
    n = rng.integers(1, n_max + 1, N)
    types = rng.choice([0, 1, 2, 3, 7, 9, 10], (N, n_max))
    at = rng.integers(0, 200, (N, n_max, 2))
    boxes = np.concatenate([at, at + rng.integers(20, 120, (N, n_max, 2))], -1)
    x = torch.from_numpy(np.concatenate([types, relate(boxes)], 1))
    return torch.where(slots(torch.from_numpy(n), n_max), x, PAD)


def broken(N, seed, n_max=8):
    "Relations at random, some without any, and rows that cannot be read in four ways"
    rng = np.random.default_rng(seed)
    x = physical(N, seed, n_max).numpy()
    e = x[:, n_max:]
    e[:] = np.where(e == PAD, PAD, rng.integers(13, 24, e.shape))
    e[::5] = np.where(e[::5] == PAD, PAD, NO_EDGE)
    real = x != PAD
    for kind, k in product(range(4), range(0, N, 20)):
        row, where = x[k + kind], real[k + kind].nonzero()[0]
        if kind == 0: row[rng.choice(where)] = MASK
        if kind == 1: row[0] = 13 + rng.integers(10)
        if kind == 2: row[-1] = 3
        if kind == 3: row[0] = PAD
    return torch.from_numpy(x)


def shuffled(x, n_max, seed):
    "The same diagrams with their rooms renumbered"
    rng, graphs = np.random.default_rng(seed), decode_graphs(x, n_max)
    again = [renumbered(g, rng.permutation(len(g.types))) for g in graphs]
    return encode_graphs(again, n_max)


def renumbered(g, at):
    types = [0]*len(g.types)
    for i, t in enumerate(g.types): types[at[i]] = t
    edges = [ordered(int(at[i]), int(at[j]), r) for i, j, r in g.edges]
    return Graph(tuple(int(t) for t in types), tuple(sorted(edges)))


def ordered(i, j, r): return (i, j, r) if i < j else (j, i, 9 - r)


# ---- a second implementation, graph by graph

def read(row, M):
    "(graph, no mask left); a row that cannot be read is the graph without rooms"
    row = row.tolist()
    n = sum(v != PAD for v in row[:M])
    rooms, pairs = row[:n], [(*ij, v) for ij, v in zip(combinations(range(M), 2), row[M:])]
    inside = [(i, j, v) for i, j, v in pairs if j < n]
    padding = row[n:M] + [v for i, j, v in pairs if j >= n]
    good = n > 0 and all(0 <= v <= 12 for v in rooms) and all(13 <= v <= 23 for i, j, v in inside)
    if not good or any(v != PAD for v in padding): return Graph((), ()), MASK not in row
    edges = [(i, j, v - 13) for i, j, v in inside if v < NO_EDGE]
    return Graph(tuple(rooms), tuple(edges)), True


def bare(g):
    G = nx.Graph()
    G.add_nodes_from(range(len(g.types)))
    G.add_edges_from((i, j) for i, j, _ in g.edges)
    return G


def acyclic(g, before, after):
    D = nx.DiGraph()
    D.add_edges_from((i, j) for i, j, r in g.edges if r in before)
    D.add_edges_from((j, i) for i, j, r in g.edges if r in after)
    return nx.is_directed_acyclic_graph(D)


def contained(g):
    inner = [(i, j) for i, j, r in g.edges if r == 4]
    inner += [(j, i) for i, j, r in g.edges if r == 5]
    return not any((g.types[i], g.types[j]) in FORBIDDEN for i, j in inner)


def edge_share(g): return len(g.edges)/math.comb(len(g.types), 2)


def validity(graphs, no_mask):
    rows = []
    for g, clear in zip(graphs, no_mask):
        ok = len(g.types) > 0
        con = ok and nx.is_connected(bare(g))
        typ = ok and g.types.count(0) <= 1 and g.types.count(10) <= 1
        h = acyclic(g, (0, 1, 2), (7, 8, 9))
        v = acyclic(g, (0, 3, 8), (1, 6, 9))
        ins = contained(g)
        row = dict(validity=con and typ, connected=con, valid_types=typ, no_mask=clear, in_range=ok)
        row |= dict(inside_validity=ins, inside_validity_strict=ins and ok)
        row |= dict(spatial_transitivity=h and v, spatial_transitivity_strict=h and v and ok)
        rows.append(row | dict(h_consistent=h, v_consistent=v))
    out = {f'validity/{k}': np.mean([r[k] for r in rows]) for k in rows[0]}
    for n in {len(g.types) for g in graphs}:
        mine = [(r, g) for r, g in zip(rows, graphs) if len(g.types) == n]
        for k in 'validity connected valid_types spatial_transitivity h_consistent v_consistent'.split():
            out[f'validity/{k}_n{n}'] = np.mean([r[k] for r, _ in mine])
        if n > 1: out[f'structure/edge_present_n{n}'] = np.mean([edge_share(g) for _, g in mine])
    out['structure/edges_mean'] = np.mean([len(g.edges) for g in graphs if g.types])
    share = [edge_share(g) for g in graphs if len(g.types) > 1]
    if share: out['structure/edge_present'] = np.mean(share)
    return out


def coverage(graphs, train):
    N, seen, kinds = len(graphs), set(train), Counter(tuple(sorted(g.types)) for g in train)
    mine = {tuple(sorted(g.types)) for g in graphs}
    out = dict(diversity=len(set(graphs))/N, novelty=np.mean([g not in seen for g in graphs]))
    out['mode_coverage_unweighted'] = len(mine & set(kinds))/len(kinds)
    out['mode_coverage_weighted'] = sum(kinds[k] for k in mine if k in kinds)/len(train)
    out |= dict(unique_archetypes=len(mine), unique_archetypes_strict=len(mine - {()}))
    out['training_archetypes'] = len(kinds)
    return {f'coverage/{k}': v for k, v in out.items()}


def normal(counts):
    total = sum(counts)
    return [c/total for c in counts] if total else [1/len(counts)]*len(counts)


def KL(p, q, eps=1e-10):
    both = [(a, b + eps) for a, b in zip(p, q) if a > 1e-10]
    return sum(a*math.log(a/b) for a, b in both)


def JS(p, q):
    m = [(a + b)/2 for a, b in zip(p, q)]
    def to_m(h): return [(a, c) for a, c in zip(h, m) if a > 0]
    return sum(a*math.log(a/c) for a, c in to_m(p) + to_m(q))/2


def TV(p, q): return sum(abs(a - b) for a, b in zip(p, q))/2


DISTANCES = dict(js=JS, tv=TV, kl=KL)


def both_ways(h): return [a + b for a, b in zip(h, h[::-1])]


def marginals(graphs, M):
    t, e, n = Counter(), Counter(), Counter()
    for g in graphs:
        t.update(g.types)
        e.update(r for *_, r in g.edges)
        n[len(g.types)] += 1
    def counts(counter, keys): return [counter[k] for k in keys]
    return counts(t, range(13)), counts(e, range(10)), counts(n, range(1, M + 1))


def distribution(graphs, train, M):
    (t, e, n), (tt, te, tn) = marginals(graphs, M), marginals(train, M)
    out, q = {}, normal(tn)
    p = normal(n) if sum(n) else [1] + [0]*(M - 1)
    for k, d in DISTANCES.items():
        out[f'distribution/node_{k}'] = d(normal(t), normal(tt))
        out[f'distribution/edge_{k}'] = d(normal(e), normal(te))
        out[f'distribution/edge_{k}_sym'] = d(normal(both_ways(e)), normal(both_ways(te)))
    cumulative = zip(accumulate(p), accumulate(q))
    out['distribution/rooms_w1'] = sum(abs(a - b) for a, b in cumulative)
    return out | {'distribution/rooms_kl': KL(p, q)}


def by_pair(graphs, sym=False):
    out = defaultdict(np.zeros(10).tolist)
    for g in graphs:
        for i, j, r in g.edges:
            a, b = g.types[i], g.types[j]
            if a > b: a, b, r = b, a, 9 - r
            out[a, b][r] += 1
    for (a, b), h in out.items():
        if sym and a == b: h[:] = both_ways(h)
    return out


def by_type(graphs, M):
    out = defaultdict(np.zeros(M).tolist)
    for g in graphs:
        for i, k in bare(g).degree: out[g.types[i]][k] += 1
    return out


def grouped(have, want, use, name):
    out, w = {}, [sum(want[k]) for k in use]
    for kind, d in DISTANCES.items():
        v = [d(normal(have[k]), normal(want[k])) for k in use]
        out[name.format(kind)] = np.mean(v)
        out[name.format(kind + '_weighted')] = np.average(v, weights=w)
    return out


def conditional(graphs, train, M):
    want, deg = by_pair(train), by_type(train, M)
    def total(k): return sum(want[k])
    use = sorted(k for k in want if total(k) >= 5)
    top = sorted(use, key=total, reverse=True)[:20]
    kinds = [t for t in range(13) if sum(deg[t]) >= 20]
    pairs, halved = by_pair(graphs), by_pair(train, True)
    for (a, b), h in halved.items():
        if a == b: h[:] = [c/2 for c in h]
    out = grouped(pairs, want, use, 'conditional/edge_{}')
    out |= grouped(pairs, want, top, 'conditional/edge_{}_top20')
    out |= grouped(by_type(graphs, M), deg, kinds, 'conditional/degree_{}')
    out |= grouped(by_pair(graphs, True), halved, use, 'conditional/edge_{}_sym')
    numbers = dict(pairs_evaluated=len(use), pairs_evaluated_top20=len(top), types_evaluated=len(kinds))
    return out | {f'conditional/num_{k}': v for k, v in numbers.items()}


def vectors(graphs, M):
    deg, clu, spe = [], [], []
    for g in graphs:
        G, n = bare(g), len(g.types)
        d, c = np.zeros(M), np.zeros(10)
        for _, k in G.degree: d[k] += 1
        for v in nx.clustering(G).values(): c[min(int(10*v), 9)] += 1
        s = sorted(nx.normalized_laplacian_spectrum(G)) if n > 1 else [0.]
        deg.append(d/n); clu.append(c/n); spe.append(np.round(np.pad(s, (0, M - n)), 12))
    return dict(degree=np.array(deg), clustering=np.array(clu), spectral=np.array(spe))


def squared(a, b): return ((a[:, None] - b[None])**2).sum(-1)


def width(x, y):
    pairs = (x, x), (y, y), (x, y)
    every = np.concatenate([squared(a, b).ravel() for a, b in pairs])
    return math.sqrt(np.median(every[every > 0])/2) if (every > 0).any() else 1.


def gaussian(a, b, width):
    return np.exp(-squared(a, b)/(2*width*width))


def mmd2(x, y):
    s = width(x, y)
    def K(a, b): return gaussian(a, b, s)
    def off(k): return (k.sum() - np.trace(k))/(len(k)*(len(k) - 1))
    return off(K(x, x)) + off(K(y, y)) - 2*K(x, y).mean()


def sizes(graphs): return np.array([len(g.types) for g in graphs])


def structure(graphs, train, M):
    graphs = [g for g in graphs if g.types]
    a, b, out = vectors(graphs, M), vectors(train, M), {}
    for k in a: out[f'structure/mmd_{k}_unclipped'] = mmd2(b[k], a[k])
    n, m, values, weights = sizes(graphs), sizes(train), [], []
    for k in set(n):
        samples, plans = a['spectral'][n == k], b['spectral'][m == k]
        if len(samples) > 1 and len(plans) > 1:
            values.append(mmd2(plans, samples))
            weights.append(len(plans))
    out['structure/mmd_spectral_by_size_unclipped'] = np.average(values, weights=weights)
    return out | {k.replace('_unclipped', ''): max(v, 0) for k, v in out.items()}


def edgeless(x): return torch.where((x > 12) & (x < PAD), NO_EDGE, x)
def one_room(x): return x[x[:, 1] == PAD]


CASES = {} # name -> samples, training rows
CASES['like'] = physical(300, 1), physical(500, 2)
CASES['broken'] = broken(300, 3), physical(500, 2)
CASES['n14'] = broken(120, 4, 14), physical(200, 5, 14)
CASES['n3'] = broken(200, 6, 3), physical(300, 7, 3)
CASES['copies'] = torch.cat([physical(400, 2)[:100]]*2), physical(400, 2)
CASES['edgeless'] = edgeless(physical(60, 8)), physical(300, 2)
CASES['one room'] = one_room(physical(300, 9)), physical(300, 2)


@pytest.mark.parametrize('case', CASES)
def test_every_metric_equals_its_definition(case):
    x, train = CASES[case]
    M = int((8*x.shape[1] + 1)**.5 - 1)//2
    graphs, clear = zip(*(read(row, M) for row in x))
    want = [read(row, M)[0] for row in train]
    expect = validity(graphs, clear) | coverage(graphs, want)
    for part in distribution, conditional, structure: expect |= part(graphs, want, M)
    got = gm.evaluate(x, gm.reference(train))
    assert set(got) ^ set(expect) == {'coverage/diversity_iso', 'coverage/novelty_iso'}
    differences = {k: v - got[k] for k, v in expect.items()}
    off = {k: d for k, d in differences.items() if not abs(d) <= 1e-9}
    assert not off, off


def test_five_edges_and_twenty_rooms_are_enough():
    edge = ((0, 1, 2),)
    graphs = [Graph((1, 3), edge)]*5 + [Graph((1, 9), edge)]*4
    graphs += [Graph((1,), ())]*11 + [Graph((9,), ())]*15
    h = gm.histograms(plan_rows.parse(encode_graphs(graphs)))
    got = gm.conditional(h, h)
    assert (got['conditional/num_pairs_evaluated'], got['conditional/num_types_evaluated']) == (1, 1)


def test_the_published_names_are_all_there():
    got = gm.evaluate(physical(50, 1), gm.reference(physical(300, 2)))
    assert set(PUBLISHED) == set(gm.BETTER) and set(PUBLISHED) <= set(got)


# ---- the canonical row

def same_classes(a, b):
    return len(set(zip(a, b))) == len(set(a)) == len(set(b))


def test_canonical_rows_are_equal_exactly_when_the_diagrams_are():
    rng, graphs = np.random.default_rng(0), []
    for _ in range(1500):  # few types and relations: many equal diagrams
        n = int(rng.integers(1, 6))
        some = [ij for ij in combinations(range(n), 2) if rng.random() < .5]
        edges = [(i, j, int(rng.choice([2, 7, 3]))) for i, j in some]
        graphs.append(Graph(tuple(int(t) for t in rng.integers(0, 2, n)*9), tuple(edges)))
    def least(g): return min(renumbered(g, at) for at in permutations(range(len(g.types))))
    brute = [least(g) for g in graphs]
    rows = [r.tobytes() for r in plan_rows.canonical(plan_rows.parse(encode_graphs(graphs)))]
    assert 100 < len(set(brute)) < 1000 and same_classes(brute, rows)


def test_the_canonical_row_is_the_same_diagram():
    x = physical(200, 1)
    again = decode_graphs(torch.from_numpy(plan_rows.canonical(plan_rows.parse(x))).long())
    assert all(isomorphic(directed(a), directed(b)) for a, b in zip(decode_graphs(x), again))


def directed(g):
    D = nx.DiGraph()
    for i, t in enumerate(g.types): D.add_node(i, t=t)
    for i, j, r in g.edges:
        D.add_edge(i, j, r=r)
        D.add_edge(j, i, r=9 - r)
    return D


def isomorphic(a, b):
    def same_type(u, v): return u['t'] == v['t']
    def same_relation(u, v): return u['r'] == v['r']
    return nx.is_isomorphic(a, b, same_type, same_relation)


def symmetric(n_max):
    "Diagrams whose rooms have equal types and degrees"
    def ring(a, b): return [(i, i + 1 if i + 1 < b else a) for i in range(a, b)]
    def graph(arcs):
        edges = [ordered(i, j, 2) for i, j in arcs]
        return Graph((9,)*n_max, tuple(sorted(edges)))
    h = n_max//2
    two_rings = ring(0, h) + ring(h, 2*h)
    matching = [(2*i, 2*i + 1) for i in range(h)]
    steps = range(1, (n_max + 1)//2)
    tournament = [(i, (i + k) % n_max) for i, k in product(range(n_max), steps)]
    return [graph(arcs) for arcs in ([], ring(0, n_max), two_rings, matching, tournament)]


@pytest.mark.parametrize('n_max', [6, 8, 14])
def test_symmetric_diagrams_keep_their_row_under_renumbering(n_max):
    graphs, rng = symmetric(n_max), np.random.default_rng(1)
    many = encode_graphs([renumbered(g, rng.permutation(n_max)) for g in graphs for _ in range(30)], n_max)
    rows = [r.tobytes() for r in plan_rows.canonical(plan_rows.parse(many))]
    assert same_classes(rows, np.repeat(range(len(graphs)), 30).tolist())


def test_renumbering_changes_the_published_definitions_only():
    x, train = physical(400, 1)[:300], physical(500, 2)
    ref = gm.reference(train)
    a, b = gm.evaluate(x, ref), gm.evaluate(shuffled(x, 8, 3), ref)
    moved = {k for k in a if abs(a[k] - b[k]) > 1e-9}
    published = {k for k in a if '/edge_' in k and k[0] in 'dc' and not k.endswith('sym')}
    assert moved <= published | {'coverage/diversity', 'coverage/novelty'}
    assert {'distribution/edge_tv', 'conditional/edge_tv'} <= moved


def test_copies_in_other_slots_are_diverse_and_new_as_published_only():
    edges = (0, 1, 2), (0, 2, 3), (0, 3, 5), (1, 4, 6), (2, 5, 1)
    g, rng = Graph((0, 1, 2, 3, 7, 9), edges), np.random.default_rng(0)
    places = {tuple(rng.permutation(6).tolist()) for _ in range(80)}
    copies = encode_graphs([renumbered(g, at) for at in places])
    got = gm.evaluate(copies, gm.reference(torch.cat([physical(300, 2), encode_graphs([g])])))
    assert got['coverage/diversity'] == 1 and got['coverage/novelty'] > .9
    assert got['coverage/diversity_iso'] == 1/len(copies) and got['coverage/novelty_iso'] == 0


def test_iso_metrics_on_plans_without_copies_agree_with_networkx():
    x, train = physical(60, 1)[:30], physical(60, 1)[20:60]
    x = torch.cat([x, shuffled(x[:10], 8, 5)])
    A, B = [directed(g) for g in decode_graphs(x)], [directed(g) for g in decode_graphs(train)]
    got = gm.evaluate(x, gm.reference(train))
    first = [not any(isomorphic(a, b) for b in A[:k]) for k, a in enumerate(A)]
    assert got['coverage/diversity_iso'] == np.mean(first)
    assert got['coverage/novelty_iso'] == np.mean([not any(isomorphic(a, b) for b in B) for a in A])


# ---- distinguished from held-out plans

def plain_features(g, flags):
    "`features` of one graph, in plain python"
    G, n = bare(g), len(g.types)
    degree = [G.degree(i) for i in range(n)]
    either = Counter(min(r, 9 - r) for _, _, r in g.edges)
    clustering = sum(nx.clustering(G).values())
    by_type = [sum(d for d, u in zip(degree, g.types) if u == t) for t in range(13)]
    largest = (sorted(degree, reverse=True) + [0]*8)[:8]
    triangles = sum(nx.triangles(G).values())/3
    rooms, relations = [g.types.count(t) for t in range(13)], [either[r] for r in range(5)]
    totals = [n, len(g.edges), triangles, clustering]
    return [*rooms, *by_type, *largest, *relations, *totals, *flags]


def test_features_equal_their_definition():
    x = physical(100, 1)
    r = plan_rows.parse(x)
    flags = np.stack(list(plan_rows.flags(r).values()), 1)
    want = [plain_features(g, f) for g, f in zip(decode_graphs(x), flags)]
    assert np.abs(gm.features(r) - np.array(want)).max() < 1e-5


def test_statements_count_each_pair_of_rooms_once():
    x = physical(100, 1)
    made = gm._statements(plan_rows.parse(x))
    for g, row in zip(decode_graphs(x), made):
        want = Counter()
        for i, j, r in g.edges:
            u, v = g.types[i], g.types[j]
            a, b, r = min((u, v, r), (v, u, 9 - r))
            want[(a*13 + b)*10 + r] += 1
        assert {k: row[k] for k in row.nonzero()[0]} == want


def test_the_two_sample_test_does_not_depend_on_slots():
    x = physical(200, 1)
    a, b = (plan_rows.parse(v) for v in (x, shuffled(x, 8, 3)))
    for f in gm.features, gm._statements: assert (f(a) == f(b)).all()


@pytest.fixture(scope='module')
def two_thousand(): return plan_tokens(*plans(2000))


def test_plans_cannot_be_distinguished_from_other_plans(two_thousand):
    area = gm.c2st(two_thousand[:1000], two_thousand[1000:])
    assert abs(area - .5) < .06  # four standard errors of an area under the curve of 1000 against 1000
    assert area == gm.c2st(two_thousand[:1000], two_thousand[1000:])


@pytest.mark.parametrize('spoil, least', [('relations', .8), ('types', .8), ('unreadable', .65)])
def test_defective_samples_are_distinguished(two_thousand, spoil, least):
    eight = two_thousand[(two_thousand[:, :8] != PAD).all(1)]
    half = len(eight)//2
    x, held = eight[:half].clone(), eight[half:2*half]
    if spoil == 'relations': x[:, 8:] = x[:, 8:].roll(1, 0)
    if spoil == 'types': x[:, 0], x[:, 1] = x[:, 1].clone(), 6
    if spoil == 'unreadable': x[::2, 3] = MASK
    assert gm.c2st(x, held) > least


def test_as_many_samples_as_plans_and_no_opponent_twice(two_thousand):
    with pytest.raises(ValueError, match='5 samples against 6 plans: give equally many'):
        gm.c2st(two_thousand[:5], two_thousand[:6])
    with pytest.raises(ValueError, match='4 samples .* at least 5'):
        gm.c2st(two_thousand[:4], two_thousand[:4])
    some = torch.arange(50)[:, None]
    drawn = [gm.opponents(some, 30, s)[:, 0].tolist() for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 30
    with pytest.raises(ValueError, match='51 opponents asked of 50'): gm.opponents(some, 51)


# ---- invariances and bounds

def test_the_training_rows_against_themselves():
    x = physical(400, 2)
    got = gm.evaluate(x, gm.reference(x))
    assert got['coverage/novelty'] == got['coverage/novelty_iso'] == 0
    assert abs(got['coverage/mode_coverage_weighted'] - 1) < 1e-12
    assert got['coverage/mode_coverage_unweighted'] == 1
    for k, v in got.items():
        if k.startswith(('distribution', 'conditional')) and '/num' not in k: assert abs(v) < 1e-6, k
        if '/mmd' in k: assert v <= 1e-12, k


@pytest.mark.parametrize('case', CASES)
def test_every_metric_is_finite_and_every_share_is_between_0_and_1(case):
    x, train = CASES[case]
    for k, v in gm.evaluate(x, gm.reference(train)).items():
        assert np.isfinite(v), k
        if k.startswith(('validity', 'coverage')) and 'archetypes' not in k: assert 0 <= v <= 1, k
        if '_tv' in k: assert 0 <= v <= 1, k
        if '_js' in k: assert -1e-12 <= v <= math.log(2) + 1e-12, k
        if '/mmd' in k and 'unclipped' not in k: assert 0 <= v <= 2, k


def test_the_order_of_the_rows_does_not_matter():
    x, ref = broken(200, 3), gm.reference(physical(300, 2))
    a, b = gm.evaluate(x, ref), gm.evaluate(x.flip(0), ref)
    assert all(abs(a[k] - b[k]) < 1e-12 for k in a)


def test_unreadable_rows_as_published_and_strict():
    good, ref = physical(90, 1)[:90], gm.reference(physical(300, 2))
    bad = torch.full((10, 36), MASK)
    a, b = gm.evaluate(good, ref), gm.evaluate(torch.cat([good, bad]), ref)
    def counted_as_true(k): assert abs(b[k] - (.9*a[k] + .1)) < 1e-12
    def counted_as_false(k, k_strict=None): assert abs(b[k_strict or k] - .9*a[k]) < 1e-12
    for k in ('validity/inside_validity', 'validity/spatial_transitivity'):
        counted_as_true(k)
        counted_as_false(k, k + '_strict')
    counted_as_true('coverage/novelty')
    counted_as_false('coverage/novelty_iso')
    counted_as_false('validity/validity')
    counted_as_false('coverage/diversity_iso')
    assert b['coverage/unique_archetypes'] == a['coverage/unique_archetypes'] + 1
    assert b['coverage/unique_archetypes_strict'] == a['coverage/unique_archetypes_strict']


def test_nothing_readable_is_undefined_never_perfect():
    got = gm.evaluate(torch.full((20, 36), MASK), gm.reference(physical(300, 2)))
    assert got['validity/validity'] == 0 and not any('/mmd' in k for k in got)
    assert got['distribution/node_tv'] > .2


# ---- the median, weights and intervals

@pytest.mark.parametrize('seed', range(40))
def test_the_median_is_that_of_numpy(seed):
    rng = np.random.default_rng(seed)
    def points():
        n = int(rng.integers(2, 90))
        return rng.integers(0, 1 + seed % 7, (n, 3))/3
    x, y = points(), points()
    if seed % 3 == 0: x, y = rng.random(x.shape), rng.random(y.shape)**9
    k = gm.kernel(gm.cloud(np.full(len(x), 3), x), y)
    s = width(x, y)
    assert np.abs(k.yy[np.ix_(k.point, k.point)] - gaussian(y, y, s)).max() < 1e-12
    v = np.round(rng.random(300), seed % 5)
    v = v*rng.choice([1e-9, 1, 1e6])
    w = rng.integers(1, 5, 300)
    full = np.repeat(v, w)
    assert gm._median(v, w.astype(float)) == (np.median(full[full > 0]) if full.any() else 1)


def test_weights_are_repetitions():
    x = broken(150, 3)
    r, w = plan_rows.parse(x), np.random.default_rng(0).integers(0, 4, 150).astype(float)
    again = plan_rows.parse(x.repeat_interleave(torch.from_numpy(w).long(), 0))
    for a, b in zip(gm.histograms(r, w), gm.histograms(again)): assert np.array_equal(a, b)
    a = means(plan_rows.flags(r) | plan_rows.density(r), w[None])
    b = means(plan_rows.flags(again) | plan_rows.density(again), np.ones((1, int(w.sum()))))
    assert all(abs(a[k][0] - b[k][0]) < 1e-12 for k in a)


def test_a_weighted_mmd_leaves_out_pairs_of_one_sample_with_itself():
    x, ref = physical(40, 3), gm.reference(physical(100, 2))
    at = gm.topology(plan_rows.parse(x))['degree']
    w = np.random.default_rng(0).integers(0, 4, 40).astype(float)
    k = gm.kernel(ref.clouds['degree'], at)
    full, near = k.yy[np.ix_(k.point, k.point)], k.xy[k.point]
    different = [(i, j) for i in range(40) for j in range(40) if i != j]
    within = sum(w[i]*w[j]*full[i, j] for i, j in different)
    within /= sum(w[i]*w[j] for i, j in different)
    between = (w @ near)/w.sum()
    assert abs(gm.mmd2(k, w[None])[0] - (k.xx + within - 2*between)) < 1e-12


def test_bootstrap_intervals_are_those_of_a_share():
    x, ref = physical(500, 3), gm.reference(physical(500, 2))
    got, ci = gm.evaluate(x, ref), gm.bootstrap(x, ref, n=1000)
    p = got['validity/connected']
    half = 1.96*math.sqrt(p*(1 - p)/500)
    assert np.allclose(ci['validity/connected'], (p - half, p + half), atol=.012)
    for k in PUBLISHED:
        counts_distinct = k.startswith('coverage') and 'novelty' not in k
        assert (k in ci) != counts_distinct
        if k in ci: assert ci[k][0] <= ci[k][1]
    lo, hi = ci['structure/mmd_degree_unclipped']
    assert lo < got['structure/mmd_degree_unclipped'] < hi


# ---- the reference, the held-out reference, bad input

def test_more_than_5000_training_rows_use_the_published_subset():
    x = physical(5200, 1)
    some = np.random.RandomState(42).choice(5200, 5000, replace=False)
    for a, b in zip(gm.reference(x).clouds.values(), gm.reference(x[some]).clouds.values()):
        assert np.array_equal(a.at, b.at)
        assert np.array_equal(a.w, b.w) and a.w.sum() == 5000


@pytest.mark.parametrize('n_max', [8, 14])
def test_a_saved_reference_gives_the_same_metrics(tmp_path, n_max):
    ref, x = gm.reference(physical(300, 2, n_max)), broken(100, 3, n_max)
    gm.save_reference(ref, tmp_path/'ref.safetensors')
    assert gm.evaluate(x, gm.load_reference(tmp_path/'ref.safetensors')) == gm.evaluate(x, ref)


def test_the_held_out_reference_is_of_as_many_held_out_plans():
    x, ref = physical(300, 3), gm.reference(physical(500, 2))
    runs = gm.heldout(x, ref, 100, seeds=(0, 1))
    assert runs == gm.heldout(x, ref, 100, seeds=(0, 1)) and runs[0] != runs[1]
    every = gm.heldout(x, ref, 300, seeds=(5,))[0]
    assert every['coverage/diversity'] == gm.evaluate(x, ref)['coverage/diversity']
    mean, std = aggregate(runs)['validity/validity']
    v = [r['validity/validity'] for r in runs]
    assert (mean, std) == (np.mean(v), np.std(v))


def test_ids_may_come_as_bytes_or_arrays():
    x, ref = broken(100, 3), gm.reference(physical(300, 2))
    assert gm.evaluate(x, ref) == gm.evaluate(x.to(torch.uint8), ref) == gm.evaluate(x.numpy(), ref)


def load_damaged(folder):
    (folder/'cut').write_bytes(b'1234567')
    return gm.load_reference(folder/'cut')


@pytest.mark.parametrize('x, word', [
    (torch.zeros(0, 36).long(), 'N > 0'), (torch.zeros(3, 35).long(), 'n_max'),
    (torch.full((3, 36), 77), '0..25'), (physical(3, 0, 14), 'another n_max')])
def test_bad_rows_are_named(x, word):
    with pytest.raises(ValueError, match=word): gm.evaluate(x, gm.reference(physical(100, 2)))


def test_bad_references_and_requests_are_named(tmp_path):
    with pytest.raises(ValueError, match='training row'): gm.reference(broken(40, 3))
    with pytest.raises(ValueError, match='too few training rows'):
        gm.evaluate(physical(20, 0), gm.reference(physical(2, 1)))
    with pytest.raises(ValueError, match='20 held-out'):
        gm.heldout(physical(20, 0), gm.reference(physical(100, 2)), 30)
    with pytest.raises(ValueError, match='save_reference'): gm.load_reference(tmp_path/'missing')
    with pytest.raises(ValueError, match='save_reference'): load_damaged(tmp_path)
