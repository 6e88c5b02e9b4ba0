"Readers of published files: Graph2Plan's data.mat, ResPlan's pickle and lines."
import json, os, pathlib, pickle
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from scipy.io import savemat

from remask.domains import readers
from remask.domains import graphs as G
from remask.domains.graphs import Graph
from remask.domains.readers import Room

LIVING = Room('L', 'living', (0., 0., 8., 5.), 40.)
WEST = Room('A', 'bedroom', (0., 5., 5., 9.), 16.)
EAST = Room('B', 'bedroom', (5., 5., 8., 10.), 20.)
STAIR = Room('S', 'stair', (8., 0., 9., 5.), 5.)
ROW = [LIVING, WEST, EAST, STAIR]


def mat(f, *records, dtype=np.uint8, **more):
    data = np.empty(len(records), dtype=[('rType', object), ('rEdge', object), ('name', object)])
    for k, (t, e) in enumerate(records): data[k] = np.array(t, dtype), np.array(e, dtype), str(k)
    savemat(f, {'data': data, **more}, do_compression=True)
    return f


# ---- Graph2Plan

@pytest.mark.parametrize('types, edges, want, count', [
    ([7, 1, 0], [[0, 1, 3], [1, 2, 9]], Graph((7, 1, 0), ((0, 1, 3), (1, 2, 9))), {}),
    ([5], np.zeros((0, 3)), Graph((5,), ()), {}), # 0-d rType
    ([5, 6], [[0, 1, 4]], Graph((5, 6), ((0, 1, 4),)), {}), # a flat single edge
    ([5, 6, 7], [], Graph((5, 6, 7), ()), {}),        # no edges
    ([5, 6], [[1, 1, 4], [0, 1, 2], [0, 0, 0]], Graph((5, 6), ((0, 1, 2),)), {'self-loops dropped': 2}),
    ([5, 6, 7], [[2, 0, 4], [1, 0, 0]], Graph((5, 6, 7), ((0, 1, 9), (0, 2, 5))), {'edges turned round': 2}),
    ([5, 6], [[0, 1, 2], [0, 1, 7]], Graph((5, 6), ((0, 1, 7),)), {'contradicting edges': 1}),
    ([5, 6], [[0, 1, 2], [1, 0, 7]], Graph((5, 6), ((0, 1, 2),)),
     {'duplicate edges dropped': 1, 'edges turned round': 1}),
    ([5, 6], [[0, 1, 2], [0, 1, 7], [0, 1, 2]], Graph((5, 6), ((0, 1, 2),)),
     {'duplicate edges dropped': 1, 'contradicting edges': 1}),
    ([5, 6], [[0, 1, 2], [1, 0, 0]], Graph((5, 6), ((0, 1, 9),)),
     {'contradicting edges': 1, 'edges turned round': 1}),
    ([], [], None, {'skipped: no rooms': 1}),
    ([3]*9, [[0, 8, 1]], None, {'skipped: more than 8 rooms': 1}),
])
@pytest.mark.parametrize('dtype', [np.uint8, float])
def test_every_oddity_of_a_graph2plan_record_is_read_and_counted(tmp_path, types, edges, want, count, dtype):
    plain, this = ([0, 1], [[0, 1, 6]]), (types, edges)
    for where, records in enumerate([[this, plain], [plain, this, plain], [plain, plain, this, this]]):
        path = mat(tmp_path/f'{where}.mat', *records, dtype=dtype)
        got = readers.read_graph2plan(path)
        times, at = records.count(this), f'{path}, record {records.index(this) + 1}'
        named = {'contradicting edges': f'contradicting edges overwritten (first: {at})'}
        graphs = [want if r is this else Graph((0, 1), ((0, 1, 6),)) for r in records]
        assert got.graphs == [g for g in graphs if g]
        want_count = {named.get(k, k): times*n for k, n in count.items()}
        assert {k: n for k, n in got.report.items() if n} == {'records read': len(records), **want_count}


