"""Block-wise generation: against a plain rewriting of the published loops, and without their faults."""
import itertools, math
import pytest, torch
from torch.nn.functional import softmax

from remask.core.denoiser import Denoised, Denoiser
from remask.core.files import save_net
from remask.core.fast import NFECounter
from remask.core.forward import Noisy
from remask.lm.blocks import (
    Streamed,
    GenerationOptions,
    after_position,
    after_token,
    answer_bce,
    answer_loss,
    columns,
    draw_at,
    load_scorer,
    log_likelihood,
    on_answer,
    quota_first,
    quota_from_ratios,
    quota_last,
    sft,
    sft_alpha,
    strata,
    suppress_eos,
    generate_blocks,
)
from remask.policies.ranked import certainty, compete, llada, margin, unmask_top
from remask.core.sampler import Noise, Policy, categorical, confidence
from remask.core.tokens import TokenSpace
from remask.core.train import fit, row_losses
from remask.policies.ups import Headed, ScoreHead, by_head, remask_noise

V, L, MASK, PAD, EOS, EOT = 13, 20, 11, 12, 9, 10
SPACE = TokenSpace(MASK, PAD, (torch.arange(V) < 11).expand(L, -1))
G = torch.Generator().manual_seed(5)
EMB, OUT = torch.randn(L, V, generator=G), torch.randn(L, V, generator=G)


def denoise(x, t=0., ok=None):
    L = x.shape[1]
    own = EMB[torch.arange(L), x]
    h = torch.sin(own.sum(1, keepdim=True) + 2*own)
    logits = 3*torch.sin(2*h[..., None]*OUT[:L])
    return Denoised(logits, None, dict(ups=h))


ASK = columns(denoise)


def prompts(B=3, P=4, seed=0):
    x = torch.full((B, L), MASK)
    x[:, :P] = torch.randint(0, 9, (B, P), generator=torch.Generator().manual_seed(seed))
    return x


