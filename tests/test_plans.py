"Synthetic plans: calibrated to the published statistics, real geometry, the same bytes on every machine."
import ast, hashlib, inspect
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


def digest(p):
    return hashlib.sha256(
        plan_tokens(*p).numpy().astype('u1').tobytes() + p.boxes.astype('u1').tobytes()
    ).hexdigest()

def others(types, boxes): # boxes of the rooms but the living room, and the living room's box
    real = types != PAD
    return boxes[real & (types != 0)], boxes[types == 0][0]


def test_the_bytes_are_pinned(all_plans, tokens):
    assert (
        digest(Plans(*(v[:1000] for v in all_plans)))
        == 'af9dde8a92b257be58bcebeebe08830231e44edb4699328be9eba5ef9d808325'
    )
    whole = hashlib.sha256(tokens.numpy().astype('u1').tobytes()).hexdigest()
    assert whole == 'e2feb371a30350fac6a43e8ab9d4fecb5d1fa725e3eec4d2cd7ad6f00a1e0259'


def test_a_plan_depends_on_seed_and_number_alone(all_plans):
    for n, start in (1, 0), (3, 4094), (5000, 17), (1, 80787):
        p = plans(n, start=start)
        for a, b in zip(p, all_plans): np.testing.assert_array_equal(a, b[start:start+n])
    assert digest(plans(50, seed=1)) != digest(plans(50, seed=0)) != digest(plans(50, seed=2**63))


def test_no_float_on_the_way_to_a_plan():
    tree = ast.parse(inspect.getsource(module))
    exact = [f for f in tree.body if isinstance(f, (ast.FunctionDef, ast.Assign))
             and getattr(f, 'name', '') not in (
                 'statistics', '_by_archetype', '_by_graph', '_density', '_tv')]
    assert {'archetypes', 'dice', 'cut', '_plans', 'plan_tokens'} <= {getattr(f, 'name', '') for f in exact}
    for f in exact:
        for k in ast.walk(f):
            assert not isinstance(k, ast.Div) and not (
                isinstance(k, ast.Constant) and isinstance(k.value, float)
            )
            assert not (
                isinstance(k, ast.Attribute) and k.attr in ('mean', 'random', 'float64', 'round', 'sqrt')
            )
    for v in (*archetypes(), *plans(5), dice(0, [1])('x', 6)): assert v.dtype == np.int64


def test_every_published_statistic_is_met(tokens):
    table = statistics(tokens)
    assert table.within.all(), table[~table.within].to_string()
    assert len(table) == 17


def test_the_training_part_is_like_the_whole(tokens):
    gen = np.random.default_rng(0)
    train = tokens[gen.permutation(80788)[:64630]]
    assert statistics(train).within.all()


@pytest.mark.parametrize('name,change', [
    ('room counts, TV', lambda x: x[(x[:, :8] != PAD).sum(1) > 6]),
    ('one living room', lambda x: torch.where(x == 1, 0, x)),
    ('relations, TV', lambda x: torch.where(x == 13+3, 13, x)),
    ('mean edges', lambda x: torch.where(x == NO_EDGE, 13+4, x)),
    ('inside-validity', lambda x: torch.where(x == 13+2, 13+4, x)),
    ('above/below consistent', lambda x: torch.where((x == 13+6) & (torch.arange(36) % 2 == 0), 13+3, x)),
    ('archetypes', lambda x: x[:500]),
    ('mass of the top 26', lambda x: x[(x[:, :8] == 6).any(1)])])
def test_the_table_notices_what_is_wrong(tokens, name, change):
    assert not statistics(change(tokens[:5000])).within[name]


def test_statistics_agree_with_counting_graph_by_graph(some):
    x = plan_tokens(*some)
    table, graphs = statistics(x).achieved, decode_graphs(x)
    n = np.array([len(g.types) for g in graphs]); edges = np.array([len(g.edges) for g in graphs])
    assert table['mean edges'] == pytest.approx(edges.mean())
    for k in range(5, 9):
        assert table[f'density, {k} rooms'] == pytest.approx(np.mean(edges[n == k] * 2 / (k * (k - 1))))
    top = sorted(
        (sum(tuple(sorted(g.types)) == a for g in graphs) for a in {tuple(sorted(g.types)) for g in graphs})
    )[::-1]
    assert (table['archetypes'], table['mass of the top 26']) == (len(top), pytest.approx(sum(top[:26])/400))
    bad = [any(FORBIDDEN[g.types[i], g.types[j]] if r == 4 else FORBIDDEN[g.types[j], g.types[i]]
               for i, j, r in g.edges if r in (4, 5)) for g in graphs]
    assert table['inside-validity'] == pytest.approx(1 - np.mean(bad))