def test_more_rooms_fit_when_asked(tmp_path):
    f = mat(tmp_path/'a.mat', ([3]*9, [[0, 8, 1]]))
    assert readers.read_graph2plan(f, n_max=9).graphs == [Graph((3,)*9, ((0, 8, 1),))]


@pytest.mark.parametrize('types, edges, why', [
    ([7, 13], [[0, 1, 3]], 'unknown room type 13'), ([7, 1], [[0, 1, 10]], 'unknown relation 10'),
    ([7, 1], [[0, 2, 3]], 'edge (0,2)'), ([7, 1], [[0, 1], [0, 1]], 'three columns'),
    ([7, 1], [[0, 1, 3, 3]], 'three columns'), ([7, 1.5], [[0, 1, 3]], 'rType is not whole numbers'),
    ([7, 1], [[0, 1, np.nan]], 'rEdge is not whole numbers')])
def test_a_bad_record_is_named(tmp_path, types, edges, why):
    f = mat(tmp_path/'bad.mat', ([0, 1], [[0, 1, 6]]), (types, edges), dtype=float)
    with pytest.raises(ValueError) as e: readers.read_graph2plan(f)
    assert f'{f}, record 2: ' in str(e.value) and why in str(e.value) and 'Data.zip' in str(e.value)


def test_a_truncated_mat_is_never_half_read(tmp_path):
    records = [([7, 1, 0], [[0, 1, k % 10], [1, 2, 9]]) for k in range(40)]
    whole = mat(tmp_path/'whole.mat', *records).read_bytes()
    for cut in [1, 60, 127, 128, 131, 140, len(whole)//2, len(whole) - 200, len(whole) - 9, len(whole) - 1]:
        f = tmp_path/'cut.mat'
        f.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match='cut.mat'): readers.read_graph2plan(f)


@pytest.mark.parametrize('data', [
    b'<html>not found</html>', b'\x89HDF\r\n\x1a\n' + bytes(600), b'PK\x03\x04' + bytes(600)])
def test_another_file_under_that_name(tmp_path, data):
    (tmp_path/'data.mat').write_bytes(data)
    with pytest.raises(ValueError, match='data.mat is no whole'): readers.read_graph2plan(tmp_path/'data.mat')


def test_missing_empty_and_foreign_mat(tmp_path):
    with pytest.raises(OSError, match='no.mat could not be read'): readers.read_graph2plan(tmp_path/'no.mat')
    (tmp_path/'e.mat').write_bytes(b'')
    with pytest.raises(ValueError, match='e.mat is empty'): readers.read_graph2plan(tmp_path/'e.mat')
    savemat(tmp_path/'f.mat', {'other': 1})
    with pytest.raises(ValueError, match="no variable 'data'"): readers.read_graph2plan(tmp_path/'f.mat')
    savemat(tmp_path/'g.mat', {'data': np.arange(3)})
    with pytest.raises(ValueError, match="g.mat, record 1: .*rType"):
        readers.read_graph2plan(tmp_path / 'g.mat')


def test_records_of_json_are_read_like_those_of_the_mat(tmp_path):
    f, records = tmp_path/'a.json', [([7, 1, 0], [[0, 1, 3], [2, 1, 9]]), ([0], []), ([5, 6], [0, 1, 4])]
    want = readers.read_graph2plan(mat(tmp_path/'a.mat', *records))
    array = json.dumps([dict(rType=t, rEdge=e, name='1') for t, e in records], indent=1)
    lines = '\n'.join(json.dumps(dict(rType=t, rEdge=e)) for t, e in records)
    for text in array, lines:
        f.write_text(text)
        assert readers.read_graphs(f) == readers.read_graph2plan(f) == want
    f.write_text('{"rType": [1], "rEdge": []}\n{"rType": [1]}')
    with pytest.raises(ValueError, match='a.json, line 2: .*rEdge'): readers.read_graphs(f)


