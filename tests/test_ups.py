"""The UPS head: its training rows, its labels, its gradient, and the error where it is missing."""
import math
import pytest, torch

from remask.core.denoiser import Denoised, Denoiser
from remask.core.files import save_net
from remask.core.forward import Noisy
from remask.core.sampler import Noise, Process, categorical, observe
from remask.core.schedules import linear
from remask.domains.text import Vocabulary
from remask.core.train import Recipe, fit, row_losses
from remask.policies.ups import Headed, ScoreHead, by_head, load_head, on_decoded, remask_noise, ups_loss

VOCAB, L = Vocabulary.of('abcdef'), 10
SPACE = VOCAB.space(L)


def rows(B, seed=0):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 6, (B, L), generator=gen)
    x[:, -2:] = VOCAB.pad
    return x


def uniforms(B, seed=1): return torch.rand(B, L, 2, generator=torch.Generator().manual_seed(seed))
def denoiser(d=16, seed=0):
    torch.manual_seed(seed)
    return Denoiser(torch.zeros(L, 0), SPACE.legal, d, 1, 2, 0., False)


# ---- noise

@pytest.mark.parametrize('t', [.1, .5, .9])
@pytest.mark.parametrize('r', [0., .1, .24])
def test_remask_noise_has_the_published_rates(r, t):
    x0, B = rows(40_000), 40_000
    x, asked, target = remask_noise(r)(SPACE, x0, torch.tensor([[1 - t]]), uniforms(B))
    ok = x0 != VOCAB.pad
    wrong = ~asked & (x != x0)
    assert torch.equal(target, x0) and torch.equal(x == VOCAB.mask, asked)
    assert not (wrong | asked)[~ok].any()
    assert SPACE.legal[0][x[wrong]].all()                                   # never MASK, PAD or WRONG
    def share(a, b): return a.double().sum().item()/b.sum().item()
    assert abs(share(asked, ok) - t) < .01
    assert abs(share(wrong, ok & ~asked) - 4*r*t*(1 - t)) < .01


def test_over_all_times_a_third_of_r_is_wrong():
    x0, r = rows(200_000), .2
    t = (torch.arange(200_000) + .5)[:, None]/200_000
    x, asked, _ = remask_noise(r)(SPACE, x0, 1 - t, uniforms(200_000))
    wrong = (~asked & (x != x0)).double().sum().item()
    assert abs(wrong/(x0 != VOCAB.pad).sum().item() - r/3) < .001


def test_every_other_token_has_the_same_probability():
    x0 = torch.zeros(60_000, L, dtype=torch.long)
    x, asked, _ = remask_noise(.2)(SPACE, x0, torch.tensor([[.5]]), uniforms(60_000))
    n = x[~asked & (x != 0)].bincount(minlength=6)[1:].double()
    assert (abs(n/n.sum() - .2) < .01).all()


@pytest.mark.parametrize('r', [-.1, .25, 1., float('nan')])
def test_more_wrong_than_masked_tokens_are_refused(r):
    with pytest.raises(ValueError, match=r'must lie in \[0,1/4\)'): remask_noise(r)


# ---- loss

def test_labels_of_correct_wrong_and_masked_tokens_and_of_pad():
    logits = torch.randn(1, L, VOCAB.V, generator=torch.Generator().manual_seed(0))
    x0 = rows(1)
    x = x0.clone()
    x[0, 0], x[0, 1] = VOCAB.mask, (x0[0, 1] + 1) % 6
    h = torch.linspace(-2, 3, L)[None]
    got = ups_loss(SPACE)(Denoised(logits, None, dict(ups=h)), Noisy(x, x == VOCAB.mask, x0)).item()
    p_masked = logits[0, 0].softmax(-1)[x0[0, 0]].item()
    def bce(label, v):
        p = 1/(1 + math.exp(-v))
        return -(label*math.log(p) + (1 - label)*math.log(1 - p))
    want = sum(bce(label, v) for label, v in zip([p_masked, 0.] + [1.]*6, h[0].tolist()))
    assert math.isclose(got, want/8, rel_tol=1e-5)                           # two of ten are PAD


