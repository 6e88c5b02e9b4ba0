"""The detector of wrong tokens: its training errors, its labels, its two losses, its score."""
import copy
import pytest, torch
from helpers import refusal
from remask.core.denoiser import Denoised, Denoiser
from remask.core.fast import NFECounter, count_nfe
from remask.policies.ranked import compete
from remask.core.sampler import Process, argmax, categorical, sample
from remask.core.schedules import linear, uniform_grid
from remask.domains.text import Vocabulary
from remask.core.tokens import TokenSpace, fully_masked, is_clean
from remask.core.train import Recipe, row_losses
from remask.policies.wrong_token import merged, near_misses, not_wrong, own_errors, random_tokens, wrong_token

VOCAB, L = Vocabulary.of('abcde '), 16
SPACE, HALF = VOCAB.space(L), torch.tensor([[.5]])
G = torch.Generator().manual_seed(0)
ROWS = torch.randint(6, (2000, L), generator=G)
ROWS[::5, 12:] = VOCAB.pad
U = torch.rand(2000, L, 2, generator=G)


def test_a_near_miss_is_a_swap_of_neighbours():
    "The same characters, each moved by one place at most, about as many as asked; PAD stays"
    x, ok = near_misses(SPACE, ROWS, HALF, U), ROWS != VOCAB.pad
    assert x.sort(1).values.equal(ROWS.sort(1).values)
    assert x[~ok].equal(ROWS[~ok])
    full = torch.arange(L).repeat(2000, 1)                      # every position its own id: follow the moves
    numbers = TokenSpace(L, L + 1, (torch.arange(L + 2) < L).repeat(L, 1))
    moved = near_misses(numbers, full, HALF, U) - full
    assert moved.abs().max() == 1 and (moved.sum(1) == 0).all()
    right = moved[:, :-1] == 1
    assert torch.equal(moved[:, 1:] == -1, right)               # the two exchange their places
    share = 2*.25*.75                                   # a pair is drawn, and the pair before it is not
    assert abs((moved != 0).double().mean() - share) < .03
    assert near_misses(SPACE, ROWS, torch.ones(1, 1), U).equal(ROWS)


def test_random_errors_are_independent_and_never_the_original():
    "The published code draws one id for a whole batch and may hit the original"
    x = random_tokens(SPACE, ROWS, HALF, U)
    bad, ok = x != ROWS, ROWS != VOCAB.pad
    assert x[~ok].equal(ROWS[~ok]) and is_clean(SPACE, x).all()
    assert bad.equal((U[..., 0] >= .5) & ok)
    several = [r[b] for r, b in zip(x[:200], bad[:200]) if b.sum() > 5]
    assert min(len(r.unique()) for r in several) > 1
    shift = (x - ROWS)[bad] % 6
    n = torch.bincount(shift, minlength=6).double()
    mean = n[1:].mean()
    assert n[0] == 0 and ((n[1:] - mean)**2/mean).sum() < 25


def sure_of(ids): return Denoised(torch.nn.functional.one_hot(ids, VOCAB.V)*80.)


def test_a_token_restored_by_luck_is_labelled_correct():
    def exact_denoiser(x, t, ok): return sure_of(ROWS.clamp(max=5))
    lucky = own_errors(exact_denoiser, argmax)
    n = wrong_token(VOCAB.wrong, lucky)(SPACE, ROWS, HALF, U)
    assert n.x_t.equal(ROWS) and n.target.equal(ROWS) and n.in_loss.equal(ROWS != VOCAB.pad)


def test_own_errors_are_draws_of_the_denoiser_at_masked_positions():
    calls, real = [], ROWS != VOCAB.pad
    def denoiser(x, t, ok):
        calls.append((x, t, ok))
        return Denoised(torch.zeros(*x.shape, VOCAB.V))
    x = own_errors(denoiser, categorical(1.))(SPACE, ROWS, torch.tensor([[.8]]), U)
    x_t, t, ok = calls[0]
    masked = (U[..., 0] >= .8) & real
    assert (x_t == VOCAB.mask).equal(masked)
    assert ok.equal(real) and torch.allclose(t, torch.tensor(.2))
    assert x[~masked].equal(ROWS[~masked]) and is_clean(SPACE, x).all()
    n = torch.bincount(x[masked], minlength=6).double()
    assert n.std() < .1*masked.sum()/6                          # a uniform denoiser