def test_three_published_records_follow_the_rule_of_their_boxes():
    f = pathlib.Path(__file__).parents[2]/'shared'/'data'/'graph2plan-3.json'
    if not f.is_file(): pytest.skip('not here')
    records, got = json.loads(f.read_text()), readers.read_graphs(f).graphs
    assert [len(g.types) for g in got] == [8, 8, 6]
    for r, g in zip(records, got):
        tokens, pairs = G.relate(r['box_x0y0x1y1']), G.pairs(len(g.types)).tolist()
        want = [(i, j, k - G.N_ROOMS) for (i, j), k in zip(pairs, tokens) if k != G.NO_EDGE]
        assert g.edges == tuple(want)


# ---- ResPlan, lines

def line(rooms=ROW, adjacent=(('L', 'A'), ('B', 'L'))):
    rows = [dict(id=r.id, type=r.type, bbox=r.box, area=r.area) for r in rooms]
    return json.dumps({'plan': 0, 'rooms': rows, 'adjacent': adjacent}) + '\n'


def test_lines_take_the_recorded_neighbours(tmp_path):
    f = tmp_path/'rows.jsonl'
    many = [ROW[0]._replace(id=str(k)) for k in range(15)]
    f.write_text(line() + line(adjacent=[]) + line(ROW[3:], []) + line(many, []))
    got = readers.read_resplan(f)
    # y points up in the file: the bedrooms at larger y lie above the living room
    assert got.graphs == [Graph((0, 7, 1), ((0, 1, 6), (0, 2, 1))), Graph((0, 7, 1), ())]
    assert got.report == {'records read': 4, 'rooms left out (stairs, gardens, pools, parking)': 3,
                          'skipped: no rooms': 1, 'skipped: more than 14 rooms': 1}
    assert len(readers.read_resplan(f, 15).graphs) == 3


def test_the_unit_of_a_plan_does_not_matter():
    def scaled(room, s):
        box = tuple(s*(v + 3) for v in room.box)
        return room._replace(box=box, area=s*s*room.area)
    for s in (.37, 1., 64., 1000.):
        assert readers.resplan_graph([scaled(r, s) for r in ROW]) == readers.resplan_graph(ROW)


@pytest.mark.parametrize(
    'bad, why',
    [
        ('{"rooms":[', 'Expecting'),
        ('{"rooms":[]}', "'adjacent' is missing"),
        ('[]', 'is no record'),
        ('3', 'is no record'),
        (line().replace('"area"', '"size"'), "'area' is missing"),
        (line().replace('stair', 'cave'), "unknown room type 'cave'"),
        (line(adjacent=[('L', 'L')]), 'no pair of rooms'),
        (line(adjacent=[('L', 'X')]), 'no pair of rooms'),
        (line([ROW[0], ROW[0]]), 'the same id'),
        (line([ROW[0]._replace(box=(0, 0, 0, 1))], []), 'x0<x1'),
        (line([ROW[0]._replace(box=(0, 0, float('nan'), 1))], []), 'x0<x1'),
        (line([ROW[0]._replace(box=(0, 0, 1))], []), 'x0<x1'),
    ],
)
def test_a_bad_plan_is_named(tmp_path, bad, why):
    f = tmp_path/'rows.jsonl'
    f.write_text(line() + bad)
    with pytest.raises(ValueError) as e: readers.read_resplan(f)
    assert f'{f}, line 2: ' in str(e.value) and why in str(e.value)


# ---- ResPlan, the pickle

class Old:
    "Pickles a polygon as shapely 1.8 does: the class, no arguments, the binary form as state"
    def __init__(self, p): self.p = p
    def __reduce__(self): return type(self.p), (), self.p.wkb


def as_it_is(p): return p