def test_the_gradient_stays_in_the_head_and_grows_with_its_weight():
    x0 = rows(8)
    def gradients(weight):
        net = Headed(denoiser(), ups=ScoreHead(16, 4))
        torch.manual_seed(5)
        for p in net.heads.parameters(): torch.nn.init.normal_(p)
        noisy = remask_noise()(SPACE, x0, torch.tensor([[.5]]), uniforms(8))
        ups_loss(SPACE, weight=weight)(net(noisy.x_t, .5, x0 != VOCAB.pad), noisy).sum().backward()
        assert all(p.grad is None for p in net.net.parameters())
        return torch.cat([p.grad.flatten() for p in net.heads.parameters()])
    one, three = gradients(1.), gradients(3.)
    assert one.abs().max() > 0 and torch.allclose(three, 3*one)


def test_the_loss_of_a_recipe_is_the_sum_of_both():
    x0, u = rows(6), uniforms(6)
    net, t = Headed(denoiser(), ups=ScoreHead(16)), torch.full((6,), .6)
    base = Recipe(remask_noise(), 2)
    noisy = remask_noise()(SPACE, x0, linear(t, x0 != VOCAB.pad), u)
    bce = ups_loss(SPACE)(net(noisy.x_t, .6, x0 != VOCAB.pad), noisy)
    apart = row_losses(net, SPACE, x0, base, t, u)
    both = row_losses(net, SPACE, x0, base._replace(heads=ups_loss(SPACE)), t, u)
    assert noisy.in_loss.any(1).all() and torch.allclose(both, apart + bce, atol=1e-6)


def test_a_frozen_network_stays_bit_for_bit_and_its_head_resumes(tmp_path):
    plan = Recipe(remask_noise(.2), 2, heads=ups_loss(SPACE), lr=1e-2, warmup=1, batch=16)
    def trained(folder, *stops):
        net = Headed(denoiser().requires_grad_(False), ups=ScoreHead(16))
        for n in stops: got = fit(net, SPACE, rows(64), plan, n, folder)
        return got.net
    once, twice = trained(tmp_path/'a', 6), trained(tmp_path/'b', 3, 6)
    for a, b in zip(once.net.parameters(), denoiser().parameters()): assert torch.equal(a, b)
    for a, b, c in zip(once.heads.parameters(), twice.heads.parameters(), ScoreHead(16).parameters()):
        assert torch.equal(a, b) and not torch.equal(a, c)


# ---- sampler

def state(heads, masked=()):
    x = rows(2)
    x[:, list(masked)] = VOCAB.mask
    def denoise(x, t, ok): return Denoised(torch.zeros(*x.shape, VOCAB.V), None, heads)
    proc, noise = Process(denoise, linear, SPACE), Noise(0, torch.arange(2))
    return observe(proc, x, torch.ones(2, L), x != VOCAB.pad, .5, .4, categorical(), noise, 0)


def test_on_decoded_uses_the_head_at_unmasked_positions():
    h = torch.arange(2.*L).view(2, L)
    st, score = state(dict(ups=h), masked=(0, 3)), torch.sigmoid(h.double())
    assert torch.allclose(by_head()(st), score)
    got = on_decoded(by_head())(st)
    assert torch.equal(got[st.masked], st.p[st.masked])
    assert torch.equal(got[st.decoded], score[st.decoded])


def test_a_missing_head_raises():
    prism = dict(prism=torch.zeros(2, L))
    with pytest.raises(ValueError, match=r"no head 'ups' \(it has: none\)"): by_head()(state({}))
    with pytest.raises(ValueError, match=r"no head 'ups' \(it has: prism\)"): by_head()(state(prism))


def test_a_head_is_saved_with_its_shape(tmp_path):
    head, path = ScoreHead(16, 4), tmp_path/'h.safetensors'
    save_net(path, head, steps=7)
    got, origin = load_head(path, 16)
    h = torch.randn(2, 3, 16)
    assert torch.equal(got(h), head(h)) and origin == dict(steps=7)
    with pytest.raises(ValueError, match='of width 16, the network has 32'): load_head(path, 32)
    with pytest.raises(ValueError, match='no such file'): load_head(tmp_path/'none.safetensors', 16)
    save_net(tmp_path/'n.safetensors', denoiser())
    with pytest.raises(Exception) as e: load_head(tmp_path/'n.safetensors', 16)
    assert type(e.value) is ValueError and 'n.safetensors' in str(e.value)
