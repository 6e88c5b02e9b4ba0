"Pictures: places obey the relations, every artist is drawn, bad input is refused before anything is drawn."
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from matplotlib.colors import to_rgb
from remask.domains import graph_plot
from remask.core import plot
from remask.domains.graphs import MASK, NO_EDGE, N_ROOMS, PAD, Graph
from remask.domains.graphs import encode_graphs, graph_space, pairs, relate
from remask.core.tokens import TokenSpace

SPACE = TokenSpace(2, 3, torch.tensor([[1, 1, 0, 0]]*6).bool())
# two plans of the Graph2Plan data set: types, boxes
EIGHT = (7, 7, 3, 9, 2, 0, 9, 1)
EIGHT_BOXES = [[115, 69, 153, 115], [152, 102, 199, 141], [152, 140, 199, 161], [198, 160, 217, 188],
               [152, 160, 199, 188], [56, 114, 153, 188], [40, 114, 57, 165], [56, 69, 115, 115]]
SIX = (7, 1, 9, 3, 0, 2)
SIX_BOXES = [[67, 142, 135, 197], [134, 142, 191, 197], [134, 196, 191, 216], [67, 101, 111, 143],
             [89, 42, 191, 143], [67, 42, 90, 102]]
REAL = [(EIGHT, EIGHT_BOXES), (SIX, SIX_BOXES)]
WEST, EAST, NORTH, SOUTH = {0, 1, 2}, {7, 8, 9}, {0, 3, 8}, {1, 6, 9}  # relations by their direction


@pytest.fixture(autouse=True)
def no_figures_left():
    plt.close('all')
    yield
    plt.close('all')


def diagram(types, boxes, th=5):
    at = pairs(len(types)).tolist()
    related = [(ij, int(r)) for ij, r in zip(at, relate(boxes, th)) if r != NO_EDGE]
    return Graph(tuple(types), tuple((*ij, r - N_ROOMS) for ij, r in related))


def wrong_edges(g, z, but=()):
    "The edges whose relation the places z do not satisfy"
    for i, j, r in g.edges:
        if (i, j) in but: continue
        (xi, yi), (xj, yj) = z[i], z[j]
        across = r in WEST and not xi < xj or r in EAST and not xi > xj
        down = r in NORTH and not yi < yj or r in SOUTH and not yi > yj
        if across or down: yield i, j, r


def random_boxes(n, seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 60, (n, 2))
    return np.concatenate([low, low + rng.integers(4, 40, (n, 2))], 1)


@pytest.mark.parametrize('types,boxes', REAL)
def test_layouts_of_real_plans_satisfy_every_relation(types, boxes):
    g = diagram(types, boxes)
    assert len(g.edges) == {8: 13, 6: 9}[len(types)]
    z = graph_plot.layout(g)
    assert not list(wrong_edges(g, z))
    distance = np.linalg.norm(z[:, None] - z[None], axis=-1)
    assert distance[np.triu_indices(len(z), 1)].min() > .8  # circles have radius .4: none covers another


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 14), st.integers(0, 10**6))
def test_layouts_of_any_boxes_satisfy_every_relation_without_contradiction(n, seed):
    g = diagram((0,)*n, random_boxes(n, seed))
    assert graph_plot.orders(g)[2] == set()
    z = graph_plot.layout(g)
    assert z.shape == (n, 2) and np.isfinite(z).all() and not list(wrong_edges(g, z))


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10**6))
def test_layouts_of_random_diagrams_satisfy_all_but_the_edges_drawn_red(n, seed):
    rng = np.random.default_rng(seed)
    at = [ij for ij in pairs(n).tolist() if rng.random() < .6]
    g = Graph((0,)*n, tuple((i, j, int(rng.integers(10))) for i, j in at))
    against = graph_plot.orders(g)[2]
    assert not list(wrong_edges(g, graph_plot.layout(g), against))
    ax = graph_plot.show_graph(g)
    unmarked = [line for line in ax.lines if line.get_marker() in (None, 'None')]
    assert sum(line.get_color() == 'crimson' for line in unmarked) == len(against)


def test_layout_is_the_same_every_time():
    g = diagram(*REAL[0])
    np.testing.assert_array_equal(graph_plot.layout(g), graph_plot.layout(g))


def test_a_cycle_of_relations_is_found():
    assert graph_plot.orders(Graph((0, 1, 2), ((0, 1, 2), (1, 2, 2), (0, 2, 7))))[2] == {(0, 2)}
    assert graph_plot.orders(Graph((0, 1, 2), ((0, 1, 3), (1, 2, 3), (0, 2, 6))))[2] == {(0, 2)}
    assert graph_plot.orders(Graph((0, 1, 2), ((0, 1, 2), (1, 2, 2), (0, 2, 2))))[2] == set()


