"""The remasking model: its mistakes, its labels, its two losses, its verdict."""
import copy
import pytest, torch
from remask.core.denoiser import Denoised, Denoiser
from remask.core.fast import NFECounter, count_nfe
from remask.policies.ranked import compete
from remask.core.sampler import Process, argmax, categorical, sample
from remask.core.schedules import linear, uniform_grid
from remask.domains.text import Vocabulary
from remask.core.tokens import TokenSpace, hide, is_clean
from remask.core.train import Recipe, row_losses
from remask.policies.wrong_token import merged, near_misses, not_wrong, own_errors, random_tokens, wrong_token

VOCAB, L = Vocabulary.of('abcde '), 16
SPACE, HALF = VOCAB.space(L), torch.tensor([[.5]])
G = torch.Generator().manual_seed(0)
ROWS = torch.randint(6, (2000, L), generator=G); ROWS[::5, 12:] = VOCAB.pad
U = torch.rand(2000, L, 2, generator=G)


def test_a_near_miss_is_a_swap_of_neighbours():
    "The same characters, none of them moved by more than one place, about as many out of place as asked; PAD stays"
    x, ok = near_misses(SPACE, ROWS, HALF, U), ROWS != VOCAB.pad
    assert x.sort(1).values.equal(ROWS.sort(1).values) and x[~ok].equal(ROWS[~ok])
    full = torch.arange(L).repeat(2000, 1)                                      # every position its own id: follow the moves
    moved = near_misses(TokenSpace(L, L + 1, (torch.arange(L + 2) < L).repeat(L, 1)), full, HALF, U) - full
    assert moved.abs().max() == 1 and (moved.sum(1) == 0).all()
    right = moved[:, :-1] == 1
    assert torch.equal(moved[:, 1:] == -1, right)                               # each goes where the other came from
    assert abs((moved != 0).double().mean() - 2*.25*.75) < .03                  # a pair is swapped if it wants and the one before does not
    assert near_misses(SPACE, ROWS, torch.ones(1, 1), U).equal(ROWS)


def test_mistakes_are_independent_and_never_the_original():
    "The published code draws one id for a whole batch and may hit the original"
    x = random_tokens(SPACE, ROWS, HALF, U)
    bad, ok = x != ROWS, ROWS != VOCAB.pad
    assert x[~ok].equal(ROWS[~ok]) and is_clean(SPACE, x).all()
    assert bad.equal((U[..., 0] >= .5) & ok)                       # tried means done
    per_row = [len(set(r[b].tolist())) for r, b in zip(x[:200], bad[:200]) if b.sum() > 5]
    assert min(per_row) > 1
    shift = (x - ROWS)[bad] % 6
    n = torch.bincount(shift, minlength=6).double()
    assert n[0] == 0 and ((n[1:] - n[1:].mean())**2/n[1:].mean()).sum() < 25


def test_labels_say_what_is_not_what_was_tried():
    "A denoiser that guesses right has made no mistake"
    lucky = own_errors(lambda x, t, ok: Denoised(torch.nn.functional.one_hot(ROWS.clamp(max=5), VOCAB.V)*50.), argmax)
    n = wrong_token(VOCAB.wrong, lucky)(SPACE, ROWS, HALF, U)
    assert n.x_t.equal(ROWS) and n.target.equal(ROWS) and n.asked.equal(ROWS != VOCAB.pad)


def test_own_errors_come_from_the_writer_where_it_was_asked():
    seen = []
    def denoiser(x, t, ok):
        seen.append((x, t, ok)); return Denoised(torch.zeros(*x.shape, VOCAB.V))
    x = own_errors(denoiser, categorical(1.))(SPACE, ROWS, torch.tensor([[.8]]), U)
    (asked, t, ok), hidden = seen[0], (U[..., 0] >= .8) & (ROWS != VOCAB.pad)
    assert (asked == VOCAB.mask).equal(hidden) and ok.equal(ROWS != VOCAB.pad) and torch.allclose(t, torch.tensor(.2))
    assert x[~hidden].equal(ROWS[~hidden]) and is_clean(SPACE, x).all()
    assert torch.bincount(x[hidden], minlength=6).double().std() < .1*hidden.sum()/6   # an indifferent denoiser


