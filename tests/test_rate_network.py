"""The learned schedule and its training against plain versions of the published formulas."""
import copy, math, subprocess, sys
from pathlib import Path
import pytest, torch
from hypothesis import given, settings, strategies as st
from remask.core.denoiser import Denoiser
from remask.core.files import save_net
from remask.core.forward import mask_forward, straight_through
from remask.domains.graphs import MASK, NO_EDGE, N_ROOMS, PAD, V, Graph
from remask.domains.graphs import encode_graphs, graph_position_features, graph_rate_network, graph_space
from remask.core.loss import token_weights
from remask.methods.generation import generate_rows
from remask.methods.registry import get_method
from remask.core.rate_network import RateNetwork, load_rate_network, mixed_powers
from remask.core.schedules import check_schedule, elbo_weight, linear, slope, uniform_grid
from remask.core.tokens import fully_masked, is_clean, real
from remask.core.train import published_v2, row_losses

N_MAX = 4
SPACE = graph_space(N_MAX)
def diagram(k): return Graph((0, k % 3 + 1, 2, 9)[:3 + k % 2], ((0, 1, k % 3), (1, 2, 3)))


ROWS = encode_graphs([diagram(k) for k in range(24)], N_MAX)
TOKEN_WEIGHT = token_weights(ROWS, torch.arange(N_ROOMS, NO_EDGE + 1), V, 13)


@pytest.fixture(scope='module')
def rates():
    torch.manual_seed(3)
    out = graph_rate_network(N_MAX)
    for p in out.parameters(): torch.nn.init.normal_(p, std=.7)     # positions differ clearly
    return out


def plain_layer(f, h):
    "A linear layer by plain arithmetic"
    rows = zip(f.weight.tolist(), f.bias.tolist())
    return [sum(a*b for a, b in zip(row, h)) + c for row, c in rows]


def alpha_of(rates, l, t):
    "alpha of one position by plain arithmetic: embedding, layers, softplus, polynomial, sigmoid"
    pairs = [(i, j) for i in range(N_MAX) for j in range(i + 1, N_MAX)]
    slots = [l] if l < N_MAX else pairs[l - N_MAX]
    h = [sum(rates.slots[s, d].item() for s in slots) for d in range(32)]
    h = plain_layer(rates.kind[int(l >= N_MAX)], h)
    h = plain_layer(rates.mix[0], h)
    w = plain_layer(rates.mix[2], [z/(1 + math.exp(-z)) for z in h])
    w = [math.log1p(math.exp(-abs(z))) + max(z, 0) for z in w]
    mixed = sum(a*t**(k + 1) for k, a in enumerate(w))/sum(w)
    return 1/(1 + math.exp(-13 + 18*mixed))


@pytest.mark.parametrize('t', [0., .3, .77, 1.])
def test_alpha_is_the_published_formula(rates, t):
    got = rates(t, torch.ones(1, SPACE.L).bool())[0].tolist()
    assert got == pytest.approx([alpha_of(rates, l, t) for l in range(SPACE.L)], rel=1e-5)
    assert t != .77 or max(got) - min(got) > .01