def test_a_diagram_has_a_circle_per_room_a_line_per_edge_and_a_dot_per_inner_room():
    g = Graph((0, 1, 2, 3), ((0, 1, 3), (0, 2, 5), (1, 2, 7), (2, 3, 4)))
    ax = graph_plot.show_graph(g)
    assert (len(ax.patches), len(ax.texts), len(ax.lines)) == (4, 4, 4 + 2)
    assert [t.get_text() for t in ax.texts] == ['Living', 'Master', 'Kitchen', 'Bath']
    low, high = ax.get_ylim()
    assert low > high  # y points down, so that "above" is up
    places = [p.center for p in ax.patches]
    dots = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == 'o']
    distances = [[np.linalg.norm(d - p) for p in places] for d in dots]
    assert [int(np.argmin(d)) for d in distances] == [2, 2]  # 2, the inner room of both edges


def test_the_unmasked_part_of_a_row_is_drawn():
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


def test_grids_and_films_have_a_panel_per_picture():
    gs = [Graph((0, 1), ((0, 1, 2),))]*5
    assert len(graph_plot.show_graphs(gs, cols=3)) == 5 and len(plt.gcf().axes) == 6
    assert len(graph_plot.show_graphs(encode_graphs(gs), titles=list('abcde'))) == 5
    x = encode_graphs(gs)[0]
    masked = torch.where(x == PAD, PAD, MASK)
    axs = graph_plot.show_film(torch.stack([masked, x, x]), frames=6)
    assert [ax.get_title() for ax in axs] == ['step 0', 'step 1', 'step 2']
    assert len({tuple(p.center) for ax in axs for p in ax.patches}) == 2  # nothing moves


def test_tokens_are_cells_with_names_and_bars():
    x = torch.tensor([[0, 1, 2, 2, 3, 3], [1, 1, 1, 0, 0, 0]])
    ax = plot.show_tokens(x, SPACE, 'ab', p=torch.full(x.shape, .5))
    cells, bars = ax.patches[::2], ax.patches[1::2]
    hatched = [bool(c.get_hatch()) for c in cells]
    assert len(cells) == 10 and hatched[:4] == [False, False, True, True]
    assert ''.join(t.get_text() for t in ax.texts) == 'abbbbaaa'
    assert all(b.get_height() == pytest.approx(-.46) for b in bars)
    assert len({c.get_facecolor() for c in cells if not c.get_hatch()}) == 2
    row = encode_graphs([Graph((0, 1), ((0, 1, 4),))])[0]
    texts = plot.show_tokens(row, graph_space(8), **graph_plot.GRAPH_LOOK).texts
    assert [t.get_text() for t in texts] == ['Living', 'Master', '⊂']


def test_a_trajectory_marks_every_event_once():
    s = torch.tensor([[2, 2, 2, 3, 3, 3], [0, 2, 1, 3, 3, 3], [2, 2, 1, 3, 3, 3], [1, 0, 1, 3, 3, 3]])
    ax = plot.show_trajectory(s, SPACE, 'ab')
    unmasked, remasked = [{tuple(p) for p in c.get_offsets().tolist()} for c in ax.collections]
    assert unmasked == {(1, 0), (1, 2), (3, 0), (3, 1)}  # (step, position)
    assert remasked == {(2, 0)}
    assert ax.images[0].get_array().shape == (3, 4, 3)   # PAD is not drawn
    assert [t.get_text() for t in ax.texts] == ['b', 'a', 'b']


def test_curves_bands_and_reference():
    y = np.arange(5.)
    curves = {'cap': y, 'mdlm': (y*2, np.stack([y, y + 2]))}
    ax = plot.show_curve(curves, ref=y, xlabel='t', ylabel='alpha')
    ref, cap, mdlm = ax.lines
    assert ref.get_linestyle() == '--' and (ax.get_xlabel(), ax.get_ylabel()) == ('t', 'alpha')
    assert cap.get_color() == plot.colour('cap') and mdlm.get_color() == plot.colour('mdlm')
    np.testing.assert_array_equal(mdlm.get_xydata(), np.stack([y*2, y + 1], 1))
    assert len(ax.collections) == 1
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ['reference', 'cap', 'mdlm']


def test_bars_keep_order_colour_and_spread():
    df = pd.DataFrame(dict(a=[1., 2.], a_std=[.1, .2], b=[3., 4.]), index=['cap', 'mdlm'])
    axs = plot.show_bars(df, ref=dict(a=1.5))
    assert [ax.get_title() for ax in axs] == ['a', 'b']
    assert [p.get_width() for p in axs[0].patches] == [1, 2]
    for p, name in zip(axs[1].patches, df.index):
        assert p.get_facecolor()[:3] == pytest.approx(to_rgb(plot.colour(name)))
    assert axs[0].yaxis_inverted()  # the first row on top
    assert sum(line.get_linestyle() == '--' for ax in axs for line in ax.lines) == 1


def test_a_plan_draws_small_rooms_over_large_ones():
    types, boxes = (2, 0, 3), [[0, 0, 10, 10], [0, 0, 50, 40], [30, 20, 50, 40]]
    ax = graph_plot.show_plan(types, boxes)
    assert [p.get_width() for p in ax.patches] == [50, 20, 10]
    assert [t.get_text() for t in ax.texts] == ['Living', 'Bath', 'Kitchen'] and ax.yaxis_inverted()