def published(shapely, wrap=as_it_is):
    "A plan with all entries of a published one"
    graph = nx.Graph()
    def box(*corners): return wrap(shapely.box(*corners))
    def boxes(*corners): return wrap(shapely.MultiPolygon([shapely.box(*c) for c in corners]))
    graph.add_node('living_0', geometry=box(0, 0, 8, 5), type='living', area=np.float64(40.))
    graph.add_edge('living_0', 'bedroom_0', type='adjacency')
    graph.adj, graph.edges # networkx keeps these views, and pickles them
    plan = dict(id=1, unitType='flat', area=np.float64(81), wall_depth=.1, graph=graph)
    plan |= dict(counts=np.arange(3), tags={'a'}, inner=box(0, 0, 9, 10))
    plan |= dict(garden=wrap(shapely.Polygon()), net_area=None)
    plan['living'] = boxes((0, 0, 4, 5), (4, 0, 8, 4))
    plan['bedroom'] = boxes((0, 5, 5, 9), (5, 5, 8, 10))
    plan |= dict(kitchen=None, balacony=box(0, 9, 4, 10), stair=box(8, 0, 9, 5))
    plan['door'] = wrap(shapely.LineString([(0, 5), (1, 5)]))
    plan['storage'] = wrap(shapely.GeometryCollection([]))
    return plan


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('wrap', [as_it_is, Old])
def test_a_genuine_pickle_is_read_as_its_rooms(tmp_path, protocol, wrap):
    shapely = pytest.importorskip('shapely')
    f = tmp_path/'ResPlan.pkl'
    f.write_bytes(pickle.dumps([published(shapely, wrap), {'id': 2, 'inner': None}], protocol=protocol))
    got = readers.read_resplan(f)
    balcony = Room('C', 'balcony', (0, 9, 4, 10), 4.)
    rooms = [LIVING, WEST._replace(area=20.), EAST._replace(area=15.), balcony]
    assert got.graphs == [readers.resplan_graph(rooms)]
    assert got.graphs[0].types == (0, 1, 7, 9)
    assert got.report == {'records read': 2, 'skipped: no rooms': 1,
                          'rooms left out (stairs, gardens, pools, parking)': 1}


class Call:
    def __init__(self, f, *args): self.f, self.args = f, args
    def __reduce__(self): return self.f, self.args


def run_a_command(mark): return Call(os.system, f'touch {mark}')
def evaluate_text(mark): return Call(eval, f'open({str(mark)!r}, "w")')
def open_a_file(mark): return Call(open, str(mark), 'w')
def get_an_attribute(mark): return Call(getattr, os, 'system')
def import_a_module(mark): return Call(__import__, 'os')


@pytest.mark.parametrize('where', ['alone', 'in a plan'])
@pytest.mark.parametrize('call', [run_a_command, evaluate_text, open_a_file, get_an_attribute,
                                  import_a_module])
def test_a_malicious_pickle_does_not_run(tmp_path, call, where):
    f, mark = tmp_path/'evil.pkl', tmp_path/'ran'
    try: data = pickle.dumps([call(mark)] if where == 'alone' else [{'id': 1, 'living': call(mark)}])
    except TypeError: data = b'cos\nsystem\n(S"touch %s"\ntR.' % bytes(mark) # modules do not pickle: by hand
    f.write_bytes(data)
    with pytest.raises(ValueError, match='evil.pkl .*it asks for .*was not run'): readers.read_resplan(f)
    assert not mark.exists()


@pytest.mark.parametrize('name', [
    b'numpy.testing._private.utils\nrunstring', b'numpy\nf2py.os.system', b'shapely\nos.system',
    b'networkx.utils.misc\nexec'])
def test_allowed_packages_lend_their_names_only(tmp_path, name):
    f, mark = tmp_path/'evil.pkl', tmp_path/'ran'
    f.write_bytes(b'(lp0\n(dp1\nVliving\nc%s\n(Vopen(%r,"w")\n(dtRsa.' % (name, str(mark).encode()))
    try: readers.read_resplan(f)
    except ValueError: pass
    assert not mark.exists()


def test_a_truncated_pickle_is_never_half_read(tmp_path):
    shapely = pytest.importorskip('shapely')
    whole, f = pickle.dumps([published(shapely)]*3, protocol=4), tmp_path/'cut.pkl'
    for cut in range(1, len(whole), 41):
        f.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match='cut.pkl is no whole ResPlan pickle'): readers.read_resplan(f)