def test_every_graph_is_connected_ordered_and_has_one_living_room(some):
    x = plan_tokens(*some)
    for g in decode_graphs(x):
        assert g.types.count(0) == 1
        whole = nx.Graph([(i, j) for i, j, _ in g.edges]); whole.add_nodes_from(range(len(g.types)))
        assert nx.is_connected(whole)
        for less, more in ((0, 1, 2), (7, 8, 9)), ((0, 3, 8), (1, 6, 9)):
            order = nx.DiGraph(
                [(i, j) for i, j, r in g.edges if r in less] + [(j, i) for i, j, r in g.edges if r in more]
            )
            assert nx.is_directed_acyclic_graph(order)


def test_tokens_are_legal_rows(some):
    x = plan_tokens(*some)
    assert torch.equal(encode_graphs(decode_graphs(x)), x)
    real = x != PAD
    assert graph_space(8).legal[torch.arange(36).expand_as(x)[real], x[real]].all()


def test_rooms_do_not_overlap_and_stay_on_the_canvas(all_plans):
    types, boxes = (v[:20000] for v in all_plans)
    real = types != PAD
    assert boxes.min() >= 0 and boxes.max() <= 255 and (boxes[real][:, 2:] - boxes[real][:, :2]).min() >= 6
    i, j = np.triu_indices(8, 1)
    solid = real & (types != 0)
    low, high = np.maximum(boxes[:, i, :2], boxes[:, j, :2]), np.minimum(boxes[:, i, 2:], boxes[:, j, 2:])
    assert not (solid[:, i] & solid[:, j] & (low < high).all(2)).any()


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
        inner = boxes[(types != PAD) & (types != 9)]
        for a, b, c, d in boxes[types == 9]:
            hits = (inner[:, 0] < c) & (inner[:, 2] > a) & (inner[:, 1] < d) & (inner[:, 3] > b)
            assert not hits[types[(types != PAD) & (types != 9)] != 0].any()


def test_archetypes_follow_their_law(all_plans):
    kinds, share = archetypes()
    p = np.diff(share, prepend=0)/share[-1]
    of = {tuple(sorted(k)): q for k, q in zip(kinds.tolist(), p)}
    got, count = np.unique(np.sort(all_plans.types, 1), axis=0, return_counts=True)
    expected = np.array([of[tuple(k)] for k in got.tolist()])*80788
    z = ((count - expected)/np.sqrt(expected))[expected > 50]
    assert len(z) > 40 and abs(z).max() < 4.5 and .5 < (z**2).mean() < 1.6


def test_slots_are_a_tour(all_plans):
    "Consecutive slots (but the living room) are nearer than others; the living room is mostly late"
    types, boxes = all_plans
    mid = (boxes[..., :2] + boxes[..., 2:]).astype(float)/2
    i, j = np.triu_indices(8, 1)
    far = abs(mid[:, i] - mid[:, j]).sum(2)
    ok = (types[:, i] % PAD != 0) & (types[:, j] % PAD != 0)
    assert far[:, j == i+1][ok[:, j == i+1]].mean() < .8*far[:, j > i+1][ok[:, j > i+1]].mean()
    n = (types != PAD).sum(1); at = (types == 0).argmax(1)
    assert .65 < (at == n-1).mean() < .85 and .1 < (at == n-2).mean() < .3 and (at == 0).any()


def test_dice_are_fair_and_independent():
    z = np.array([1234567 + 0x9E3779B97F4A7C15], np.uint64)
    assert module.splitmix64(z)[0] == 6457827717110365317  # first output of splitmix64 from 1234567
    k = np.arange(20000)
    rolls = np.concatenate([dice(s, k)(name, 16, 3) for s in (0, 1) for name in ('gap', 'hub')], 1)
    assert abs(np.stack([np.bincount(r, minlength=16) for r in rolls.T]) - 1250).max() < 5*1250**.5
    assert abs(np.corrcoef(rolls.T) - np.eye(12)).max() < 5*20000**-.5
    assert abs(np.corrcoef(rolls[:-1, 0], rolls[1:, 0])[0, 1]) < 5*20000**-.5


def test_no_plans_is_refused():
    with pytest.raises(ValueError, match='at least one'): plans(0)
