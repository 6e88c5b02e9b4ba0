"Graphs: the row of tokens, the relation rule, our own files, the split."
import gzip, json, os
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from remask.domains import readers
from remask.domains import graphs as G
from remask.domains.graphs import MASK, NO_EDGE, N_ROOMS, PAD, Graph

few = settings(max_examples=60, deadline=None)

# Three records of the Graph2Plan data set, each: room types; boxes (x0,y0,x1,y1, y down); edges
REAL_RECORDS = """
7 7 3 9 2 0 9 1
115,69,153,115 152,102,199,141 152,140,199,161 198,160,217,188 152,160,199,188 56,114,153,188 40,114,57,165 \
56,69,115,115
0,5,3 0,1,0 0,7,7 1,5,7 1,2,3 2,5,7 2,3,0 2,4,3 3,4,7 4,5,7 5,6,7 5,7,6 6,7,1

1 3 6 0 11 11 4 2
68,154,117,205 138,123,189,153 138,152,189,205 68,53,139,169 116,168,129,205 128,168,139,205 138,83,189,124 \
138,53,189,84
0,3,6 0,4,2 1,3,7 1,2,3 1,6,6 2,5,7 2,3,9 3,6,2 3,4,0 3,5,0 3,7,1 4,5,2 6,7,6

7 1 9 3 0 2
67,142,135,197 134,142,191,197 134,196,191,216 67,101,111,143 89,42,191,143 67,42,90,102
0,4,6 0,1,2 0,2,0 0,3,6 1,4,6 1,2,3 3,4,2 3,5,6 4,5,7
"""


def real_record(text):
    "Types, boxes and edges of a record"
    types, box, edges = ([tuple(map(int, v.split(','))) for v in line.split()] for line in text.splitlines())
    return tuple(t for t, in types), box, edges


REAL = [real_record(text) for text in REAL_RECORDS.strip().split('\n\n')]


@st.composite
def graphs(draw, n_max):
    n = draw(st.integers(1, n_max))
    types = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    pairs = [*combinations(range(n), 2)]
    at = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    edges = [(i, j, draw(st.integers(0, 9))) for i, j in sorted(at)]
    return Graph(tuple(types), tuple(edges))


@st.composite
def some_graphs(draw):
    n_max = draw(st.sampled_from([4, 8, 14]))
    return n_max, draw(st.lists(graphs(n_max), min_size=1, max_size=4))


def boxes(high, n=2):
    side = st.lists(st.integers(0, high), min_size=2, max_size=2, unique=True).map(sorted)
    def corners(sides):
        (x0, x1), (y0, y1) = sides
        return x0, y0, x1, y1
    box = st.tuples(side, side).map(corners)
    return st.lists(box, min_size=n, max_size=n)


# ---- the row of tokens

@few
@given(some_graphs())
def test_encode_decode_is_exact_both_ways(case):
    n_max, gs = case
    x = G.encode_graphs(gs, n_max)
    assert G.decode_graphs(x, n_max) == gs
    assert torch.equal(G.encode_graphs(G.decode_graphs(x, n_max), n_max), x)


@few
@given(some_graphs())
def test_row_follows_the_layout(case):
    n_max, gs = case
    n = torch.tensor([len(g.types) for g in gs])
    x, space = G.encode_graphs(gs, n_max), G.graph_space(n_max)
    assert torch.equal(x != PAD, G.slots(n, n_max))
    row, position = (x != PAD).nonzero().T
    assert space.legal[position, x[row, position]].all()
    for g, row in zip(gs, x.tolist()):
        rel = {(i, j): N_ROOMS + r for i, j, r in g.edges}
        pos = n_max
        for i in range(n_max):
            assert row[i] == (g.types[i] if i < len(g.types) else PAD)
            for j in range(i + 1, n_max):
                assert row[pos] == (rel.get((i, j), NO_EDGE) if j < len(g.types) else PAD)
                pos += 1
        assert pos == len(row)