@pytest.mark.parametrize('data, why', [({'a': 1}, 'no list of plans'), ([3], 'plan 1: no dictionary')])
def test_a_pickle_of_something_else(tmp_path, data, why):
    pytest.importorskip('shapely')
    (tmp_path/'a.pkl').write_bytes(pickle.dumps(data))
    with pytest.raises(ValueError, match=why): readers.read_resplan(tmp_path/'a.pkl')


def test_a_broken_geometry_is_named(tmp_path):
    shapely = pytest.importorskip('shapely')
    data = pickle.dumps([{'id': 1, 'living': shapely.box(0, 0, 1, 1)}])
    (tmp_path/'a.pkl').write_bytes(data.replace(b'\x01\x03\x00\x00\x00', b'\x01\x63\x00\x00\x00'))
    with pytest.raises(ValueError, match='a.pkl, plan 1: a broken'): readers.read_resplan(tmp_path/'a.pkl')


def test_without_shapely_the_remedy_is_named(tmp_path, monkeypatch):
    def not_installed(name): return None
    monkeypatch.setattr(readers, 'find_spec', not_installed)
    (tmp_path/'a.pkl').write_bytes(pickle.dumps([]))
    with pytest.raises(ValueError, match=r"pip install 'remask\[resplan\]'"):
        readers.read_resplan(tmp_path / 'a.pkl')


# ---- any of them

def test_a_file_is_known_by_its_contents(tmp_path):
    pytest.importorskip('shapely')
    want, f = [Graph((7, 1), ((0, 1, 3),))], tmp_path/'some.thing'
    f.write_bytes(mat(tmp_path/'a.mat', ([7, 1], [[0, 1, 3]])).read_bytes())
    assert readers.read_graphs(f).graphs == want
    readers.write_jsonl(f, want)
    assert readers.read_graphs(f).graphs == want
    assert readers.read_graphs(f).report == {'records read': 1}
    f.write_text(line())
    assert readers.read_graphs(f).graphs == readers.read_resplan(f).graphs
    f.write_bytes(pickle.dumps([]))
    assert readers.read_graphs(f).graphs == []


@pytest.mark.parametrize('text, options, why', [
    ('<html>', {}, 'of no known kind'),
    ('{"types":[0],"edges":[]}', {'kind': 'magic'}, "unknown kind 'magic'"),
    ('{"types":[0],"edges":[]}', {'n_max': 0}, 'n_max is 0'),
    ('{"types":[0,0],"edges":[]}', {'n_max': 1}, 'n_max=1')])
def test_read_graphs_refuses(tmp_path, text, options, why):
    (tmp_path/'a').write_text(text)
    with pytest.raises(ValueError, match=why): readers.read_graphs(tmp_path/'a', **options)


# ---- slivers

@pytest.mark.parametrize('unit', [1e-3, 1., 37., 1000.])
def test_a_sliver_of_a_polygon_is_no_room_in_any_unit(tmp_path, unit):
    shapely = pytest.importorskip('shapely')
    def box(*b): return shapely.box(*(unit*v for v in b))
    living, bedroom, bathroom = box(0, 0, 8, 5), box(0, 5, 5, 9), box(5, 5, 8, 9)
    whole = dict(id=1, living=living, bedroom=bedroom, bathroom=bathroom)
    beside_the_plan, far_from_the_plan = box(8, 0, 8 + 1e-4, 5), box(20, 20, 20.01, 20.01)
    bits = whole | dict(kitchen=box(0, 5, 1e-4, 9), stair=box(0, 0, 0.01, 0.01))
    bits['bedroom'] = shapely.MultiPolygon([bedroom, beside_the_plan])
    bits['living'] = shapely.MultiPolygon([living, far_from_the_plan])   # would stretch its box
    def read(plan):
        (tmp_path/'a.pkl').write_bytes(pickle.dumps([plan]))
        return readers.read_resplan(tmp_path/'a.pkl')
    want, got = read(whole), read(bits)
    assert got.graphs == want.graphs and got.graphs[0].types == (0, 1, 3)
    assert got.report == {
        'records read': 1,
        'slivers dropped': 3,
        'rooms left out (stairs, gardens, pools, parking)': 1,
    }
    assert 'slivers dropped' not in want.report