@pytest.mark.parametrize('at', ['all_positions', 'corrupted_only'])
def test_the_loss_is_the_mean_over_its_positions(at):
    torch.manual_seed(0)
    net = Denoiser(torch.eye(L), VOCAB.verdicts(L).legal, d=16, layers=1, heads=2, dropout=0., timed=False)
    torch.nn.init.normal_(net.head.weight)
    u_t = torch.linspace(.1, .9, 40)
    recipe = Recipe(forward=wrong_token(VOCAB.wrong, at=at), streams=2)
    got = row_losses(net, SPACE, ROWS[:40], recipe, u_t, U[:40]).detach()
    for b in range(40):
        alpha = linear(u_t[b], ROWS[:1])
        x = random_tokens(SPACE, ROWS[b:b+1], alpha, U[b:b+1])[0]
        ok, bad = ROWS[b] != VOCAB.pad, x != ROWS[b]
        logp = net(x[None], 0., ok[None]).logits[0].log_softmax(-1)
        asked = [i for i in range(L) if (bad[i] if at == 'corrupted_only' else ok[i])]
        target = torch.where(bad, VOCAB.wrong, ROWS[b])
        ce = [-float(logp[i, target[i]].detach()) for i in asked]
        assert float(got[b]) == pytest.approx(sum(ce)/max(1, len(ce)), rel=1e-4, abs=1e-6)


def test_with_corrupted_only_a_constant_prediction_is_perfect():
    "That loss is degenerate: a network that ignores its input reaches 0 with it, and not with the other"
    def constant(x, t, ok): return sure_of(torch.full_like(x, VOCAB.wrong))
    def loss(at):
        recipe = Recipe(forward=wrong_token(VOCAB.wrong, at=at), streams=2)
        return row_losses(constant, SPACE, ROWS[:50], recipe, torch.full((50,), .5), U[:50]).mean()
    assert loss('corrupted_only') < 1e-6 and loss('all_positions') > 1


def oracle(x, t, ok):
    "Predict WRONG at every `e`, with certainty"
    return sure_of(torch.where(x == VOCAB.encode('e'), VOCAB.wrong, 0))


def test_wrong_tokens_are_masked_first_and_evaluations_are_counted():
    "With an exact detector every wrong token is masked before any correct one"
    counter, log = NFECounter(), []
    detector = Process(count_nfe(oracle, counter), linear, VOCAB.verdicts(L))
    def uniform(x, t, ok): return Denoised(torch.zeros(*x.shape, VOCAB.V))
    denoiser = Process(uniform, linear, SPACE)
    start, policy = fully_masked(SPACE, torch.ones(64, L).bool()), compete(not_wrong(detector, VOCAB.wrong))
    def record(st, new, keep): log.append((st, new))
    sample(denoiser, start, uniform_grid(6), policy, categorical(1.), callback=record)
    assert (counter.rows == 6).all()
    e = VOCAB.encode('e')
    for st, new in log[:-1]:
        bad, masked = st.draft == e, new == VOCAB.mask
        assert ((bad & ~masked).any(1) & (masked & ~bad).any(1)).sum() == 0


def test_merging_interpolates_between_two_networks():
    nets = []
    for k, legal in enumerate((SPACE.legal, VOCAB.verdicts(L).legal)):
        torch.manual_seed(k)
        nets.append(Denoiser(torch.eye(L), legal, d=16, layers=1, heads=2, dropout=0., timed=False))
        torch.nn.init.normal_(nets[-1].head.weight)
    kept = copy.deepcopy(nets[0].state_dict())
    x, ok = ROWS[1:9], ROWS[1:9] != VOCAB.pad
    end = merged(*nets, 1.)(x, 0., ok).logits
    assert end.equal(nets[1](x, 0., ok).logits)
    assert all(v.equal(nets[0].state_dict()[k]) for k, v in kept.items())       # the first is not changed
    first = merged(*nets, 0.)(x, 0., ok).logits[..., :6]
    assert first.equal(nets[0](x, 0., ok).logits[..., :6])
    third = merged(*nets, 1/3)
    for k, p in third.named_parameters():
        a, b = (dict(n.named_parameters())[k] for n in nets)
        assert torch.allclose(p, a*2/3 + b/3, atol=1e-6)


def networks(*widths): return [Denoiser(torch.eye(L), SPACE.legal, d=d, layers=1, heads=2) for d in widths]


@pytest.mark.parametrize('words, call', [
    refusal('all_positions or corrupted_only', wrong_token, 8, at='everywhere'),
    refusal('verdicts', not_wrong, Process(oracle, linear, SPACE), VOCAB.wrong),
    refusal('one build', merged, *networks(8, 16), .5),
    refusal('share=1.5', merged, *networks(8, 8), 1.5),
])
def test_bad_input_is_named(words, call):
    with pytest.raises(ValueError) as e: call()
    assert words in str(e.value) and '\n' not in str(e.value)