def test_the_published_size_and_range():
    for n_max in (8, 14):
        fresh = graph_rate_network(n_max)
        assert sum(p.numel() for p in fresh.parameters()) == 32*n_max + 4484
    ends = fresh(torch.tensor([0., 1.]), torch.ones(2, 105).bool())
    assert ends[0].tolist() == pytest.approx([1/(1 + math.exp(-13))]*105, abs=1e-12)
    assert ends[1].tolist() == pytest.approx([1/(1 + math.exp(5))]*105, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_mixed_powers_rise_from_0_to_1(w, a, b):
    t = torch.tensor([[0.], [min(a, b)], [max(a, b)], [1.]], dtype=torch.float64)
    got = mixed_powers(t, torch.tensor([w], dtype=torch.float64))[:, 0]
    assert got[0] == 0 and abs(got[3] - 1) < 1e-12 and got[1] <= got[2] + 1e-12


def test_a_schedule_that_is_no_number_at_one_time_is_refused():
    def torn(t, real): return linear(t, real)/torch.where(torch.as_tensor(t == .5), 0., 1.)*(t != .5)
    with pytest.raises(ValueError, match=r'alpha leaves \[0,1\]'):
        check_schedule(torn, torch.ones(1, 3).bool())


def test_a_learned_schedule_is_a_schedule(rates):
    ok = real(SPACE, ROWS)
    check_schedule(rates, ok[:1])
    t = torch.linspace(0, 1, len(ROWS))
    alpha, da = slope(rates, t, ok)
    assert (alpha[~ok] == 1).all() and (da[~ok] == 0).all() and (da <= 0).all()
    assert (elbo_weight(rates, t, ok)[~ok] == 0).all()


def test_autocast_does_not_change_alpha(rates):
    ok = torch.ones(1, SPACE.L).bool()
    with torch.autocast('cpu', torch.bfloat16): low = rates(.8, ok)
    assert torch.equal(low, rates(.8, ok)) and low.dtype == torch.float64


def test_a_checkpoint_is_checked_when_it_is_loaded(rates, tmp_path):
    save_net(tmp_path/'rates.safetensors', rates, steps=7)
    again, origin = load_rate_network(tmp_path/'rates.safetensors', L=SPACE.L)
    ok = torch.ones(1, SPACE.L).bool()
    assert origin == dict(steps=7) and torch.equal(again(.7, ok), rates(.7, ok))
    with pytest.raises(ValueError, match='10 positions, but 36'):
        load_rate_network(tmp_path/'rates.safetensors', L=36)
    save_net(tmp_path/'net.safetensors', Denoiser(graph_position_features(4), SPACE.legal, d=16, layers=1))
    with pytest.raises(ValueError, match='net.safetensors: holds no RateNetwork'):
        load_rate_network(tmp_path/'net.safetensors')
    spoiled = copy.deepcopy(rates)
    torch.nn.init.constant_(spoiled.slots, 3e38)                         # finite, but no sum of them is
    save_net(tmp_path/'spoiled.safetensors', spoiled)
    with pytest.raises(ValueError, match='spoiled.safetensors: alpha leaves .* train it again'):
        load_rate_network(tmp_path/'spoiled.safetensors')
    with pytest.raises(ValueError, match='must rise'):
        RateNetwork(rates.members, rates.kinds, low=5., high=5.)


# ---- the published training step, written again ----

@pytest.fixture(scope='module')
def net():
    torch.manual_seed(5)
    net = Denoiser(graph_position_features(N_MAX), SPACE.legal, d=16, layers=2, dropout=0.).eval()
    for p in net.parameters(): torch.nn.init.normal_(p, std=.2)
    return net


def gumbel_masks(alpha, u, ok, tau):
    "Keep and mask weights by two Gumbel variables whose difference is logit(u), straight through"
    g_keep = torch.full_like(u, .37)                                # any value: only the difference counts
    g_mask = g_keep + (u/(1 - u)).log()
    keep = alpha.clamp(min=1e-8).log() + g_keep
    mask = (1 - alpha).clamp(min=1e-8).log() + g_mask
    logits = torch.stack([keep, mask], -1)
    soft = (logits/tau).softmax(-1)
    hard = torch.nn.functional.one_hot(logits.argmax(-1), 2).double()
    w = hard - soft.detach() + soft
    return torch.where(ok[..., None], w, torch.tensor([1., 0.], dtype=torch.float64))


def published_loss(net, rates, x0, t, u, tau):
    "Per region: sum of w_l CE / number masked there; rooms plus relations (lambda = 1), the mean over rows"
    ok = x0 != PAD
    alpha, da = slope(rates, t, ok)
    w = gumbel_masks(alpha, u, ok, tau)
    e = w[..., :1]*net.ids(x0) + w[..., 1:]*net.ids(torch.tensor(MASK))
    masked = (w[..., 1] > .5) & ok
    embed, net.embed = net.embed, lambda x: e.float()
    try: logp = net(x0, t, ok).logits.log_softmax(-1)
    finally: net.embed = embed
    weight = (-da/(1 - alpha + 1e-8)).clamp(max=1000)
    total = 0.
    for b in range(len(x0)):
        for region, scale in ((range(N_MAX), None), (range(N_MAX, SPACE.L), TOKEN_WEIGHT)):
            ce = []
            for l in region:
                if not masked[b, l]: continue
                token = x0[b, l]
                factor = 1 if scale is None else scale[token]
                ce.append(-weight[b, l]*logp[b, l, token]*factor)
            total = total + sum(ce)/max(1, len(ce))
    return total/len(x0)


@pytest.mark.parametrize('progress', [0., .6, 1.])
def test_the_published_loss_and_its_gradients(net, rates, progress):
    g = torch.Generator().manual_seed(2)
    t, u = torch.linspace(.55, 1, len(ROWS)).double(), torch.rand(ROWS.shape, generator=g).double()
    recipe = published_v2(TOKEN_WEIGHT, (~SPACE.legal[:, 0]).long(), alpha=rates)
    both = [*net.parameters(), *rates.parameters()]
    got = row_losses(net, SPACE, ROWS, recipe, t, u, progress).mean()
    want = published_loss(net, rates, ROWS, t, u, 1 - .9*progress)
    assert got.item() == pytest.approx(want.item(), rel=1e-4) and got > 0
    grads = [torch.autograd.grad(z, both, allow_unused=True) for z in (got, want)]
    for a, b in zip(*grads):
        if b is None: continue
        scale = max(1., b.abs().max().item())
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-5*scale)
    of_schedule = grads[0][-len(list(rates.parameters())):]
    assert all(a.abs().max() > 0 for a in of_schedule if a is not None)