@pytest.mark.parametrize('g, why', [
    (Graph((), ()), '0 rooms'), (Graph((0,)*9, ()), '9 rooms'), (Graph((13,), ()), 'unknown room type 13'),
    (Graph((-1,), ()), 'unknown room type -1'), (Graph((0, 1), ((1, 1, 0),)), 'self-loop at room 1'),
    (Graph((0, 1), ((1, 0, 0),)), 'edge (1,0)'), (Graph((0, 1), ((0, 2, 0),)), 'edge (0,2)'),
    (Graph((0, 1), ((0, 1, 10),)), 'unknown relation 10'),
    (Graph((0, 1), ((0, 1, 3), (0, 1, 4))), 'two edges')])
def test_encode_refuses(g, why):
    with pytest.raises(ValueError) as e: G.encode_graphs([Graph((0,), ()), g])
    assert 'graph 1' in str(e.value) and why in str(e.value)


@pytest.mark.parametrize('at, token', [(0, MASK), (0, NO_EDGE), (8, MASK), (8, 3), (35, 0)])
def test_decode_refuses_what_is_not_clean(at, token):
    x = G.encode_graphs([Graph((0,)*8, ())]*3)
    x[1, at] = token
    with pytest.raises(ValueError, match='row 1'): G.decode_graphs(x)


# ---- relations from boxes

def centre(u): return Fraction(u[0] + u[2], 2), Fraction(u[1] + u[3], 2)


def scalar_relation(u, v):
    "The rule once more: nudge a centre that lies on a line until it lies in one of nine open cells"
    if all(u[k] < v[k] for k in (0, 1)) and all(u[k] > v[k] for k in (2, 3)): return 5
    if all(u[k] >= v[k] for k in (0, 1)) and all(u[k] <= v[k] for k in (2, 3)): return 4
    x, y = centre(u)
    v_x, v_y = centre(v)
    dx, dy, eps = x - v_x, y - v_y, Fraction(1, 10**6)
    if v[0] <= x <= v[2] and v[1] <= y <= v[3]:   # in the box or on its rim: outwards
        if x in (v[0], v[2]) or y in (v[1], v[3]): x, y = x + eps*dx, y + eps*dy
    else: x, y = x - eps*dy, y + eps*dx           # outside: clockwise, as seen with y down
    column = 'left' if x < v[0] else 'right' if x > v[2] else ''
    row = 'above' if y < v[1] else 'below' if y > v[3] else ''
    name = f'{column}-{row}' if column and row else row or (f'{column}-of' if column else 'inside')
    return G.RELATIONS.index(name)


def scalar_near(u, v, th):
    gap_x, gap_y = (max(v[k] - u[k + 2], u[k] - v[k + 2]) for k in (0, 1))
    return gap_x <= th and gap_y <= th


def scalar_token(u, v, th): return N_ROOMS + scalar_relation(u, v) if scalar_near(u, v, th) else NO_EDGE


def check_rule(pair_list, th):
    want = [scalar_token(u, v, th) for u, v in pair_list]
    assert G.relate(pair_list, th)[:, 0].tolist() == want


def test_relate_is_the_rule_for_every_pair_of_small_boxes():
    sides = list(combinations(range(6), 2))
    box = [(x0, y0, x1, y1) for x0, x1 in sides for y0, y1 in sides]
    check_rule([(u, v) for u in box for v in box if v[1] == 2 or v[0] == 2], 1)  # every tie is among them


@settings(max_examples=100, deadline=None)
@given(st.one_of(boxes(12), boxes(40)), st.integers(0, 6))
def test_relate_is_the_rule(pair, th): check_rule([pair], th)


@pytest.mark.parametrize('th', range(6))
@pytest.mark.parametrize('types, box, edges', REAL)
def test_relate_gives_the_real_records(types, box, edges, th):
    tokens, pairs = G.relate(box, th).tolist(), combinations(range(len(box)), 2)
    got = {(i, j, x - N_ROOMS) for (i, j), x in zip(pairs, tokens) if x != NO_EDGE}
    assert got == set(edges)


def test_real_records_have_35_relations(): assert sum(len(e) for _, _, e in REAL) == 35


