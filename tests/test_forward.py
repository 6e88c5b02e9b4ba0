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
    return torch.where(torch.arange(L) < torch.randint(10, L + 1, (n, 1), generator=g), x, PAD), g


def masked_as_asked(x0, n):
    assert n.x_t[n.in_loss].eq(MASK).all() and n.x_t[~n.in_loss].equal(x0[~n.in_loss]) and n.target.equal(x0)
    assert not n.in_loss[x0 == PAD].any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.floats(0, 1), st.floats(.01, .5), st.floats(0, 1))
def test_sticky_gaps_have_the_exact_share(seed, alpha, p1, p2):
    x0, g = rows(16, seed)
    alpha_t, u = torch.full((16, 1), alpha, dtype=torch.float64), torch.rand(16, L, 7, generator=g)
    n = sticky(p1, p2, 6)(SPACE, x0, alpha_t, u)
    masked_as_asked(x0, n)
    want = ((1 - alpha)*(x0 != PAD).double()).sum(1)
    assert (n.in_loss.sum(1) - want).min() > -1e-9 and (n.in_loss.sum(1) - want).max() < 1 + 1e-9


def test_sticky_gaps_grow_like_the_plain_rounds():
    "Before the share is made exact: position by position, round by round"
    x0, g = rows(8)
    u, p1, p2, alpha, rounds = torch.rand(8, L, 9, generator=g), .05, .6, .4, 8
    got = sticky(p1, p2, rounds)(SPACE, x0, torch.full((8, 1), alpha), u).in_loss
    for b in range(8):
        size = int((x0[b] != PAD).sum())
        want = -int(-(torch.tensor((1 - torch.tensor(alpha)).item())*size)//1)
        masked = [False]*size
        for r in range(rounds):
            if sum(masked) >= want: break
            beside = [(i > 0 and masked[i-1]) or (i < size - 1 and masked[i+1]) for i in range(size)]
            masked = [h or float(u[b, i, r]) < (p2 if beside[i] else p1) for i, h in enumerate(masked)]
        order = sorted(range(size), key=lambda i: -(masked[i] + float(u[b, i, rounds])))
        assert sorted(order[:want]) == got[b].nonzero()[:, 0].tolist()


def test_spans_lie_between_sorted_places():
    x0, g = rows(8)
    u, n = torch.rand(8, L, generator=g), 3
    made = spans(n)(SPACE, x0, torch.zeros(8, 1), u)
    masked_as_asked(x0, made)
    for b in range(8):
        size = int((x0[b] != PAD).sum())
        ends = sorted(int(v*size) for v in u[b, :2*n])
        want = {i for a, z in zip(ends[::2], ends[1::2]) for i in range(a, z + 1)}
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
    legal = (torch.arange(V) < 5).expand(L, -1).clone(); legal[0] = torch.arange(V) == 2
    space = TokenSpace(MASK, PAD, legal)
    x = torch.full((20000, L), 3); x[:, 0], x[:, 1] = 2, PAD
    y = other_token(space, x, torch.rand(x.shape, generator=g))
    assert (y[:, 0] == 2).all() and (y[:, 1] == PAD).all()         # nothing else is legal; not there
    assert (y[:, 2:] != 3).all() and is_clean(space, y).all()
    n = torch.bincount(y[:, 2:].flatten(), minlength=5)[[0, 1, 2, 4]].double()
    assert ((n - n.mean())**2/n.mean()).sum() < 20                 # chi-square, 3 degrees of freedom
    for u in 0., 1 - 2**-24:                                       # both ends
        assert (other_token(space, x[:1], torch.full((1, L), u))[:, 2:] == (0 if u == 0 else 4)).all()


def test_decoys_change_asked_positions_only():
    x0, g = rows(3000)
    u = torch.rand(3000, L, 2, generator=g)
    n = decoys(mask_forward, 1, kept=.3, other=.2)(SPACE, x0, torch.tensor([[.5]]), u)
    plain = mask_forward(SPACE, x0, torch.tensor([[.5]]), u)
    assert n.in_loss.equal(plain.in_loss) and n.target.equal(x0) and n.x_t[~n.in_loss].equal(x0[~n.in_loss])
    x, want = n.x_t[n.in_loss], x0[n.in_loss]
    shares = [float(m.double().mean()) for m in (x == want, (x != want) & (x != MASK), x == MASK)]
    assert shares == pytest.approx([.3, .2, .5], abs=.01)
    assert torch.bincount(((x - want)[(x != want) & (x != MASK)]) % 5, minlength=5)[1:].double().std() < 200


def test_any_of_treats_rows_apart():
    x0, g = rows(200)
    u = torch.rand(200, L, 2, generator=g)
    n = any_of(mask_forward, spans(4), streams=1)(SPACE, x0, torch.full((200, 1), .9), u)
    first, second = mask_forward(SPACE, x0, torch.full((200, 1), .9), u), spans(4)(SPACE, x0, None, u)
    which = u[:, 0, 1] < .5
    for part, b in ((first, which), (second, ~which)):
        assert all(p[b].equal(q[b]) for p, q in zip(n, part))
    assert 60 < which.sum() < 140


@pytest.mark.parametrize('f', [sticky(rounds=3), decoys(mask_forward, 1), any_of(mask_forward, streams=1)])
def test_too_few_uniforms_are_named(f):
    x0, g = rows(2)
    u = torch.rand(2, L, generator=g)
    with pytest.raises(ValueError, match='Recipe\\(streams=...\\)'): f(SPACE, x0, torch.full((2, 1), .5), u)