def test_the_schedule_also_learns_through_the_choice_of_masked_positions(net, rates):
    "With the weight held fixed, the straight-through gradient alone reaches the schedule"
    g, ok = torch.Generator().manual_seed(4), real(SPACE, ROWS)
    u, t = torch.rand(ROWS.shape, generator=g), torch.full((len(ROWS),), .85)
    a = rates(t, ok)
    x = straight_through(SPACE, ROWS, mask_forward(SPACE, ROWS, a, u), a, u, .5)
    net(x, t, ok).logits.nan_to_num(neginf=0.).square().sum().backward()
    assert rates.slots.grad.abs().max() > 0
    rates.zero_grad()
    net.zero_grad()


def test_straight_through_is_hard_in_value(rates):
    g, ok = torch.Generator().manual_seed(6), real(SPACE, ROWS)
    u = torch.rand(ROWS.shape, generator=g)
    u[0], u[1] = 0., 1 - 1e-7
    a = rates(torch.linspace(0, 1, len(ROWS)), ok)
    noisy = mask_forward(SPACE, ROWS, a, u)
    w = straight_through(SPACE, ROWS, noisy, a, u, .1)
    one_hot = torch.nn.functional.one_hot(noisy.x_t, V).float()
    torch.testing.assert_close(w.detach(), one_hot, atol=1e-6, rtol=0)
    assert (noisy.x_t[~ok] == PAD).all()


# ---- in place of a fixed schedule ----

V1 = """
import sys, types, torch
import remask.core.rate_network
sys.modules['remask.core.rate_network'].RateNetwork = None   # whatever used it would fail
from test_rate_network import v1_ids
print(v1_ids())
"""


def v1_ids():
    "Ids of a few methods on the fixed schedule, by a network with a fixed seed"
    torch.manual_seed(0)
    net = Denoiser(graph_position_features(N_MAX), SPACE.legal, d=16, layers=1).eval()
    for p in net.parameters(): torch.nn.init.normal_(p, std=.3)
    x = fully_masked(SPACE, real(SPACE, ROWS))
    names = 'llada_topp09_remdm_confidence_tsw10', 'random_topp09_remdm_cap_eta02_consistent'
    return [generate_rows(net, linear, SPACE, get_method(n), x, uniform_grid(12)).x.tolist() for n in names]


def test_methods_on_a_fixed_schedule_do_not_use_the_rate_network():
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, '-c', V1], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(v1_ids())


@pytest.mark.parametrize('name', ['llada_topp09_no_remask', 'llada_topp09_remdm_confidence_tsw10',
                                  'random_topp09_remdm_confidence_tsw10_balanced',
                                  'random_topp09_remdm_cap_eta02_consistent'])
def test_the_sampler_accepts_a_learned_schedule(net, rates, name):
    "Every row is clean, is the same alone and in a batch, and alpha is evaluated once per time"
    x, calls = fully_masked(SPACE, real(SPACE, ROWS)), []
    def alpha(t, ok):
        calls.append(t)
        return rates(t, ok)
    out = generate_rows(net, alpha, SPACE, get_method(name), x, uniform_grid(20), check=True)
    assert is_clean(SPACE, out.x).all() and len(calls) <= 21*len(real(SPACE, ROWS).unique(dim=0))
    one = generate_rows(net, rates, SPACE, get_method(name), x[:1], uniform_grid(20))
    assert torch.equal(one.x, out.x[:1])