@pytest.mark.parametrize('at', ['all_positions', 'corrupted_only'])
def test_the_loss_is_the_mean_over_the_positions_it_asks(at):
    torch.manual_seed(0)
    net = Denoiser(torch.eye(L), VOCAB.verdicts(L).legal, d=16, layers=1, heads=2, dropout=0., timed=False)
    torch.nn.init.normal_(net.head.weight)
    u_t = torch.linspace(.1, .9, 40)
    recipe = Recipe(forward=wrong_token(VOCAB.wrong, at=at), streams=2)
    got = row_losses(net, SPACE, ROWS[:40], recipe, u_t, U[:40]).detach()
    for b in range(40):
        x = random_tokens(SPACE, ROWS[b:b+1], linear(u_t[b], ROWS[:1]), U[b:b+1])[0]
        ok, bad = ROWS[b] != VOCAB.pad, x != ROWS[b]
        logp = net(x[None], 0., ok[None]).logits[0].log_softmax(-1)
        asked = [i for i in range(L) if (bad[i] if at == 'corrupted_only' else ok[i])]
        ce = [-float(logp[i, VOCAB.wrong if bad[i] else ROWS[b, i]].detach()) for i in asked]
        assert float(got[b]) == pytest.approx(sum(ce)/max(1, len(ce)), rel=1e-4, abs=1e-6)


def test_asked_at_mistakes_only_a_constant_is_perfect():
    "The first loss is degenerate: a network that reads nothing reaches 0 with it, and not with the second"
    def constant(x, t, ok): return Denoised(torch.nn.functional.one_hot(torch.full_like(x, VOCAB.wrong), VOCAB.V)*80.)
    loss = {at: row_losses(constant, SPACE, ROWS[:50], Recipe(forward=wrong_token(VOCAB.wrong, at=at), streams=2),
                           torch.full((50,), .5), U[:50]).mean() for at in ('corrupted_only', 'all_positions')}
    assert loss['corrupted_only'] < 1e-6 and loss['all_positions'] > 1


def oracle(x, t, ok):
    "Says WRONG at every `e`, surely"
    says = torch.where(x == VOCAB.encode('e'), VOCAB.wrong, 0)
    return Denoised(torch.nn.functional.one_hot(says, VOCAB.V)*60.)


def test_what_is_wrong_is_hidden_first_and_looks_are_counted():
    "With an oracle as a judge every wrong token is hidden before any right one"
    counter, seen = NFECounter(), []
    judge = Process(count_nfe(oracle, counter), linear, VOCAB.verdicts(L))
    denoiser = Process(lambda x, t, ok: Denoised(torch.zeros(*x.shape, VOCAB.V)), linear, SPACE)
    sample(denoiser, hide(SPACE, torch.ones(64, L).bool()), uniform_grid(6), compete(not_wrong(judge, VOCAB.wrong)),
           categorical(1.), callback=lambda st, new, keep: seen.append((st, new)))
    assert (counter.rows == 6).all()
    e = VOCAB.encode('e')
    for st, new in seen[:-1]:
        bad, hidden = st.draft == e, new == VOCAB.mask
        assert ((bad & ~hidden).any(1) & (hidden & ~bad).any(1)).sum() == 0


def test_merging_walks_from_one_network_to_the_other():
    nets = []
    for k, legal in enumerate((SPACE.legal, VOCAB.verdicts(L).legal)):
        torch.manual_seed(k)
        nets.append(Denoiser(torch.eye(L), legal, d=16, layers=1, heads=2, dropout=0., timed=False))
        torch.nn.init.normal_(nets[-1].head.weight)
    kept = copy.deepcopy(nets[0].state_dict())
    x, ok = ROWS[1:9], ROWS[1:9] != VOCAB.pad
    end = merged(*nets, 1.)(x, 0., ok).logits
    assert end.equal(nets[1](x, 0., ok).logits) and all(v.equal(nets[0].state_dict()[k]) for k, v in kept.items())
    first = merged(*nets, 0.)(x, 0., ok).logits[..., :6]
    assert first.equal(nets[0](x, 0., ok).logits[..., :6])
    third = merged(*nets, 1/3)
    for k, p in third.named_parameters():
        a, b = (dict(n.named_parameters())[k] for n in nets)
        assert torch.allclose(p, a*2/3 + b/3, atol=1e-6)


@pytest.mark.parametrize('f,words', [
    (lambda: wrong_token(8, at='everywhere'), 'all_positions or corrupted_only'),
    (lambda: not_wrong(Process(oracle, linear, SPACE), VOCAB.wrong), 'verdicts'),
    (lambda: merged(*(Denoiser(torch.eye(L), SPACE.legal, d=d, layers=1, heads=2) for d in (8, 16)), .5), 'one build'),
    (lambda: merged(*(Denoiser(torch.eye(L), SPACE.legal, d=8, layers=1, heads=2) for _ in 'ab'), 1.5), 'share=1.5')])
def test_bad_input_is_named(f, words):
    with pytest.raises(ValueError) as e: f()
    assert words in str(e.value) and '\n' not in str(e.value)
