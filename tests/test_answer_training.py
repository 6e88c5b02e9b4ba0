"""The parts of the answer experiments: against plain rewritings, and the contract of each policy by name."""
import pytest, torch

from remask.core.denoiser import Denoised
from remask.core.forward import mask_forward
from remask.core.sampler import categorical
from remask.core.tokens import TokenSpace
from remask.lm.answer_training import (
    ANSWER_RULES, ANSWER_SCORES, AnswerTrace, accuracy_by_kind, answer_policy, own_predictions, rows_of_kind)
from remask.lm.blocks import GenerationOptions, columns, generate_blocks
from remask.policies.ups import remask_noise

V, L, P, MASK, PAD, EOS = 9, 10, 3, 7, 8, 6
SPACE = TokenSpace(MASK, PAD, (torch.arange(V) < 7).expand(L, -1))
WEIGHT = torch.randn(V, V, generator=torch.Generator().manual_seed(2))


def model(x, t, real):
    logits = WEIGHT[x]
    heads = dict(ups=logits[..., 0], prism=logits[..., 1])
    return Denoised(logits.masked_fill(torch.arange(V) > 6, -1e9), heads=heads)


def uniforms(*shape, seed=0): return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def clean(B=40): return torch.randint(0, 6, (B, L), generator=torch.Generator().manual_seed(3))


def prompts(B=5):
    x = clean(B)
    x[:, P:] = MASK
    return x


@pytest.mark.parametrize('forward', [mask_forward, remask_noise(.1)])
def test_own_predictions_are_drawn_from_the_model_at_masked_positions_only(forward):
    x0, u, alpha = clean(), uniforms(40, L, 3), torch.tensor([[.4]])
    before = forward(SPACE, x0, alpha, u)
    after = own_predictions(model, .5, forward)(SPACE, x0, alpha, u)
    filled = before.in_loss & ~after.in_loss
    guess = categorical()(model(before.x_t, 0., None).logits, u[..., 1])
    assert torch.equal(filled, before.in_loss & (u[..., 2] < .5)) and filled.any()
    assert torch.equal(after.x_t[filled], guess[filled])
    assert torch.equal(after.x_t[~filled], before.x_t[~filled])
    assert torch.equal(after.in_loss, after.x_t == MASK)


def test_own_predictions_build_no_graph():
    weight = WEIGHT.clone().requires_grad_()
    def trained(x, t, real): return Denoised(weight[x])
    noisy = own_predictions(trained, 1.)(SPACE, clean(), torch.tensor([[.5]]), uniforms(40, L, 3))
    assert not noisy.x_t.requires_grad


def test_kinds_are_selected_by_name_and_their_parts_are_the_whole():
    names, kinds = ['a', 'b', 'c'], torch.tensor([[0, 1], [2, 1], [0, 2], [2, 2], [1, 1]])
    x, right = torch.arange(5)[:, None], torch.tensor([1., 0., 1., 1., 0.])
    parts = [rows_of_kind(x, kinds, names, n) for n in names]
    assert torch.equal(torch.cat(parts).sort(0).values, x)
    assert torch.equal(rows_of_kind(x, kinds, names, ''), x)
    assert accuracy_by_kind(right, kinds, names) == dict(a_1=1., a_2=1., b_1=0., c_1=0., c_2=1.)
    with pytest.raises(ValueError, match='choose one of a, b, c'): rows_of_kind(x, kinds, names, 'd')


@pytest.mark.parametrize('rule', ANSWER_RULES)
@pytest.mark.parametrize('score', ANSWER_SCORES)
def test_every_rule_and_score_keeps_the_count_of_masked_positions_and_the_prompt(rule, score):
    x, trace = prompts(), AnswerTrace(MASK, rows=2)
    how = GenerationOptions(answer_policy(rule, score, (EOS,)), categorical(), block=7, steps=3)
    got = generate_blocks(columns(model), SPACE, x, how, callback=trace)
    assert torch.equal(got[:, :P], x[:, :P]) and (got < MASK).all()
    assert [m.unique().tolist() for m in trace.masked] == [[4], [2], [0]]
    assert len(trace.film) == 3 and torch.equal(trace.film[-1].long(), got[:2])


def test_only_the_rule_remask_remasks():
    for rule in ANSWER_RULES:
        trace = AnswerTrace(MASK)
        how = GenerationOptions(answer_policy(rule, 'chance'), categorical(), block=7, steps=7)
        generate_blocks(columns(model), SPACE, prompts(), how, callback=trace)
        assert bool(trace.remasks.any()) == (rule == 'remask')


@pytest.mark.parametrize('names, why', [
    (('remaskk', 'ups'), 'did you mean remask'), (('remask', 'marginn'), 'did you mean margin')])
def test_an_unknown_name_is_refused_with_a_proposal(names, why):
    with pytest.raises(ValueError, match=why): answer_policy(*names)