def published(x, block, steps, dynamic=None, scale=0., suppress=False, no_eos=False):
    "A plain rewriting of the published generation at temperature 0, row by row (dynamic: its confidence)"
    x, rows = x.clone(), []
    for row in x:
        row, P = row.clone(), int((row != MASK).sum())
        start = row.clone()
        for n in range((L - P)//block):
            lo, hi = P + n*block, P + (n + 1)*block
            m, kept = hi - lo, 0
            for i in range(steps):
                k = m//steps + (i < m % steps)
                kept += k
                l = denoise(row[None]).logits[0].clone()
                if scale:
                    blind = torch.where(start != MASK, MASK, row)
                    other = denoise(blind[None]).logits[0]
                    l = other + (scale + 1)*(l - other)
                l[:, [MASK, PAD]] = -math.inf
                if no_eos: l[:, EOS] = -math.inf
                best = l.argmax(-1)
                sure = l.clone()
                if suppress: sure[:, [EOS, EOT]] = -math.inf
                y = torch.where(row == MASK, best, row)
                c = softmax(sure.double(), -1).gather(-1, y[:, None])[:, 0]
                if dynamic == 'ups': c = torch.sigmoid(denoise(row[None]).heads['ups'][0].double())
                places = [j for j in range(lo, hi) if dynamic or row[j] == MASK]
                order = sorted(places, key=lambda j: (-c[j].item(), j))
                unmasked = order[:kept if dynamic else k]
                for j in places:
                    if j in unmasked: row[j] = y[j]
                    elif dynamic: row[j] = MASK
        rows.append(row)
    return torch.stack(rows)


# ---- 1: quotas

@pytest.mark.parametrize('m, steps', itertools.product([1, 5, 8, 16], [1, 3, 8, 20]))
def test_quotas_add_up_and_place_the_remainder(m, steps):
    for plan, first in ((quota_first, True), (quota_last, False)):
        K = plan(torch.tensor([[m]]), steps)[0]
        each = K.diff()
        assert K[0] == 0 and K[-1] == m and len(each) == steps and each.sum() == m
        assert sorted(each.tolist(), reverse=first) == each.tolist() and each.max() - each.min() <= 1
    K = quota_from_ratios(.9, .5, .2, 0)(torch.tensor([[m]]), 4)[0]
    assert K[-1] == m and (K.diff() >= 0).all() and K[2] == round(m/2 + 1e-9) or m % 2


def test_ratios_and_steps_must_agree():
    with pytest.raises(ValueError, match='2 ratios for 3 steps'):
        quota_from_ratios(.5, 0)(torch.tensor([[4]]), 3)


# ---- 2, 3: the published rules, token for token

@pytest.mark.parametrize('scale', [0., .5, 2.])
@pytest.mark.parametrize('suppress', [False, True])
@pytest.mark.parametrize('block, steps', [(16, 16), (8, 3), (4, 4), (2, 5)])
def test_confidence_ordered_unmasking_is_the_published_rule(block, steps, suppress, scale):
    policy = Policy(unmask_top(suppress_eos(confidence, [EOS, EOT]))) if suppress else llada()
    got = generate_blocks(
        ASK, SPACE, prompts(), GenerationOptions(policy, block=block, steps=steps, guidance=scale)
    )
    assert got.equal(published(prompts(), block, steps, None, scale, suppress))


@pytest.mark.parametrize('source', ['tps_prob', 'ups'])
@pytest.mark.parametrize('suppress', [False, True])
@pytest.mark.parametrize('block, steps', [(16, 16), (8, 3), (4, 4)])
def test_competition_is_the_published_rule(block, steps, suppress, source):
    if source == 'ups' and suppress: pytest.skip('the published EOS suppression does not reach a head')
    score = by_head() if source == 'ups' else confidence
    if suppress: score = suppress_eos(score, [EOS, EOT])
    got = generate_blocks(ASK, SPACE, prompts(), GenerationOptions(compete(score), block=block, steps=steps))
    assert got.equal(published(prompts(), block, steps, source, 0., suppress))


def test_an_end_that_is_not_legal_is_never_generated():
    bare = TokenSpace(MASK, PAD, SPACE.legal & (torch.arange(V) != EOS))
    got = generate_blocks(ASK, bare, prompts(), GenerationOptions(block=8, steps=8))
    assert (got != EOS).all() and got.equal(published(prompts(), 8, 8, no_eos=True))


SOURCES = dict(ups=by_head(), tps_prob=confidence, random=lambda st: st.u, entropy=certainty, margin=margin,
               constant=lambda st: 0*st.p)


@pytest.mark.parametrize('plan', [quota_first, quota_last])
@pytest.mark.parametrize('draw', [draw_at(0.), draw_at(1.)])
@pytest.mark.parametrize('name', SOURCES)
def test_the_number_of_masked_positions_does_not_depend_on_the_score(name, draw, plan):
    curve, steps = [], 5
    def note(st, x, keep):
        whole_block = st.ours.sum(1) == 8
        masked = (x == MASK) & whole_block[:, None]
        curve.append(masked.sum(1).tolist())

    generate_blocks(
        ASK, SPACE, prompts(), GenerationOptions(compete(SOURCES[name]), draw, 8, steps, plan), callback=note
    )
    K = plan(torch.tensor([[8]]), steps)[0, 1:]
    assert curve == [[int(16 - 8*n - k)]*3 for n in range(2) for k in K]


def test_remasking_happens_and_stays_in_its_block():
    taken, seen = 0, []
    def note(st, x, keep): seen.append(x)

    generate_blocks(
        ASK, SPACE, prompts(8), GenerationOptions(compete(by_head()), draw_at(1.0), 8, 8), callback=note
    )
    for before, after in zip(seen, seen[1:]): taken += ((before != MASK) & (after == MASK)).sum().item()
    assert taken > 0
    done = seen[7][:, 4:12]
    for x in seen[8:]: assert x[:, 4:12].equal(done) and x[:, :4].equal(prompts(8)[:, :4])         # 4


# ---- 5: infilling, lengths, batches

def holes():
    x = prompts(3)
    x[0, [6, 7, 13]] = torch.tensor([1, 2, 3])
    x[1] = torch.where(torch.arange(L) % 3 == 0, MASK, 5)
    pad = [PAD]*5
    x[2] = torch.tensor(pad + [1, 2] + [MASK]*4 + [3] + [MASK]*3 + pad)
    return x


@pytest.mark.parametrize('policy', [llada(), compete(), compete(by_head())])
@pytest.mark.parametrize('block, steps', [(16, 16), (4, 2), (3, 7)])
def test_masked_positions_are_filled_and_given_tokens_stay(policy, block, steps):
    x = holes()
    got = generate_blocks(ASK, SPACE, x, GenerationOptions(policy, draw_at(1.), block, steps))
    assert got[x != MASK].equal(x[x != MASK])
    assert SPACE.legal[0][got[x == MASK]].all()


@pytest.mark.parametrize('draw', [draw_at(0.), draw_at(1.), categorical(.7)])
def test_a_row_does_not_depend_on_its_batch(draw):
    x, how, ids = holes(), GenerationOptions(compete(by_head()), draw, 4, 3), torch.tensor([7, 2, 9])
    whole = generate_blocks(ASK, SPACE, x, how, Noise(3, ids))
    for i in range(3):
        assert generate_blocks(ASK, SPACE, x[i : i + 1], how, Noise(3, ids[i : i + 1])).equal(
            whole[i : i + 1]
        )


def test_padding_on_either_side_gives_the_same_answer():
    torch.manual_seed(0)
    net = Denoiser(torch.zeros(L, 0), SPACE.legal, 16, 1, 2, 0., False).double().eval()
    torch.nn.init.normal_(net.head.weight)
    row = [1, 2, 3] + [MASK]*8
    a = torch.tensor([[PAD]*3 + row + [PAD]*6])
    b = torch.tensor([row + [PAD]*9])
    def answer(x): return generate_blocks(columns(net), SPACE, x, GenerationOptions(block=4, steps=4))
    assert answer(a)[0, 3:14].equal(answer(b)[0, :11])


def test_only_positions_that_can_change_are_evaluated():
    "More steps than tokens cost nothing (the published loop goes on evaluating)"
    for steps in 4, 50:
        counter = NFECounter()
        generate_blocks(ASK, SPACE, prompts(), GenerationOptions(block=4, steps=steps), count=counter.add)
        assert (counter.rows == 16).all()
    counter, x = NFECounter(), prompts()
    x[1, 6:] = 3                                                      # two holes in one row
    generate_blocks(ASK, SPACE, x, GenerationOptions(block=4, steps=4, guidance=1.), count=counter.add)
    assert counter.rows.tolist() == [32, 4, 32]


# ---- 6: heads

def test_ties_go_to_the_first():
    order = []
    def note(st, x, keep): order.append(x[0])
    policy = compete(lambda st: 0*st.p)
    generate_blocks(ASK, SPACE, prompts(1), GenerationOptions(policy, block=16, steps=16), callback=note)
    for i, x in enumerate(order):
        assert (x[4:5 + i] != MASK).all()
        assert (x[5 + i:] == MASK).all()


def test_an_exact_detector_leads_to_the_correct_answer():
    gold = torch.randint(0, 9, (4, L), generator=torch.Generator().manual_seed(2))
    def noisy_denoise(x, t, ok):             # often wrong, with a score that is exact
        good = torch.sin(x.sum(1, keepdim=True)*.7 + torch.arange(L)) > .2
        wrong = (gold + 1 + torch.arange(L)) % 9
        guess = torch.where(good, gold, wrong)
        score = torch.where(x == MASK, good*8.-4, (x == gold)*20.-10)
        return Denoised(5.*torch.nn.functional.one_hot(guess, V), None, dict(ups=score))
    x = torch.where(torch.arange(L) < 4, gold, MASK)
    def accuracy(policy):
        out = generate_blocks(columns(noisy_denoise), SPACE, x, GenerationOptions(policy, block=16, steps=48))
        return (out == gold)[:, 4:].double().mean().item()
    assert accuracy(compete(by_head())) > .95 > accuracy(llada())


def test_a_head_that_is_missing_is_an_error():
    bare = columns(lambda x, t, ok: denoise(x)._replace(heads={}))
    with pytest.raises(ValueError, match="no head 'ups'"):
        generate_blocks(bare, SPACE, prompts(), GenerationOptions(compete(by_head()), block=4, steps=2))


# ---- 7, 8: draws and EOS suppression

@pytest.mark.parametrize('T', [.5, 1., 2.])
def test_draws_have_the_softmax_frequencies(T):
    z = torch.randn(700, generator=torch.Generator().manual_seed(1))*2
    n, u = 200_000, torch.rand(200_000, generator=torch.Generator().manual_seed(3)).double()
    got = draw_at(T)(z.expand(1, n, -1), u[None])[0].bincount(minlength=700).double()
    want = softmax(z.double()/T, -1)*n
    big = want > 5
    def grouped(n): return torch.cat([n[big], n[~big].sum()[None]]) # the rare ids together
    observed, expected = grouped(got), grouped(want)
    ok = expected > 0
    chi = ((observed - expected)[ok].square()/expected[ok]).sum().item()
    df = int(ok.sum()) - 1
    assert abs(chi - df) < 4.5*math.sqrt(2*df)


def test_draws_never_have_probability_0():
    z = torch.full((1, 3, 600), -math.inf); z[0, :, 599] = 1.; z[0, :, 3] = 0.
    for u in (0., .5, 1 - 2**-53):
        assert set(draw_at(1.)(z, torch.full((1, 3), u).double())[0].tolist()) <= {3, 599}
    with pytest.raises(ValueError, match='temperature=-1'): draw_at(-1)


def test_temperature_zero_uses_no_noise():
    def answer(seed):
        return generate_blocks(
            ASK, SPACE, prompts(), GenerationOptions(compete(), draw_at(0.0), 8, 8), noise(seed)
        )
    def noise(seed): return Noise(seed, torch.arange(3))
    assert answer(0).equal(answer(1))


@pytest.mark.parametrize('T', [0., .01, 1.])
def test_eos_suppression_acts_alike_at_every_temperature(T):
    "EOS and EoT are unmasked when nothing else is left in the block, hot or cold"
    late_ones = []
    def likes_ends(x, t, ok):
        z = denoise(x).logits/4
        z[:, ::2, EOS] += 30
        z[:, 1::4, EOT] += 30  # sure of the end at most positions
        return Denoised(z)
    def note(st, x, keep): late_ones.append(((x == EOS) | (x == EOT)).any().item())
    policy = Policy(unmask_top(suppress_eos(confidence, [EOS, EOT])))
    generate_blocks(
        columns(likes_ends), SPACE, prompts(1), GenerationOptions(policy, draw_at(T), 16, 16), callback=note
    )
    assert not any(late_ones[:4]) and all(late_ones[4:])                # four positions are free of ends


# ---- 9: likelihood

@pytest.mark.parametrize('N, draws', itertools.product([1, 2, 3, 4], [1, 2, 3, 8]))
def test_every_stratum_is_uniform(N, draws):
    u = (torch.arange(N) + .5)/N
    n = strata(torch.full((N, 1), N), draws, u[:, None].double())
    for j in range(draws): assert sorted(n[:, j].tolist()) == list(range(1, N + 1))


@pytest.mark.parametrize('N', [1, 2, 3, 4])
def test_the_likelihood_is_unbiased_and_exact_for_an_exact_network(N):
    "Averaged over all numbers and all sets of masked tokens it is log p itself"
    g = torch.Generator().manual_seed(N)
    joint = torch.rand(*[3]*N, generator=g).double(); joint /= joint.sum()
    space = TokenSpace(3, 4, (torch.arange(5) < 3).expand(N + 1, -1))
    def exact(x, t, ok):
        out = torch.full((*x.shape, 5), -math.inf).double()
        for b, row in enumerate(x[:, 1:].tolist()):
            p = joint[tuple(slice(None) if v == 3 else slice(v, v + 1) for v in row)]
            for i in range(N):
                others = [d for d in range(N) if d != i]
                marginal = p.sum(others) if others else p
                out[b, 1 + i, :3] = marginal.log() if row[i] == 3 else 0.
        out[:, 0, :3] = 0.
        return Denoised(out.float())
    x0 = torch.tensor([[0, *[2, 0, 1, 1][:N]]])
    answer = torch.arange(N + 1)[None] > 0
    # noise that walks through all orders and counts
    class Every:
        def __init__(self, k, order): self.k, self.order = k, order
        def __call__(self, step, stream, L):
            values = [(self.k + .5)/N] if step == 0 else [*self.order]
            return torch.tensor([values]).double()
    values = [log_likelihood(columns(exact), x0, answer, space, 1,
                             Every(k, o)) for k in range(N) for o in itertools.permutations(range(N))]
    assert torch.stack(values).mean().item() == pytest.approx(joint[tuple(x0[0, 1:])].log().item(), abs=1e-5)


def test_likelihoods_do_not_depend_on_batch_and_an_empty_answer_is_refused():
    x0, answer = prompts(4).clamp(max=8), after_position(4)(prompts(4)).clone()
    answer[1, 12:] = False
    whole = log_likelihood(ASK, x0, answer, SPACE, 6, batch=24)
    assert whole.allclose(log_likelihood(ASK, x0, answer, SPACE, 6, batch=5))
    assert log_likelihood(ASK, x0[1:2], answer[1:2], SPACE, 6,
                          Noise(0, torch.tensor([1]))).allclose(whole[1:2])
    with pytest.raises(ValueError, match='nothing to score'): log_likelihood(ASK, x0, answer & False, SPACE)


# ---- 10-12: training

def clean(B, seed=0): return torch.randint(0, 9, (B, L), generator=torch.Generator().manual_seed(seed))


def test_noise_rates_on_the_answer_and_none_on_the_prompt():
    B, r, answer = 20_000, .2, after_position(8)
    x0, u = clean(B), torch.rand(B, L, 2, generator=torch.Generator().manual_seed(1))
    t = (torch.arange(B) + .5)/B
    x, asked, target = on_answer(answer, remask_noise(r))(SPACE, x0, sft_alpha(t, x0 != PAD), u)
    wrong = (x != x0) & ~asked
    assert x[:, :8].equal(x0[:, :8])
    assert not asked[:, :8].any()
    assert target.equal(x0)
    assert abs(asked[:, 8:].double().mean() - .5005) < .01
    assert abs(wrong[:, 8:].double().mean() - r/3) < .003
    share = asked[:, 8:].double().mean(1)
    assert abs((share < .25).double().mean() - .26) < .03               # uniform
    assert SPACE.legal[0][x[wrong]].all()


def test_a_mask_in_the_data_is_not_noise():
    x0 = clean(4); x0[:, 2] = MASK
    assert (
        not on_answer(after_position(8))(SPACE, x0, torch.zeros(4, 1), torch.rand(4, L)).in_loss[:, 2].any()
    )


def test_the_published_weights():
    "1/A times the sum of CE/p over masked answer tokens, by hand"
    answer, x0, u_t = after_position(8), clean(5), torch.tensor([.1, .3, .5, .7, .9])
    u = torch.rand(5, L, generator=torch.Generator().manual_seed(4))
    got = row_losses(denoise, SPACE, x0, sft(answer, length=12), u_t, u)
    p = .999*u_t.double() + .001
    chosen = (u >= 1 - p[:, None]) & answer(x0)
    x = torch.where(chosen, MASK, x0)
    logp = denoise(x).logits.log_softmax(-1)
    ce = -logp.gather(-1, x0[..., None])[..., 0]
    assert got.double().allclose((ce*chosen/p[:, None]).sum(1)/12, rtol=1e-4)
    mean = row_losses(denoise, SPACE, x0, sft(answer), u_t, u)
    total, n = (ce*chosen).sum(1).double(), chosen.sum(1).clamp(min=1)
    assert mean.double().allclose(total/n, rtol=1e-4)


def test_labels_of_the_head_and_the_loss_of_the_answer():
    answer, h = after_token(7), torch.linspace(-2, 3, L)[None]
    x0 = clean(1) % 7; x0[0, 5] = 7; x0[0, -2:] = PAD
    x = x0.clone(); x[0, 8], x[0, 9] = MASK, (x0[0, 9] + 1) % 7
    out = Denoised(torch.randn(1, L, V, generator=G), None, dict(ups=h))
    noisy = Noisy(x, x == MASK, x0)
    label = [1.]*12
    label[2] = out.logits[0, 8].softmax(-1)[x0[0, 8]].item()
    label[3] = 0.
    sig = torch.sigmoid(h[0, 6:18]).tolist()
    def cross_entropy(y, s): return -(y*math.log(s) + (1 - y)*math.log(1 - s))
    bce = [*map(cross_entropy, label, sig)]
    assert answer_loss(SPACE, answer)(out, noisy).item() == pytest.approx(sum(bce)/12, rel=1e-5)
    assert answer_bce(out, noisy)[0, 6:18].tolist() == pytest.approx(bce, rel=1e-5)


def nets():
    torch.manual_seed(0)
    base = lambda: Denoiser(torch.zeros(L, 0), SPACE.legal, 16, 2, 2, 0., False)
    return Headed(base(), ups=ScoreHead(16, 4)), Streamed(base(), [0, 1])


@pytest.mark.parametrize('k', [0, 1], ids=['head', 'dual_stream'])
def test_the_loss_of_the_score_has_no_gradient_in_the_network_and_lambda_scales_its_gradient(k):
    x0, answer = clean(6), after_position(8)
    noisy = on_answer(answer, remask_noise())(SPACE, x0, torch.tensor([[.5]]),
                                              torch.rand(6, L, 2, generator=torch.Generator().manual_seed(1)))
    def grads(weight):
        net = nets()[k]
        torch.nn.init.normal_(net.net.head.weight, generator=torch.Generator().manual_seed(2))
        answer_loss(SPACE, answer, weight=weight)(net(noisy.x_t, .5, x0 != PAD), noisy).sum().backward()
        own = [p for n, p in net.named_parameters() if not n.startswith('net.')]
        assert all(p.grad is None or not p.grad.any() for p in net.net.parameters())
        return torch.cat([p.grad.flatten() for p in own if p.grad is not None])
    one, three = grads(1.), grads(3.)
    assert one.abs().max() > 0 and three.allclose(3*one, rtol=1e-4)


def test_a_new_dual_stream_leaves_the_logits_unchanged():
    net = nets()[1]
    torch.nn.init.normal_(net.net.head.weight)
    x, ok = clean(2), clean(2) != PAD
    with torch.no_grad():
        got = net(x, .5, ok)
        for h in net.second.hooks: h.remove()
        assert net.net(x, .5, ok).logits.equal(got.logits)
    assert net.second.u is None and got.heads['ups'].shape == x.shape and got.heads['ups'].std() > 0


def test_a_dual_stream_trains_in_fit_and_its_copy_reads_its_own_network(tmp_path):
    plan = sft(after_position(8), remask_noise(.2), streams=2, heads=answer_loss(SPACE, after_position(8)),
               lr=1e-2, warmup=1, batch=8)
    net = nets()[1]
    got = fit(net, SPACE, clean(32), plan, 3, tmp_path).net
    x, ok = clean(2), clean(2) != PAD
    with torch.no_grad(): a = got(x, .5, ok); b = net(x, .5, ok)
    assert not a.heads['ups'].equal(b.heads['ups']) and got.second.u is None


# ---- errors

@pytest.mark.parametrize('change, why',
    [(dict(block=0), 'block=0'), (dict(steps=0), 'steps=0'), (dict(guidance=-1.), 'guidance=-1')])
def test_impossible_options_are_named(change, why):
    with pytest.raises(ValueError, match=why):
        generate_blocks(ASK, SPACE, prompts(), GenerationOptions(**change))


def test_an_empty_answer_and_a_space_with_different_ids_are_refused():
    with pytest.raises(ValueError, match='the answer is empty'):
        generate_blocks(ASK, SPACE, clean(2), GenerationOptions())
    odd = SPACE.legal.clone(); odd[3, 2] = False
    with pytest.raises(ValueError, match='same ids everywhere'):
        generate_blocks(ASK, TokenSpace(MASK, PAD, odd), prompts(), GenerationOptions())


def test_the_output_of_the_network_is_not_changed():
    "Guidance, EOS suppression and draws change no tensor in place"
    kept = {}
    def say(x, t, ok):
        out = denoise(x)
        kept.setdefault('a', (out.logits, out.logits.clone()))
        return out
    generate_blocks(columns(say), SPACE, prompts(),
          GenerationOptions(compete(suppress_eos(confidence, [EOS])), draw_at(1.), 8, 4, guidance=1.))
    assert kept['a'][0].equal(kept['a'][1])


@pytest.mark.parametrize('k', [0, 1], ids=['head', 'dual_stream'])
def test_a_head_or_dual_stream_is_loaded_on_its_network_again(k, tmp_path):
    one, x, ok = nets()[k], clean(3), torch.ones(3, L).bool()
    part = one.second if k else one.heads['ups']
    for p in part.parameters(): torch.nn.init.normal_(p, std=.3)             # also what is zero at the start
    save_net(path := tmp_path/'part.safetensors', part, steps=7)
    back, origin = load_scorer(path, bare(one.net))
    with torch.no_grad(): a, b = (n(x, .5, ok) for n in (one, back))
    assert a.logits.equal(b.logits) and a.heads['ups'].equal(b.heads['ups']) and origin['steps'] == 7
    wide = Denoiser(torch.zeros(L, 0), SPACE.legal, 24, 2, 2, 0., False)
    with pytest.raises(ValueError, match='of width 16'): load_scorer(path, wide)


def bare(net): # a copy without the dual stream
    out = Denoiser(torch.zeros(L, 0), SPACE.legal, 16, 2, 2, 0., False)
    out.load_state_dict(net.state_dict())
    return out.eval()


# ---- which positions exist, where blocks begin, and when an answer is over

def attentive(x, t, ok):
    "Attends to real positions only, by their distance, as a network with rotary positions does"
    at = torch.arange(x.shape[1])
    far = (at[:, None] - at[None]).clamp(-5, 5) + 5
    by_distance = OUT[:11, 0][far]
    mix = torch.sin(by_distance*3)*ok[:, None]                  # (B,L,L)
    values = torch.sin(EMB[0][x][..., None]*OUT[3])
    return Denoised(4*torch.sin(mix @ values), None, {})


def padded(rows, filler):
    "Rows of several lengths, padded on the left: ids, and which positions exist"
    most = max(map(len, rows))
    x = torch.tensor([[filler]*(most - len(r)) + r for r in rows])
    first = torch.tensor([[most - len(r)] for r in rows])
    return x, torch.arange(most) >= first


def wide_space(n): return TokenSpace(MASK, -1, (torch.arange(V) < 11).expand(n, -1))


ROWS = [prompt + [MASK]*12 for prompt in ([1, 2, 3], [7], [4, 5, 6, 7, 8])]


@pytest.mark.parametrize('filler', [0, 5, EOS])
@pytest.mark.parametrize(
    'how',
    [
        GenerationOptions(block=4, steps=4),
        GenerationOptions(compete(confidence), draw_at(1.0), block=6, steps=3),
        GenerationOptions(block=4, steps=2, aligned=True),
        GenerationOptions(block=4, steps=4, guidance=0.5),
    ],
)
def test_the_id_at_positions_that_do_not_exist_changes_nothing(how, filler):
    "Alone and in a batch, whatever the filler: the same tokens"
    space = wide_space(17)
    x, real = padded(ROWS, filler)
    together = generate_blocks(columns(attentive), space, x, how, real=real)
    for i, r in enumerate(ROWS):
        one = wide_space(len(r))
        alone = generate_blocks(columns(attentive), one, torch.tensor([r]), how, Noise(0, torch.tensor([i])))
        assert together[i, -len(r):].equal(alone[0])
    answer = (x == MASK).clone()
    clean = torch.where(answer, together, x)
    whole = log_likelihood(columns(attentive), clean, answer, space, 6, real=real)
    for i, r in enumerate(ROWS):
        own, where = clean[[i], -len(r):], answer[[i], -len(r):]
        noise = Noise(0, torch.tensor([i]))
        alone = log_likelihood(columns(attentive), own, where, wide_space(len(r)), 6, noise)
        assert alone.allclose(whole[i:i+1], rtol=1e-5)


def test_aligned_blocks_are_counted_from_the_first_real_position():
    x, real = padded(ROWS, 0)
    seen = []
    def note(st, now, keep): seen.append(now == MASK)
    how = GenerationOptions(block=4, steps=1, aligned=True)
    generate_blocks(columns(attentive), wide_space(17), x, how, real=real, callback=note)
    first = real.int().argmax(1)
    for n, left in enumerate(seen):
        for i in range(3):
            done = n + (len(ROWS[i]) - 12)//4
            block = (torch.arange(17) - first[i])//4
            open_ = [j for j in range(17) if x[i, j] == MASK and block[j] > done]
            assert left[i].nonzero()[:, 0].tolist() == open_


def ending(after):
    "Predicts token 3 and, from a column of each row on, the end"
    def ask(x, t, ok, at):
        end = at >= torch.tensor(after)[x[:, 0]][:, None]
        logits = torch.full((*at.shape, V), -9.)
        sure = 6 - .1*at[..., None]                              # from left to right
        return Denoised(logits.scatter(-1, torch.where(end, EOS, 3)[..., None], sure), None, {})
    return ask


@pytest.mark.parametrize('block, steps, remasks, asked', [
    (4, 4, False, [2, 6, 9, 16]),       # to the end sign, and no further
    (4, 4, True, [4, 8, 12, 16]),       # what may be remasked is final when its block is done
    (16, 16, False, [2, 6, 9, 16]),
    (16, 16, True, [16, 16, 16, 16])])
def test_an_answer_that_has_ended_costs_nothing_more(block, steps, remasks, asked):
    after = [5, 9, 12, 99]                                       # columns; the answers begin at column 4
    x = torch.full((4, L), MASK); x[:, :4] = torch.arange(4)[:, None]
    policy = compete(confidence) if remasks else llada()
    spent, rows = torch.zeros(4), []
    def count(n): spent.add_(n)
    def ask(x, t, ok, at):
        rows.append(len(x))
        return ending(after)(x, t, ok, at)
    how = GenerationOptions(policy, block=block, steps=steps)
    full = generate_blocks(ask, SPACE, x, how)
    n, rows = sum(rows), []
    out = generate_blocks(ask, SPACE, x, how._replace(ends=(EOS, EOT)), count=count)
    assert spent.tolist() == asked and sum(rows) == spent.sum() and n == 64
    for a, b, end in zip(full.tolist(), out.tolist(), after):
        assert a[:end + 1] == b[:end + 1] and set(b[end:]) <= {EOS}


def test_an_end_inside_the_prompt_or_after_a_masked_position_ends_nothing():
    x = torch.full((1, L), MASK); x[0, :4] = torch.tensor([3, EOS, EOS, 1])
    out, spent = None, torch.zeros(1)
    def ask(x, t, ok, at):                                       # the end first, the tokens before it last
        sure = .1*at[..., None] + 1
        likely = torch.where(at == L - 1, EOS, 3)[..., None]
        logits = torch.full((*at.shape, V), -9.).scatter(-1, likely, sure)
        return Denoised(logits, None, {})
    out = generate_blocks(ask, SPACE, x, GenerationOptions(block=16, steps=16, ends=(EOS,)), count=spent.add_)
    assert spent.item() == 16 and out[0].tolist() == [3, EOS, EOS, 1, *[3]*15, EOS]
