"Bubble diagrams: positions agree with the relations, every artist is drawn, bad input is refused."
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from remask.domains import graph_plot
from remask.domains.graphs import MASK, NO_EDGE, N_ROOMS, PAD, Graph, encode_graphs, pairs, relate

pytestmark = pytest.mark.usefixtures('no_figures_left')


def parsed(text): return [[int(v) for v in box.split()] for box in text.split(',')]


# two plans of the Graph2Plan data set: types, boxes
EIGHT = parsed('115 69 153 115, 152 102 199 141, 152 140 199 161, 198 160 217 188, '
               '152 160 199 188, 56 114 153 188, 40 114 57 165, 56 69 115 115')
SIX = parsed('67 142 135 197, 134 142 191 197, 134 196 191 216, 67 101 111 143, 89 42 191 143, 67 42 90 102')
REAL = [((7, 7, 3, 9, 2, 0, 9, 1), EIGHT), ((7, 1, 9, 3, 0, 2), SIX)]
WEST, EAST = {0, 1, 2}, {7, 8, 9}  # relations by direction
NORTH, SOUTH = {0, 3, 8}, {1, 6, 9}


def diagram(types, boxes, th=5):
    ids, at = relate(boxes, th), pairs(len(types)).tolist()
    edges = [(i, j, int(r) - N_ROOMS) for (i, j), r in zip(at, ids) if r != NO_EDGE]
    return Graph(tuple(types), tuple(edges))


def disagreeing(g, z, but=()):
    "The edges whose relation the positions z contradict"
    for i, j, r in g.edges:
        if (i, j) in but: continue
        (xi, yi), (xj, yj) = z[i], z[j]
        if r in WEST and not xi < xj or r in EAST and not xi > xj: yield i, j, r
        if r in NORTH and not yi < yj or r in SOUTH and not yi > yj: yield i, j, r


def random_boxes(n, seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 60, (n, 2))
    return np.concatenate([low, low + rng.integers(4, 40, (n, 2))], 1)


@pytest.mark.parametrize('types,boxes', REAL)
def test_the_layout_of_real_plans_agrees_with_the_relations(types, boxes):
    g = diagram(types, boxes)
    assert len(g.edges) == {8: 13, 6: 9}[len(types)]
    z = graph_plot.layout(g)
    assert not list(disagreeing(g, z))
    gaps = np.linalg.norm(z[:, None] - z[None], axis=-1)
    assert gaps[np.triu_indices(len(z), 1)].min() > .8  # circles have radius .4: none covers another


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 14), st.integers(0, 10**6))
def test_the_layout_of_any_boxes_agrees_with_the_relations_without_contradiction(n, seed):
    g = diagram((0,)*n, random_boxes(n, seed))
    assert graph_plot.orders(g)[2] == set()
    z = graph_plot.layout(g)
    assert z.shape == (n, 2) and np.isfinite(z).all() and not list(disagreeing(g, z))


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10**6))
def test_the_layout_of_random_diagrams_agrees_with_all_edges_but_the_red_ones(n, seed):
    rng = np.random.default_rng(seed)
    at = [ij for ij in pairs(n).tolist() if rng.random() < .6]
    edges = [(i, j, int(rng.integers(10))) for i, j in at]
    g = Graph((0,)*n, tuple(edges))
    against = graph_plot.orders(g)[2]
    assert not list(disagreeing(g, graph_plot.layout(g), against))
    ax = graph_plot.show_graph(g)
    red = [line for line in ax.lines if line.get_color() == 'crimson' and line.get_marker() in (None, 'None')]
    assert len(red) == len(against)


def test_layout_is_the_same_every_time():
    g = diagram(*REAL[0])
    np.testing.assert_array_equal(graph_plot.layout(g), graph_plot.layout(g))