def test_a_sliver_of_a_line_is_no_room_and_takes_its_neighbours_along(tmp_path):
    f = tmp_path/'rows.jsonl'
    sliver = ROW[1]._replace(id='X', box=(0., 0., 8., 1e-4), area=8e-4)
    f.write_text(line([sliver, *ROW], [('L', 'A'), ('X', 'L'), ('B', 'L'), ('X', 'S')]))
    got = readers.read_resplan(f)
    assert got.graphs == [Graph((0, 7, 1), ((0, 1, 6), (0, 2, 1)))]
    assert got.report == {
        'records read': 1,
        'slivers dropped': 1,
        'rooms left out (stairs, gardens, pools, parking)': 1,
    }
    f.write_text(line([sliver, *ROW], [('X', 'Y')]))
    with pytest.raises(ValueError, match='line 1: .* is no pair of rooms'): readers.read_resplan(f)


def test_the_threshold_is_a_thousandth_of_what_counts_as_rooms():
    garden = Room('G', 'garden', (0, 0, 99, 99), 1e6)                       # however large: no room
    for share, stays in (.0011, True), (.0009, False):
        area = share*76/(1 - share)   # the rooms of ROW have 76 without the stair
        small = Room('s', 'storage', (0, 0, 1, 1), area)
        assert (small in readers.without_slivers([*ROW, garden, small])) == stays
    assert readers.without_slivers([]) == [] and readers.without_slivers(ROW) == ROW


@pytest.mark.parametrize('area', [-1., float('nan'), float('inf'), None, '4'])
def test_an_area_that_is_no_number_is_named(tmp_path, area):
    (tmp_path/'a.jsonl').write_text(line() + line([ROW[0], ROW[1]._replace(area=area)], []))
    with pytest.raises(ValueError, match='a.jsonl, line 2: A has the area .* give a number >= 0'):
        readers.read_resplan(tmp_path / 'a.jsonl')


def test_plans_are_read_from_every_form_of_json(tmp_path):
    f, plans = tmp_path/'rows.json', [json.loads(line()), json.loads(line(adjacent=[]))]
    want = [Graph((0, 7, 1), ((0, 1, 6), (0, 2, 1))), Graph((0, 7, 1), ())]
    for text in (
        '\ufeff\r\n' + '\r\n\r\n'.join(map(json.dumps, plans)),
        json.dumps(plans),
        json.dumps(plans, indent=1),
    ):
        f.write_text(text, encoding='utf-8', newline='')
        assert readers.read_resplan(f).graphs == readers.read_graphs(f).graphs == want


def test_60_published_plans_have_no_slivers():
    f = pathlib.Path(__file__).parents[2]/'shared'/'data'/'resplan-60.jsonl'
    if not f.is_file(): pytest.skip('not here')
    got = readers.read_graphs(f)
    assert got.report['records read'] == 60 and 'slivers dropped' not in got.report


# ---- House-GAN++: a plan with all kinds of rooms on a grid of 4 px walls, as its data reader writes one

GRID_ROOMS = """
1  10 10 110 90
3  114 10 150 40
2  114 44 150 90
4  10 94 40 120
5  44 94 80 120
6  84 94 110 120
7  114 94 150 120
8  154 10 190 50
10 154 54 190 90
3  154 94 190 150
17 111 20 113 32
15 20 6 32 9
"""
GRID = dict(room_type=[], boxes=[])
for text in GRID_ROOMS.strip().splitlines():
    kind, *corners = text.split()
    GRID['room_type'].append(int(kind))
    GRID['boxes'].append([float(v) for v in corners])
