"Synthetic plans: calibrated to the published statistics, real geometry, the same bytes everywhere."
import ast, hashlib, inspect, itertools
from collections import Counter
import networkx as nx, numpy as np, pytest, torch
from scipy import ndimage
from remask.domains import plans as module
from remask.domains.graphs import NO_EDGE, PAD, decode_graphs, encode_graphs, graph_space
from remask.domains.plans import FORBIDDEN, Plans, archetypes, dice, plan_tokens, plans, statistics


@pytest.fixture(scope='module')
def all_plans(): return plans(80788, seed=0)

@pytest.fixture(scope='module')
def tokens(all_plans): return plan_tokens(*all_plans)

@pytest.fixture(scope='module')
def some(): return plans(400, seed=3)


def as_bytes(v): return np.asarray(v).astype('u1').tobytes()


def digest(p):
    return hashlib.sha256(as_bytes(plan_tokens(*p)) + as_bytes(p.boxes)).hexdigest()

def others(types, boxes): # boxes of the rooms but the living room, and the living room's box
    real = types != PAD
    return boxes[real & (types != 0)], boxes[types == 0][0]


def test_the_bytes_are_pinned(all_plans, tokens):
    first = digest(Plans(*(v[:1000] for v in all_plans)))
    assert first == 'af9dde8a92b257be58bcebeebe08830231e44edb4699328be9eba5ef9d808325'
    whole = hashlib.sha256(as_bytes(tokens)).hexdigest()
    assert whole == 'e2feb371a30350fac6a43e8ab9d4fecb5d1fa725e3eec4d2cd7ad6f00a1e0259'


def test_a_plan_depends_on_seed_and_number_alone(all_plans):
    for n, start in (1, 0), (3, 4094), (5000, 17), (1, 80787):
        p = plans(n, start=start)
        for a, b in zip(p, all_plans): np.testing.assert_array_equal(a, b[start:start+n])
    assert digest(plans(50, seed=1)) != digest(plans(50, seed=0)) != digest(plans(50, seed=2**63))


def test_no_float_on_the_way_to_a_plan():
    tree = ast.parse(inspect.getsource(module))
    def name(f): return getattr(f, 'name', '')
    parts = [f for f in tree.body if isinstance(f, (ast.FunctionDef, ast.Assign))]
    apart = 'statistics', '_by_archetype', '_by_graph', '_density', '_tv'
    exact = [f for f in parts if name(f) not in apart]
    assert {'archetypes', 'dice', 'cut', '_plans', 'plan_tokens'} <= set(map(name, exact))
    for node in itertools.chain.from_iterable(map(ast.walk, exact)):
        assert not isinstance(node, ast.Div)
        if isinstance(node, ast.Constant): assert not isinstance(node.value, float)
        if isinstance(node, ast.Attribute):
            assert node.attr not in ('mean', 'random', 'float64', 'round', 'sqrt')
    for v in (*archetypes(), *plans(5), dice(0, [1])('x', 6)): assert v.dtype == np.int64


def test_every_published_statistic_is_met(tokens):
    table = statistics(tokens)
    assert table.within.all(), table[~table.within].to_string()
    assert len(table) == 17


def test_the_training_part_is_like_the_whole(tokens):
    gen = np.random.default_rng(0)
    train = tokens[gen.permutation(80788)[:64630]]
    assert statistics(train).within.all()


def only_large(x): return x[(x[:, :8] != PAD).sum(1) > 6]
def first_500(x): return x[:500]
def only_with_room_6(x): return x[(x[:, :8] == 6).any(1)]


def replaced(old, new):
    def change(x): return torch.where(x == old, new, x)
    return change


def inconsistent_rows(x):
    even = torch.arange(36) % 2 == 0
    return torch.where((x == 13+6) & even, 13+3, x)


@pytest.mark.parametrize('name,change', [
    ('room counts, TV', only_large),
    ('one living room', replaced(1, 0)),
    ('relations, TV', replaced(13+3, 13)),
    ('mean edges', replaced(NO_EDGE, 13+4)),
    ('inside-validity', replaced(13+2, 13+4)),
    ('above/below consistent', inconsistent_rows),
    ('archetypes', first_500),
    ('mass of the top 26', only_with_room_6)])
def test_the_table_detects_each_wrong_statistic(tokens, name, change):
    assert not statistics(change(tokens[:5000])).within[name]


def edge_is_valid(g, i, j, r):
    if r == 4: return not FORBIDDEN[g.types[i], g.types[j]]
    if r == 5: return not FORBIDDEN[g.types[j], g.types[i]]
    return True


def test_statistics_agree_with_counting_graph_by_graph(some):
    x = plan_tokens(*some)
    table, graphs = statistics(x).achieved, decode_graphs(x)
    n = np.array([len(g.types) for g in graphs])
    edges = np.array([len(g.edges) for g in graphs])
    assert table['mean edges'] == pytest.approx(edges.mean())
    for k in range(5, 9):
        pairs = k*(k - 1)/2
        assert table[f'density, {k} rooms'] == pytest.approx(np.mean(edges[n == k]/pairs))
    kinds = Counter(tuple(sorted(g.types)) for g in graphs)
    assert table['archetypes'] == len(kinds)
    top = sum(count for _, count in kinds.most_common(26))
    assert table['mass of the top 26'] == pytest.approx(top/400)
    valid = [all(edge_is_valid(g, *edge) for edge in g.edges) for g in graphs]
    assert table['inside-validity'] == pytest.approx(np.mean(valid))