def test_a_cycle_of_relations_is_found():
    def contradictions(*edges): return graph_plot.orders(Graph((0, 1, 2), edges))[2]
    assert contradictions((0, 1, 2), (1, 2, 2), (0, 2, 7)) == {(0, 2)}
    assert contradictions((0, 1, 3), (1, 2, 3), (0, 2, 6)) == {(0, 2)}
    assert contradictions((0, 1, 2), (1, 2, 2), (0, 2, 2)) == set()


def test_a_diagram_has_a_circle_per_room_a_line_per_edge_and_a_dot_per_inside():
    g = Graph((0, 1, 2, 3), ((0, 1, 3), (0, 2, 5), (1, 2, 7), (2, 3, 4)))
    ax = graph_plot.show_graph(g)
    assert (len(ax.patches), len(ax.texts), len(ax.lines)) == (4, 4, 4 + 2)
    assert [t.get_text() for t in ax.texts] == ['Living', 'Master', 'Kitchen', 'Bath']
    low, high = ax.get_ylim()
    assert low > high  # y points down, so that "above" is up
    places = [p.center for p in ax.patches]
    dots = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == 'o']
    near = [int(np.argmin([np.linalg.norm(d - p) for p in places])) for d in dots]
    assert near == [2, 2]  # the inner room of both: 0 surrounds 2, 2 is inside 3


def test_a_partly_masked_row_has_hatched_rooms_and_faint_relations():
    x = encode_graphs([Graph((0, 1, 2), ((0, 1, 3), (0, 2, 7)))])[0]
    x[1], x[8] = MASK, MASK  # room 1, and the relation of rooms 0 and 1
    ax = graph_plot.show_graph(x, at=np.array([[0, 0], [1, 1], [2, 0.]]))
    assert [p.get_hatch() for p in ax.patches] == [None, '////', None]
    assert len(ax.texts) == 2 and sorted(line.get_linestyle() for line in ax.lines) == ['-', ':']
    masked = torch.where(x == PAD, PAD, MASK)
    assert len(graph_plot.show_graph(masked).lines) == 3


def test_n_max_is_read_from_the_row():
    g = Graph((0, 1, 2), ((0, 2, 3),))
    for n_max in (3, 8, 14): assert graph_plot._read(encode_graphs([g], n_max)[0])[:2] == tuple(g)


def test_a_crowded_diagram_is_drawn_larger_so_that_no_room_covers_another():
    near = np.array([[0., 0.], [.6, 0.], [3., 1.]])
    np.testing.assert_allclose(graph_plot._apart(near), near*.85/.6)
    np.testing.assert_array_equal(graph_plot._apart(near*2), near*2)    # there was room enough
    np.testing.assert_array_equal(graph_plot._apart(near/10), near/10*1.5)  # never beyond half as much again
    np.testing.assert_array_equal(graph_plot._apart(near[:1]), near[:1])
    one_place = np.zeros((2, 2))
    np.testing.assert_array_equal(graph_plot._apart(one_place), one_place)


def test_a_grid_has_a_panel_per_diagram():
    gs = [Graph((0, 1), ((0, 1, 2),))]*5
    assert len(graph_plot.show_graphs(gs, cols=3)) == 5 and len(plt.gcf().axes) == 6
    assert len(graph_plot.show_graphs(encode_graphs(gs), titles=list('abcde'))) == 5


@pytest.mark.parametrize('g, at, why', [
    (torch.zeros(7), None, 'n\\(n\\+1\\)/2'), (torch.zeros(2, 36), None, 'n\\(n\\+1\\)/2'),
    (torch.zeros(36, dtype=int), None, 'a room stands where a relation belongs'),
    (Graph((0, 1), ()), np.zeros((3, 2)), 'as many places')])
def test_a_bad_diagram_is_refused_before_a_figure_is_opened(g, at, why):
    with pytest.raises(ValueError, match=why): graph_plot.show_graph(g, at=at)
    assert not plt.get_fignums()


def test_a_grid_without_diagrams_is_refused_before_a_figure_is_opened():
    with pytest.raises(ValueError, match='no diagrams'): graph_plot.show_graphs([])
    assert not plt.get_fignums()
