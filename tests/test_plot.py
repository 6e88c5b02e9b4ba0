"Plots: every artist is drawn, colours are stable, bad input is refused before anything is drawn."
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest, torch
from helpers import refusal
from matplotlib.colors import to_rgb
from remask.domains import graph_plot
from remask.core import plot
from remask.domains.graphs import Graph
from remask.domains.graphs import encode_graphs, graph_space
from remask.core.tokens import TokenSpace

pytestmark = pytest.mark.usefixtures('no_figures_left')
SPACE = TokenSpace(2, 3, torch.tensor([[1, 1, 0, 0]]*6).bool())

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


STATES = torch.zeros(6, dtype=int)


@pytest.mark.parametrize('message, call', [
    refusal(r'must be \(S,L\)', plot.show_trajectory, STATES, SPACE),
    refusal('one number per token', plot.show_tokens, torch.zeros(2, 6, dtype=int), SPACE, p=torch.zeros(6)),
    refusal('curves is empty', plot.show_curve, {}),
    refusal('runs is empty', plot.show_trajectories, {}, SPACE),
    refusal(r'must be \(S,L\)', plot.show_trajectories, dict(a=STATES), SPACE),
    refusal("no column 'b': there are a", plot.show_bars, pd.DataFrame(dict(a=[1])), ['b']),
])
def test_bad_input_is_refused_before_a_figure_is_opened(message, call):
    with pytest.raises(ValueError, match=message): call()
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