def ordered(g, less, more):
    "The order that relations of two kinds state: of i before j, and of j before i"
    forward = [(i, j) for i, j, r in g.edges if r in less]
    return nx.DiGraph(forward + [(j, i) for i, j, r in g.edges if r in more])


def test_every_graph_is_connected_ordered_and_has_one_living_room(some):
    x = plan_tokens(*some)
    for g in decode_graphs(x):
        assert g.types.count(0) == 1
        whole = nx.Graph([(i, j) for i, j, _ in g.edges])
        whole.add_nodes_from(range(len(g.types)))
        assert nx.is_connected(whole)
        assert nx.is_directed_acyclic_graph(ordered(g, (0, 1, 2), (7, 8, 9)))
        assert nx.is_directed_acyclic_graph(ordered(g, (0, 3, 8), (1, 6, 9)))


def test_tokens_are_legal_rows(some):
    x = plan_tokens(*some)
    assert torch.equal(encode_graphs(decode_graphs(x)), x)
    real = x != PAD
    assert graph_space(8).legal[torch.arange(36).expand_as(x)[real], x[real]].all()


def test_rooms_do_not_overlap_and_stay_on_the_canvas(all_plans):
    types, boxes = (v[:20000] for v in all_plans)
    real, low, high = types != PAD, boxes[..., :2], boxes[..., 2:]
    assert boxes.min() >= 0 and boxes.max() <= 255
    assert (high - low)[real].min() >= 6
    i, j = np.triu_indices(8, 1)
    solid = real & (types != 0)
    overlap_low = np.maximum(low[:, i], low[:, j])
    overlap_high = np.minimum(high[:, i], high[:, j])
    overlap = (overlap_low < overlap_high).all(2)
    assert not (solid[:, i] & solid[:, j] & overlap).any()


def test_the_living_room_is_one_piece_that_fills_its_box_and_meets_every_inner_room(some):
    for types, boxes in zip(*some):
        rooms, (x0, y0, x1, y1) = others(types, boxes)
        free = np.zeros((256, 256), bool)
        free[y0:y1, x0:x1] = True
        for a, b, c, d in rooms: free[b:d, a:c] = False
        label, _ = ndimage.label(free)
        hub = label == np.bincount(label[free]).argmax()
        ys, xs = hub.nonzero()
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x0, y0, x1, y1)
        near = ndimage.binary_dilation(hub)
        for (a, b, c, d), t in zip(rooms, types[(types != PAD) & (types != 0)]):
            assert t == 9 or near[b:d, a:c].any()


def test_balconies_lie_outside(some):
    for types, boxes in zip(*some):
        solid = boxes[(types != PAD) & (types != 9) & (types != 0)]
        low, high = solid[:, :2], solid[:, 2:]
        for balcony in boxes[types == 9]:
            overlap = (low < balcony[2:]) & (high > balcony[:2])
            assert not overlap.all(1).any()


def test_archetypes_follow_their_distribution(all_plans):
    kinds, share = archetypes()
    p = np.diff(share, prepend=0)/share[-1]
    probability = {tuple(sorted(k)): q for k, q in zip(kinds.tolist(), p)}
    got, count = np.unique(np.sort(all_plans.types, 1), axis=0, return_counts=True)
    expected = np.array([probability[tuple(k)] for k in got.tolist()])*80788
    z = ((count - expected)/np.sqrt(expected))[expected > 50]
    assert len(z) > 40 and abs(z).max() < 4.5 and .5 < (z**2).mean() < 1.6


def test_slots_are_a_tour(all_plans):
    "Consecutive slots (but the living room) are nearer than others; the living room is mostly late"
    types, boxes = all_plans
    middle = (boxes[..., :2] + boxes[..., 2:]).astype(float)/2
    i, j = np.triu_indices(8, 1)
    distance = abs(middle[:, i] - middle[:, j]).sum(2)
    counts = (types[:, i] % PAD != 0) & (types[:, j] % PAD != 0)
    def mean_distance(pairs): return distance[:, pairs][counts[:, pairs]].mean()
    assert mean_distance(j == i+1) < .8*mean_distance(j > i+1)
    n, at = (types != PAD).sum(1), (types == 0).argmax(1)
    assert .65 < (at == n-1).mean() < .85
    assert .1 < (at == n-2).mean() < .3
    assert (at == 0).any()


def test_dice_are_fair_and_independent():
    z = np.array([1234567 + 0x9E3779B97F4A7C15], np.uint64)
    assert module.splitmix64(z)[0] == 6457827717110365317  # first output of splitmix64 from 1234567
    k = np.arange(20000)
    rolls = np.concatenate([dice(s, k)(name, 16, 3) for s in (0, 1) for name in ('gap', 'hub')], 1)
    counts, limit = np.stack([np.bincount(r, minlength=16) for r in rolls.T]), 5*20000**-.5
    assert abs(counts - 1250).max() < 5*1250**.5
    assert abs(np.corrcoef(rolls.T) - np.eye(12)).max() < limit
    autocorrelation = np.corrcoef(rolls[:-1, 0], rolls[1:, 0])[0, 1]
    assert abs(autocorrelation) < limit


def test_no_plans_is_refused():
    with pytest.raises(ValueError, match='ask for 1 to'): plans(0)


def test_a_negative_seed_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match='seed -1: name a number of at least 0'): plans(3, -1)
