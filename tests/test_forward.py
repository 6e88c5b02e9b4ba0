"""Forward processes of text: shares, gaps and replacements against plain rewritings."""
import pytest, torch
from hypothesis import given, settings, strategies as st
from remask.core.tokens import TokenSpace, is_clean
from remask.core.forward import any_of, decoys, mask_forward, other_token, spans, sticky

L, MASK, PAD, V = 40, 5, 6, 7
SPACE = TokenSpace(MASK, PAD, (torch.arange(V) < 5).expand(L, -1))


def rows(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(5, (n, L), generator=g)
    size = torch.randint(10, L + 1, (n, 1), generator=g)
    return torch.where(torch.arange(L) < size, x, PAD), g


def unchanged_outside_the_loss(x0, n):
    assert n.x_t[~n.in_loss].equal(x0[~n.in_loss])
    assert n.target.equal(x0)


def masks_exactly_the_loss_positions(x0, n):
    assert n.x_t[n.in_loss].eq(MASK).all()
    assert not n.in_loss[x0 == PAD].any()
    unchanged_outside_the_loss(x0, n)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.floats(0, 1), st.floats(.01, .5), st.floats(0, 1))
def test_sticky_gaps_have_the_exact_share(seed, alpha, p1, p2):
    x0, g = rows(16, seed)
    alpha_t = torch.full((16, 1), alpha, dtype=torch.float64)
    u = torch.rand(16, L, 7, generator=g)
    n = sticky(p1, p2, 6)(SPACE, x0, alpha_t, u)
    masks_exactly_the_loss_positions(x0, n)
    want = ((1 - alpha)*(x0 != PAD).double()).sum(1)
    excess = n.in_loss.sum(1) - want
    assert excess.min() > -1e-9
    assert excess.max() < 1 + 1e-9


def grown(masked, u, p1, p2):
    "One round: a position is masked with probability p2 beside a masked one, else p1"
    beside = [any(masked[max(i-1, 0):i+2]) for i in range(len(masked))]
    bounds = [p2 if b else p1 for b in beside]
    return [m or v < bound for m, v, bound in zip(masked, u, bounds)]


def test_sticky_gaps_grow_like_the_plain_rounds():
    "Before the share is made exact: position by position, round by round"
    x0, g = rows(8)
    u = torch.rand(8, L, 9, generator=g)
    p1, p2, alpha, rounds = .05, .6, .4, 8
    got = sticky(p1, p2, rounds)(SPACE, x0, torch.full((8, 1), alpha), u).in_loss
    for b in range(8):
        size = int((x0[b] != PAD).sum())
        share = torch.tensor((1 - torch.tensor(alpha)).item())
        want = -int(-(share*size)//1)
        masked, per_round = [False]*size, u[b].T.tolist()
        for r in range(rounds):
            if sum(masked) >= want: break
            masked = grown(masked, per_round[r], p1, p2)
        place = [-(m + v) for m, v in zip(masked, per_round[rounds])]
        order = sorted(range(size), key=place.__getitem__)
        assert sorted(order[:want]) == got[b].nonzero()[:, 0].tolist()


def test_spans_lie_between_sorted_places():
    x0, g = rows(8)
    u, n = torch.rand(8, L, generator=g), 3
    made = spans(n)(SPACE, x0, torch.zeros(8, 1), u)
    masks_exactly_the_loss_positions(x0, made)
    for b in range(8):
        size = int((x0[b] != PAD).sum())
        ends = sorted(int(v*size) for v in u[b, :2*n])
        want = set()
        for first, last in zip(ends[::2], ends[1::2]): want |= {*range(first, last + 1)}
        assert set(made.in_loss[b].nonzero()[:, 0].tolist()) == want


def test_span_and_sticky_shares_are_about_a_half():
    "As measured on the published code: spans mask about half of a row, however many there are"
    wide = TokenSpace(MASK, PAD, (torch.arange(V) < 5).expand(1024, -1))
    x0, g = torch.zeros(60, 1024).long(), torch.Generator().manual_seed(0)
    for n in 20, 50:
        u = torch.rand(60, 1024, generator=g)
        share = spans(n)(wide, x0, torch.zeros(60, 1), u).in_loss.double().mean()
        assert abs(share - .52) < .05


def test_every_other_token_is_as_likely_and_none_is_the_same():
    g = torch.Generator().manual_seed(0)
    legal = (torch.arange(V) < 5).expand(L, -1).clone()
    legal[0] = torch.arange(V) == 2
    space = TokenSpace(MASK, PAD, legal)
    x = torch.full((20000, L), 3)
    x[:, 0], x[:, 1] = 2, PAD
    y = other_token(space, x, torch.rand(x.shape, generator=g))
    assert (y[:, 0] == 2).all()                                    # no other token is legal
    assert (y[:, 1] == PAD).all()
    assert (y[:, 2:] != 3).all() and is_clean(space, y).all()
    n = torch.bincount(y[:, 2:].flatten(), minlength=5)[[0, 1, 2, 4]].double()
    assert ((n - n.mean())**2/n.mean()).sum() < 20                 # chi-square, 3 degrees of freedom
    for u, token in (0., 0), (1 - 2**-24, 4):                      # both ends
        y = other_token(space, x[:1], torch.full((1, L), u))
        assert (y[:, 2:] == token).all()


def test_the_last_id_is_an_id_like_any_other():
    "Where MASK and PAD come first"
    space = TokenSpace(0, 1, (torch.arange(V) > 1).expand(L, -1))
    for token, u, other in (V - 1, 1 - 2**-24, V - 2), (2, 1 - 2**-24, V - 1), (V - 1, 0., 2):
        y = other_token(space, torch.full((1, L), token), torch.full((1, L), u))
        assert (y == other).all()


def test_decoys_change_positions_in_the_loss_only():
    x0, g = rows(3000)
    u, alpha_t = torch.rand(3000, L, 2, generator=g), torch.tensor([[.5]])
    n = decoys(mask_forward, 1, kept=.3, other=.2)(SPACE, x0, alpha_t, u)
    assert n.in_loss.equal(mask_forward(SPACE, x0, alpha_t, u).in_loss)
    unchanged_outside_the_loss(x0, n)
    x, want = n.x_t[n.in_loss], x0[n.in_loss]
    kept, masked = x == want, x == MASK
    replaced = ~kept & ~masked
    shares = [float(m.double().mean()) for m in (kept, replaced, masked)]
    assert shares == pytest.approx([.3, .2, .5], abs=.01)
    offsets = (x - want)[replaced] % 5
    assert torch.bincount(offsets, minlength=5)[1:].double().std() < 200


def test_any_of_chooses_one_process_for_each_row():
    x0, g = rows(200)
    u, alpha_t = torch.rand(200, L, 2, generator=g), torch.full((200, 1), .9)
    n = any_of(mask_forward, spans(4), streams=1)(SPACE, x0, alpha_t, u)
    first = mask_forward(SPACE, x0, alpha_t, u)
    second = spans(4)(SPACE, x0, None, u)
    which = u[:, 0, 1] < .5
    for part, b in ((first, which), (second, ~which)):
        assert all(p[b].equal(q[b]) for p, q in zip(n, part))
    assert 60 < which.sum() < 140


@pytest.mark.parametrize('f', [sticky(rounds=3), decoys(mask_forward, 1), any_of(mask_forward, streams=1)])
def test_too_few_uniforms_are_named(f):
    x0, g = rows(2)
    u = torch.rand(2, L, generator=g)
    with pytest.raises(ValueError, match='Recipe\\(streams=...\\)'): f(SPACE, x0, torch.full((2, 1), .5), u)