def published():
    "Ids of the published methods"
    for mode in ('llada', 'random'):
        yield f'{mode}_argmax_no_remask'
        yield f'{mode}_topp09_no_remask'
        for eta in ('02', '04', '06', '08', '10'): yield f'{mode}_topp09_remdm_cap_eta{eta}'
        for t in ('03', '05', '07', '10'): yield f'{mode}_topp09_remdm_confidence_tsw{t}'


def test_a_name_has_one_colour_and_the_published_methods_have_22():
    assert len({plot.colour(n) for n in published()}) == 22
    assert plot.colour('mdlm') == plot.colour('mdlm') and plot.colour('data') == plot.colour('reference')
    assert all(len(to_rgb(plot.colour(n))) == 3 for n in ('', 'x', 'a name with blanks'))


def test_the_held_out_reference_has_one_colour_that_no_method_has():
    assert plot.colour('heldout') == plot.colour('held-out')
    others = {plot.colour(n) for n in (*published(), 'data')}
    assert plot.colour('heldout') not in others


FRAMES, STATES = torch.zeros(36, dtype=int), torch.zeros(6, dtype=int)
PAIR = Graph((0, 1), ())


@pytest.mark.parametrize('draw,arguments,why', [
    (graph_plot.show_graph, [torch.zeros(7)], 'n\\(n\\+1\\)/2'),
    (graph_plot.show_graph, [torch.zeros(2, 36)], 'n\\(n\\+1\\)/2'),
    (graph_plot.show_graph, [FRAMES], 'a room stands where a relation belongs'),
    (graph_plot.show_graph, [PAIR, None, np.zeros((3, 2))], 'as many places'),
    (graph_plot.show_graphs, [[]], 'no diagrams'),
    (graph_plot.show_film, [FRAMES], r'must be \(S,L\)'),
    (plot.show_trajectory, [STATES, SPACE], r'must be \(S,L\)'),
    (plot.show_tokens, [torch.zeros(2, 6, dtype=int), SPACE, None, STATES], 'one number per token'),
    (plot.show_curve, [{}], 'curves is empty'),
    (plot.show_trajectories, [{}, SPACE], 'runs is empty'),
    (plot.show_trajectories, [dict(a=STATES), SPACE], r'must be \(S,L\)'),
    (plot.show_bars, [pd.DataFrame(dict(a=[1])), ['b']], "no column 'b': there are a"),
    (graph_plot.show_plan, [(0, 1), [[0, 0, 1, 1]]], '2 types need'),
])
def test_bad_input_is_refused_before_a_figure_is_opened(draw, arguments, why):
    with pytest.raises(ValueError, match=why): draw(*arguments)
    assert not plt.get_fignums()


def test_many_curves_get_a_wider_figure_and_a_legend_beside_it():
    y = np.arange(5.)
    curves = {f'a long name of a method {k}': y for k in range(4)}
    many = plot.show_curve(dict(curves))
    curves.popitem()
    few = plot.show_curve(curves)
    for ax in few, many: ax.figure.draw_without_rendering()
    inside, beside = few.get_window_extent(), many.get_window_extent()
    assert beside.width > .8*inside.width
    assert many.get_legend().get_window_extent().x0 > beside.x1


def test_trajectories_are_one_strip_per_name_in_its_colour():
    s = torch.tensor([[2, 2, 2, 3], [0, 2, 1, 3], [0, 1, 1, 3]])
    axs = plot.show_trajectories({'cap': s, 'mdlm': s[[0, 2, 2]]}, SPACE, 'ab')
    assert [ax.get_title('left') for ax in axs] == ['cap', 'mdlm']
    for ax in axs: assert ax._left_title.get_color() == plot.colour(ax.get_title('left'))
    assert len(axs[0].collections[0].get_offsets()) == 3
    assert axs[1].images[0].get_array().shape == (3, 3, 3)
    lone = plot.show_trajectory(s, SPACE, 'ab')
    for a, b in zip(axs[0].collections, lone.collections):
        np.testing.assert_array_equal(a.get_offsets(), b.get_offsets())


def test_a_crowded_diagram_is_drawn_larger_so_that_no_room_covers_another():
    near = np.array([[0., 0.], [.6, 0.], [3., 1.]])
    np.testing.assert_allclose(graph_plot._apart(near), near*.85/.6)
    np.testing.assert_array_equal(graph_plot._apart(near*2), near*2)    # there was room enough
    np.testing.assert_array_equal(graph_plot._apart(near/10), near/10*1.5)  # never beyond half as much again
    np.testing.assert_array_equal(graph_plot._apart(near[:1]), near[:1])
    one_place = np.zeros((2, 2))
    np.testing.assert_array_equal(graph_plot._apart(one_place), one_place)
