"""PRISM: a head learns the leave-one-out probability, on a chain whose conditionals are enumerated here."""
from itertools import product
import pytest, torch

from remask.core.denoiser import Denoised
from remask.core.exact import markov
from remask.core.sampler import categorical
from remask.lm.answer_training import drawn_in_answer
from remask.lm.blocks import after_position
from remask.policies.prism import just_drawn, prism_loss

V, L, P, MASK = 3, 4, 1, 3
CHAIN = markov(V, L, .5, seed=1)
ROWS = torch.tensor([*product(range(V), repeat=L)])                # every row of the chain
GIVEN = torch.tensor([*product(range(V + 1), repeat=L)])           # every partly masked row


def joint():
    "(3^L,) probability of every row"
    p = CHAIN.first[ROWS[:, 0]]
    for before, after in zip(ROWS.T, ROWS.T[1:]): p = p*CHAIN.step[before, after]
    return p


def leave_one_out(): # (4^L,L): p(y_i | the other unmasked tokens of y), by counting over all rows
    given = GIVEN[:, None]
    agree = (given == ROWS) | (given == MASK)
    p_given = agree.all(2).double() @ joint()
    out = torch.zeros(len(GIVEN), L).double()
    for i in range(L):
        others = agree.clone()
        others[..., i] = True
        p_others = others.all(2).double() @ joint()
        out[:, i] = p_given/p_others
    return out


def number(y): return (y*(V + 1)**torch.arange(L - 1, -1, -1)).sum(1)
def exact_denoiser(x, t, real): return Denoised(CHAIN.logits(x))


def trained_table(forward, steps=300, batch=4000):
    "One score for each partly masked row and position, and how often each was asked for"
    gen = torch.Generator().manual_seed(0)
    table = torch.zeros(len(GIVEN), L, requires_grad=True)
    count = torch.zeros(len(GIVEN), L)
    adam = torch.optim.Adam([table], lr=.1)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1., .02, steps)
    for _ in range(steps):
        x0, u = CHAIN.sample_exact(batch, gen), torch.rand(batch, L, 3, generator=gen).double()
        noisy = forward(CHAIN.space, x0, torch.rand(batch, 1, generator=gen).double(), u)
        at = number(noisy.x_t)
        count.index_add_(0, at, noisy.in_loss.float())
        out = Denoised(None, None, dict(prism=table[at]))
        adam.zero_grad()
        prism_loss()(out, noisy).sum().backward()
        adam.step()
        falling.step()
    return table.detach().sigmoid().double(), count


PROMPTED = drawn_in_answer(exact_denoiser, after_position(P), 1)


def deviation(forward): # |score - leave-one-out probability| where it was often asked for
    score, count = trained_table(forward)
    often = count > 2000
    loo = leave_one_out()[often]
    assert often.sum() > 90 and loo.std() > .2
    return (score[often] - loo).abs()


@pytest.mark.parametrize('forward', [just_drawn(exact_denoiser, categorical(), 1), PROMPTED])
def test_a_head_of_full_capacity_learns_the_leave_one_out_probability(forward):
    off = deviation(forward)
    assert off.mean() < .012 and off.max() < .08


def test_several_tokens_drawn_in_one_evaluation_teach_another_probability():
    assert deviation(just_drawn(exact_denoiser, categorical(), 3)).mean() > .1


def test_a_prompt_is_neither_masked_nor_drawn_and_is_read_by_the_denoiser():
    gen = torch.Generator().manual_seed(2)
    x0, u = CHAIN.sample_exact(500, gen), torch.rand(500, L, 3, generator=gen).double()
    seen = []
    def denoiser(x, t, real):
        seen.append(x)
        return exact_denoiser(x, t, real)
    forward = drawn_in_answer(denoiser, after_position(P), 2)
    y, asked, _ = forward(CHAIN.space, x0, torch.tensor([[.3]]), u)
    for x in (y, *seen): assert torch.equal(x[:, :P], x0[:, :P])
    assert not asked[:, :P].any() and asked[:, P:].any(0).all()
    before, = seen
    assert torch.equal(y[~asked], before[~asked])
    assert (before[asked] == MASK).all()