GRID['edges'] = [[10.0, 10.0, 10.0, 90.0, 1, 0]]
GRID['ed_rm'] = [[0], [10, 0], [10, 1], [11, 0]]
RULE = [
    ['left-above', 'left-of', 'left-below'],
    ['above', 'inside', 'below'],
    ['right-above', 'right-of', 'right-below'],
]


def near(u, v): return all(u[k] - 5 <= v[k + 2] and u[k + 2] + 5 >= v[k] for k in (0, 1))


def name_by_hand(u, v): # the published rule, without numpy
    if all(u[k] < v[k] and u[k + 2] > v[k + 2] for k in (0, 1)): return 'surrounding'
    if all(u[k] >= v[k] and u[k + 2] <= v[k + 2] for k in (0, 1)): return 'inside'
    x, y = u[0] + u[2], u[1] + u[3]
    column = 0 if x < 2*v[0] else 1 if x < 2*v[2] else 2
    row = 0 if y <= 2*v[1] else 1 if y < 2*v[3] else 2
    return RULE[column][row]


def by_hand(boxes):
    edges = []
    for (i, u), (j, v) in combinations(enumerate(boxes), 2):
        if near(u, v): edges.append((i, j, G.RELATIONS.index(name_by_hand(u, v))))
    return tuple(edges)


def test_rooms_and_relations_of_a_housegan_plan(tmp_path):
    f = tmp_path/'1.json'
    f.write_text(json.dumps(GRID))
    got = readers.read_housegan(f, 14)
    [graph] = got.graphs
    names = ' '.join(G.ROOMS[t] for t in graph.types)
    # MasterRoom is the larger of the two bedrooms
    assert names == ('LivingRoom SecondRoom Kitchen Bathroom Balcony Entrance DiningRoom StudyRoom Storage '
                     'MasterRoom')
    assert graph.edges == by_hand(GRID['boxes'][:10])
    assert len(graph.edges) > 12
    assert got.report == {'records read': 1, 'doors left out': 2}
    assert readers.read_graphs(f, n_max=14) == got
    assert readers.read_graphs(f).report['skipped: more than 8 rooms'] == 1


def test_a_folder_of_housegan_plans_is_read_in_order(tmp_path):
    for k in 2, 1, 3:
        plan = dict(room_type=[k, 15], boxes=[[0, 0, 9, 9], [9, 0, 10, 4]])
        (tmp_path/f'{k}.json').write_text(json.dumps(plan))
    (tmp_path/'list.txt').write_text('1.json')
    assert readers.read_graphs(tmp_path).graphs == [Graph((0,), ()), Graph((2,), ()), Graph((1,), ())]
    (tmp_path/'none').mkdir()
    with pytest.raises(ValueError, match='none holds no .json file'): readers.read_graphs(tmp_path/'none')


@pytest.mark.parametrize(
    'change, why',
    [
        (dict(room_type=[16, 1]), r"room 0 has the unknown type 16"),
        (dict(room_type=[1, 9]), 'room 1 has the unknown type 9'),
        (dict(room_type=['1', 3]), "room 0 has the unknown type '1'"),
        (dict(room_type=[1, 3.0]), 'room 1 has the unknown type 3.0'),
        (dict(room_type=[1, True]), 'unknown type True'),
        (dict(room_type=[1]), '1 room types, but 2 boxes'),
        (dict(boxes=[[0, 0, 9, 9], [0, 0, 0, 9]]), 'x0<x1'),
        (dict(boxes=[[0, 0, 9, 9], [0, 0, 9]]), 'inhomogeneous'),
        (dict(boxes=[[0.0, 0.0, 0.4, 0.4], [0.4, 0.0, 1.0, 1.0]]), 'x0<x1'),
        (dict(boxes=[[0, 0, 9, 9], [0, 0, 9, 300]]), 'canvas of 256'),
        (dict(boxes=[[0, 0, 9, 9], [0, 0, 9, float('nan')]]), 'x0<x1'),
        (dict(boxes=None), 'is not x0|len'),
    ],
)
def test_a_bad_housegan_plan_is_named(tmp_path, change, why):
    good = dict(room_type=[1, 3], boxes=[[0, 0, 9, 9], [9, 0, 20, 9]])
    f = tmp_path/'a.json'
    f.write_text(json.dumps(good) + '\n' + json.dumps(good | change))
    with pytest.raises(ValueError, match=why) as e: readers.read_housegan(f)
    assert f'{f}, line 2: ' in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize(
    'graph',
    [
        dict(room_type=[1, 3], ed_rm=[[0], [0, 1]]),
        dict(nodes=[dict(id=0)], links=[dict(source=0, target=0)]),
        {
            '333': dict(room_type_count=dict(Bath=1), graph=[['Bath_1', 1, 'Entry_1']]),
            '334': dict(room_type_count={}, graph=[]),
        },
    ],
)
def test_adjacency_alone_has_no_relations_and_the_remedy_is_named(tmp_path, graph):
    (tmp_path/'a.json').write_text(json.dumps(graph))
    with pytest.raises(ValueError, match='a.json.* have no relations: give room_type and boxes') as e:
        readers.read_graphs(tmp_path / 'a.json')
    assert '\n' not in str(e.value) and len(str(e.value)) < 400