@few
@given(boxes(60, 5), st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_relate_does_not_depend_on_where_the_plan_lies(box, dx, dy):
    assert (G.relate(box) == G.relate(np.array(box) + [dx, dy, dx, dy])).all()


@few
@given(boxes(60), st.booleans())
def test_a_mirrored_plan_has_mirrored_relations(pair, across):
    (u, v), a = np.array(pair), 0 if across else 1
    centre = u[[0, 1]] + u[[2, 3]]
    if (np.repeat(centre[None], 2, 0) == 2*v.reshape(2, 2)).any(): return # a tie has no mirror image
    flip = np.array(pair)
    flip[:, [a, a + 2]] = 100 - flip[:, [a + 2, a]]
    swap = {'left': 'right', 'right': 'left'} if across else {'above': 'below', 'below': 'above'}
    def mirror(x):
        if x == NO_EDGE: return x
        name = G.RELATIONS[x - N_ROOMS].split('-')
        return N_ROOMS + G.RELATIONS.index('-'.join(swap.get(w, w) for w in name))
    assert G.relate(flip).tolist() == [mirror(G.relate(pair)[0])]


@few
@given(boxes(20))
def test_surrounding_and_inside_are_converse(pair):
    if G.relate(pair)[0] == N_ROOMS + 5: assert G.relate(pair[::-1])[0] == N_ROOMS + 4


@few
@given(st.lists(boxes(60, 4), min_size=1, max_size=3))
def test_relate_of_many_plans_is_that_of_each(plans):
    assert (G.relate(plans) == np.stack([G.relate(p) for p in plans])).all()


def test_relate_small_integers_do_not_wrap():
    box = np.array([(0, 0, 200, 200), (202, 0, 250, 200)])
    assert G.relate(box.astype(np.uint8)).tolist() == G.relate(box).tolist() == [N_ROOMS + 2]
    with pytest.raises(ValueError, match='float64'): G.relate(box + .5)


# ---- our files

@few
@given(some_graphs())
def test_jsonl_round_trip(tmp_path_factory, case):
    n_max, gs = case
    f = tmp_path_factory.mktemp('g')/'a.jsonl'
    readers.write_jsonl(f, gs)
    assert readers.read_jsonl(f, n_max) == gs
    first = f.read_bytes()
    readers.write_jsonl(f, readers.read_jsonl(f, n_max))
    assert f.read_bytes() == first and len(first.splitlines()) == len(gs)


@pytest.mark.parametrize('line, why', [
    ('{"types":[7,1],"edges":[[0,1', 'delimiter'), ('[1]', 'is no record'), ('null', 'is no record'),
    ('{"types":[1]}', 'no types and edges'), ('{"types":[true],"edges":[]}', 'not a whole number'),
    ('{"types":[1.0],"edges":[]}', 'not a whole number'),
    ('{"types":["1"],"edges":[]}', 'not a whole number'),
    ('{"types":3,"edges":[]}', 'iterable'), ('{"types":[1,2],"edges":[[0,1]]}', 'form [i,j,relation]'),
    ('{"types":[1,2],"edges":[[0,0,1]]}', 'self-loop'),
    ('{"types":[1,99],"edges":[]}', 'unknown room type 99'),
    ('{"types":[1,2],"edges":[[0,1,1],[0,1,2]]}', 'two edges'),
    (json.dumps(dict(types=[0]*9, edges=[])), 'n_max=8'),
    ('\x00\xff', 'line 2')])
def test_a_corrupt_line_is_named(tmp_path, line, why):
    f = tmp_path/'bad.jsonl'
    f.write_text('{"types":[1],"edges":[]}\n' + line + '\n{"types":[1],"edges":[]}\n')
    with pytest.raises(ValueError) as e: readers.read_jsonl(f)
    assert f'{f}, line 2: ' in str(e.value) and why in str(e.value) and 'correct or delete' in str(e.value)


@few
@given(some_graphs())
def test_graphs_are_read_from_every_form_of_json(tmp_path_factory, case):
    n_max, gs = case
    f = tmp_path_factory.mktemp('g')/'a.jsonl'
    readers.write_jsonl(f, gs)
    lines = f.read_text().split('\n')[:-1]
    with_mark, array = '\ufeff' + '\r\n\r\n'.join(lines), '[' + ',\n'.join(lines) + ']'
    blank_lines = '\n' + '\n \n'.join(lines)
    zipped = f.with_name('a.jsonl.gz')
    for text in (with_mark, array, blank_lines) if gs else ():
        f.write_text(text, encoding='utf-8', newline='')
        assert readers.read_jsonl(f, n_max) == gs
        assert readers.read_graphs(f, n_max=n_max).graphs == gs
        zipped.write_bytes(gzip.compress(text.encode()))
        assert readers.read_graphs(zipped, n_max=n_max).graphs == gs


def test_the_line_of_a_fault_counts_blank_lines(tmp_path):
    (tmp_path/'a.jsonl').write_text('\n{"types":[1],"edges":[]}\n\n{"types":[1,99],"edges":[]}\n')
    with pytest.raises(ValueError, match='a.jsonl, line 4: unknown room type 99'):
        readers.read_jsonl(tmp_path / 'a.jsonl')
    (tmp_path/'a.json').write_text('[{"types":[1],"edges":[]},\n{"types":[1,99],"edges":[]}]')
    with pytest.raises(ValueError, match='a.json, record 2: unknown room type 99'):
        readers.read_jsonl(tmp_path / 'a.json')
    (tmp_path/'a.jsonl').write_text('{"types":[NaN],"edges":[]}')
    with pytest.raises(ValueError, match='a.jsonl, line 1: an id is not a whole number'):
        readers.read_jsonl(tmp_path / 'a.jsonl')


@pytest.mark.parametrize('text', ['', '\n', ' \n\n'])
def test_an_empty_file_is_an_error(tmp_path, text):
    (tmp_path/'e.jsonl').write_text(text)
    with pytest.raises(ValueError, match='e.jsonl is empty'): readers.read_jsonl(tmp_path/'e.jsonl')


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(OSError, match='no.jsonl could not be read'): readers.read_jsonl(tmp_path/'no.jsonl')
    with pytest.raises(OSError, match='could not be read'): readers.read_jsonl(tmp_path)


@pytest.mark.parametrize('step', ['replace', 'fsync'])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch, step):
    f = tmp_path/'a.jsonl'
    readers.write_jsonl(f, [Graph((0,), ())])
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match='a.jsonl could not be written .No space left'):
        readers.write_jsonl(f, [Graph((1,), ())])
    assert [p.name for p in tmp_path.iterdir()] == ['a.jsonl']
    assert readers.read_jsonl(f) == [Graph((0,), ())]


# ---- the split

@few
@given(st.integers(0, 3000), st.integers(0, 5))
def test_split_is_a_partition(n, seed):
    s = G.split_indices(n, seed)
    assert torch.equal(torch.cat(s).sort().values, torch.arange(n))
    assert [len(p) for p in s[:2]] == [int(.8*n), int(.1*n)]
    assert all(torch.equal(a, b) for a, b in zip(s, G.split_indices(n, seed)))


def test_split_is_the_published_one():
    order = torch.randperm(80_788, generator=torch.Generator('cpu').manual_seed(42))
    assert torch.equal(G.split_indices(80_788).train, order[:64_630])
    assert torch.equal(G.split_indices(80_788).test, order[72_708:])


def test_split_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    a = torch.rand(3)
    torch.manual_seed(1)
    G.split_indices(50)
    assert torch.equal(torch.rand(3), a)


@pytest.mark.parametrize('fractions', [(.8, .1, .2), (.5, .2, .2), (1.2, -.1, -.1)])
def test_split_refuses_shares_that_are_negative_or_do_not_sum_to_1(fractions):
    with pytest.raises(ValueError, match='shares >= 0 that sum to 1'):
        G.split_indices(10, fractions=fractions)
    assert len(G.split_indices(10, fractions=(.8, .1, .1 + 9e-7)).train) == 8