def test_a_sliver_of_a_housegan_plan_is_no_room(tmp_path):
    plan = dict(room_type=[1, 5], boxes=[[0, 0, 100, 100], [100, 0, 101, 9]])
    (tmp_path/'a.json').write_text(json.dumps(plan))
    got = readers.read_graphs(tmp_path/'a.json')
    assert got.graphs == [Graph((0,), ())] and got.report['slivers dropped'] == 1


# ---- damaged on purpose

def test_a_flipped_byte_in_a_plain_mat_never_ends_this_process(tmp_path):
    "Uncompressed, where scipy follows what the file says of its sizes, and some of these end the process"
    data = np.empty(3, dtype=[('rType', object), ('rEdge', object)])
    for k in range(3): data[k] = np.array([0, 1, 2], np.uint8), np.array([[0, 1, 3], [1, 2, 4]], np.uint8)
    savemat(tmp_path/'a.mat', {'data': data})
    whole = (tmp_path/'a.mat').read_bytes()
    deadly = {312: 86, 376: 133, 553: 206, 432: 202}
    for place, value in deadly.items():
        (tmp_path/'a.mat').write_bytes(whole[:place] + bytes([value]) + whole[place + 1:])
        try: readers.read_graph2plan(tmp_path/'a.mat')
        except ValueError as e: assert str(tmp_path/'a.mat') in str(e) and '\n' not in str(e)


def cyclic():
    out = []
    out.append(out)
    return out


def shared(levels=40):
    out = []
    for _ in range(levels): out = [out, out]
    return out


@pytest.mark.parametrize('make', [cyclic, shared])
def test_lists_without_end_in_a_pickle_are_named(tmp_path, make):
    pytest.importorskip('shapely')
    (tmp_path/'a.pkl').write_bytes(pickle.dumps([{'id': 1, 'living': make()}]))
    with pytest.raises(ValueError, match='a.pkl, plan 1: a geometry of more than 10000 parts'):
        readers.read_resplan(tmp_path/'a.pkl')


JUNK = [None, 3, 'x', [], {}, [[]], [None], {'a': 1}, 2**70, 1e400, [1e400], [{}]]
FIELDS = [('types', 'edges'), ('rooms', 'adjacent'), ('room_type', 'boxes'), ('rType', 'rEdge')]


@pytest.mark.parametrize('names', FIELDS, ids=str)
def test_whatever_the_fields_of_a_record_hold_the_error_names_file_and_record(tmp_path, names):
    f = tmp_path/'a.jsonl'
    for a in JUNK:
        for b in JUNK:
            f.write_text(json.dumps(dict(zip(names, (a, b)))))
            try: readers.read_graphs(f)
            except ValueError as e: assert f'{f}, line 1: ' in str(e) and '\n' not in str(e)
