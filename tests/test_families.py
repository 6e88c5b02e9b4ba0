"""Models saved as the published ones are: they load, their facts are found, and wrong facts are refused."""
from pathlib import Path
import pytest, torch

transformers = pytest.importorskip('transformers')
pytest.importorskip('peft')
import published
from transformers import AutoConfig, BertConfig, EsmConfig, ModernBertConfig, RobertaConfig
from remask.lm import families
from remask.lm.families import FAMILIES, family_of, load_network
from remask.lm.hub import Tuning, finetune, load_hub, put_dual_stream, save_hub_head, semi_autoregressive
from remask.lm.hub_model import Hub, wrap
from remask.evaluate.answer_metrics import inject_errors
from remask.lm.blocks import GenerationOptions, after_position
from remask.core.sampler import Noise, nucleus, sample
from remask.core.schedules import uniform_grid
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

OWN = dict(llada={}, llada_tied=dict(weight_tying=True), dream={}, dream_tied=dict(tie_word_embeddings=True),
           llada2_moe=dict(mask_token_id=1), sdar={}, mdlm={}, mdlm_timed=dict(time_conditioning=True))
NATIVE = dict(bert=BertConfig, roberta=RobertaConfig, modernbert=ModernBertConfig, esm=EsmConfig)
TEXTS = ['1+2=', '(10+20)*3=', '7=', '12+13+14=']


def saved(folder, case, tokenizer=None, seed=0, **config):
    "A published model of a case of `OWN`, saved; the network it was saved from"
    name, more = case.replace('_tied', '').replace('_timed', ''), OWN.get(case, {}) | config
    net = published.network(name, seed, **more)
    published.save(folder, name, net, tokenizer, **more)
    return net


def native(folder, case, eos=2):
    "A model of transformers' own with random weights"
    small = dict(vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    small |= dict(intermediate_size=64, max_position_embeddings=80, pad_token_id=0)
    if case == 'esm': small['mask_token_id'] = 1
    config = NATIVE[case](**small, eos_token_id=eos, bos_token_id=None)
    torch.manual_seed(0)
    net = transformers.AutoModelForMaskedLM.from_config(config, attn_implementation='sdpa')
    for p in net.parameters(): torch.nn.init.normal_(p, std=.3) if p.ndim > 1 else None
    net.tie_weights()
    net.save_pretrained(folder)
    published.small_tokenizer(Path(folder)).save_pretrained(folder)
    return net.eval()


@pytest.fixture(scope='module', params=[*OWN, *NATIVE])
def model(request, tmp_path_factory):
    "Every family once: its case, its folder, the network it was saved from"
    folder = tmp_path_factory.mktemp(request.param)
    net = native(folder, request.param) if request.param in NATIVE else saved(folder, request.param)
    return request.param, folder, net


def opened(folder, **how): return load_hub(folder, trust_remote_code=True, **how)


def plain_logits(case, net, x, block):
    "Logits of the network for one row, computed as in its own published script"
    L, more = x.shape[1], {}
    if case.startswith('mdlm'): more = dict(timesteps=-torch.log1p(-torch.tensor([.5])*(1 - 1e-3)))
    if block:
        number = torch.arange(L)//block
        seen = number[:, None] >= number[None]
        mask = seen[None, None].float()
        more = dict(attention_mask=mask.log() if case == 'llada2_moe' else mask)
    with torch.no_grad(): out = net(x, **more)
    logits = out if torch.is_tensor(out) else out.logits
    if case.startswith('dream'): logits = torch.cat([logits[:, :1], logits[:, :-1]], 1)
    return logits


# ---- loading under the pinned release of transformers

def test_every_tensor_is_that_of_the_file_and_every_logit_that_of_the_class(model):
    case, folder, net = model
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    again = load_network(config, folder).eval()
    for k, v in again.state_dict().items(): assert v.equal(net.state_dict()[k]), k
    x = torch.randint(4, 30, (1, 12), generator=torch.Generator().manual_seed(1))
    block = getattr(config, 'block_size', 0) or FAMILIES[family_of(config)].block
    got, want = (plain_logits(case, n, x, block) for n in (again, net))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('bridge, case', [
    ('_tie_when_loaded', 'llada'), ('_after_init', 'mdlm'), ('_after_init', 'sdar'),
    ('default_rope', 'dream')])
def test_no_bridge_is_superfluous(tmp_path, monkeypatch, bridge, case):
    saved(tmp_path, case)
    from contextlib import nullcontext
    def no_bridge(*kind): return nullcontext()
    monkeypatch.setattr(families, bridge, no_bridge)
    config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    with pytest.raises((AttributeError, KeyError, TypeError)): load_network(config, tmp_path)


def test_buffers_that_are_in_no_file_are_computed_again(tmp_path):
    net = saved(tmp_path, 'dream')
    again = load_network(AutoConfig.from_pretrained(tmp_path, trust_remote_code=True), tmp_path)
    for layer, other in zip(net.model['layers'], again.model['layers']):
        assert other.rotary_emb.inv_freq.equal(layer.rotary_emb.inv_freq)
        assert other.rotary_emb.inv_freq[0] == 1


def test_weights_that_the_files_lack_are_not_drawn_at_random(tmp_path):
    saved(tmp_path, 'llada')
    from safetensors.torch import load_file, save_file
    whole = load_file(tmp_path/'model.safetensors')
    whole.pop('model.transformer.ff_out.weight')
    save_file(whole, tmp_path/'model.safetensors', dict(format='pt'))
    with pytest.raises(ValueError,
                       match='lack 1 weights of its class, model.transformer.ff_out.weight among them'):
        opened(tmp_path)


def test_code_of_its_own_is_run_only_when_asked(tmp_path):
    saved(tmp_path, 'sdar')
    with pytest.raises(ValueError, match='trust_remote_code=True'): load_hub(tmp_path)


# ---- evaluation

def test_every_family_is_evaluated_as_its_own_script_does(model):
    case, folder, net = model
    hub = opened(folder)
    x = torch.randint(4, 30, (1, 12), generator=torch.Generator().manual_seed(1))
    at = torch.tensor([[0, 3, 11, 7]])
    with torch.no_grad(): got = hub(x, .5, x > 0, at).logits
    want = plain_logits(case, net, x, hub.facts.block)[:, at[0]]
    torch.testing.assert_close(got[..., :want.shape[-1]], want, rtol=1e-3, atol=1e-3)


def test_alone_and_in_a_batch_alike(model):
    "Prompts of four lengths: the same logits and the same answers, whatever the batch"
    case, folder, _ = model
    hub = opened(folder)
    block = hub.facts.block or 4
    how = semi_autoregressive(2*block, block, 2*block)
    rows = hub.rows(TEXTS, 4)
    at = torch.arange(rows.x.shape[1] - 4, rows.x.shape[1]).expand(4, -1)
    with torch.no_grad():
        together = hub(rows.x, .5, rows.real, at).logits
        for k, t in enumerate(TEXTS):
            one = hub.rows([t], 4)
            alone = hub(one.x, .5, one.real, torch.arange(one.x.shape[1] - 4, one.x.shape[1])[None]).logits[0]
            torch.testing.assert_close(together[k], alone, rtol=1e-3, atol=2e-3)
    if hub.facts.context < 20 + 2*block: return
    answers = hub.answers(TEXTS, 2*block, how)
    assert answers == hub.answers(TEXTS, 2*block, how, batch=1) == hub.answers(TEXTS, 2*block, how, batch=3)


WANTED = dict(llada=('llada', 0, 0, ''), mdlm=('mdlm', 0, 0, ''), dream=('dream', 1, 0, '4d bool positions'),
              llada2_moe=('llada2', 0, 32, '4d float positions'), sdar=('sdar', 0, 4, '4d bool positions'),
              bert=('masked_lm', 0, 0, '2d positions'))
WANTED |= {case: ('masked_lm', 0, 0, None) for case in ('roberta', 'modernbert', 'esm')}
WANTED |= dict(llada_tied=WANTED['llada'], mdlm_timed=WANTED['mdlm'], dream_tied=WANTED['dream'])


def test_facts_of_every_family(model):
    case, folder, _ = model
    hub = opened(folder)
    family, shift, block, form = WANTED[case]
    assert hub.facts[:3] == (family, shift, block) and (form is None or hub.facts.mask_form == form)
    assert hub.facts.picks == (case != 'llada_tied' and not case.startswith('mdlm'))
    assert hub.facts.time == (('timesteps', 'sigma') if case.startswith('mdlm') else ())
    assert hub.ids.mask == (40 if case.startswith('mdlm') else 1)
    checks = {c.fact: c for c in hub.checks}
    timed = dict(mdlm='taken, and changes nothing', mdlm_timed='taken, and matters')
    assert checks['time'].verified == timed.get(case, 'by its arguments')
    page = hub.described()
    assert all(c.fact in page and c.verified in page for c in hub.checks)


def test_the_probe_costs_at_most_ten_passes(model, monkeypatch):
    case, folder, _ = model
    passes = []
    first = Hub.__init__
    def counted(self, net, *args):
        first(self, net, *args)
        net.register_forward_hook(lambda *_: passes.append(1))
    monkeypatch.setattr(Hub, '__init__', counted)
    opened(folder)
    assert 4 <= len(passes) <= 10


@pytest.mark.parametrize('case', [*OWN])
def test_the_same_facts_are_found_in_half_precision(tmp_path, case):
    "The same facts are found in bfloat16"
    saved(tmp_path, case)
    half, full = opened(tmp_path, dtype='bfloat16'), opened(tmp_path)
    assert half.facts == full.facts and next(half.net.parameters()).dtype == torch.bfloat16


# ---- this position or the next

def trained(name, shift):
    "A small model that has learned to count, its logits `shift` positions on"
    net = published.network(name)
    g = torch.Generator().manual_seed(0)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(250):
        x0 = 4 + (torch.randint(10, (16, 1), generator=g) + torch.arange(50)) % 10
        masked = torch.rand(x0.shape, generator=g) < torch.rand(16, 1, generator=g)*.9 + .1
        logits = net(torch.where(masked, 1, x0)).logits[:, :50 - shift]
        target, asked = x0[:, shift:], masked[:, shift:]
        loss = torch.nn.functional.cross_entropy(logits[asked], target[asked])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return net.eval()


@pytest.mark.parametrize('name, shift', [('llada', 0), ('dream', 1)])
def test_a_probe_text_decides_the_shift(tmp_path, name, shift):
    net, wrong = trained(name, shift), trained(name, 1 - shift)
    published.save(tmp_path/'right', name, net)
    hub = opened(tmp_path/'right')
    assert hub.facts.shift == shift and 'a probe text agrees' in hub.described()
    published.save(tmp_path/'wrong', name, wrong)
    with pytest.raises(ValueError,
                       match=f'its family has shift={shift}, a probe text gives shift={1 - shift}'):
        opened(tmp_path/'wrong')
    assert opened(tmp_path/'wrong', shift=1 - shift).facts.shift == 1 - shift
    assert 'A PROBE TEXT DISAGREES' in opened(tmp_path/'wrong', shift=shift).described()


def test_a_model_of_no_known_family_is_decided_by_the_probe_or_refused(tmp_path):
    net = trained('dream', 1)
    tok = published.small_tokenizer(tmp_path)
    def logits(ids): return net(ids).logits
    assert wrap(logits, tok, mask=1, V=40).facts.shift == 1
    raw = published.network('dream')
    with pytest.raises(ValueError, match='give shift=0'): wrap(lambda ids: raw(ids).logits, tok, mask=1, V=40)


def test_a_trained_model_that_predicts_the_next_position_counts_on(tmp_path):
    published.save(tmp_path, 'dream', trained('dream', 1))
    hub = opened(tmp_path)
    assert hub.answers(['3456', '012345'], 6, semi_autoregressive(6, 1, 6)) == ['789012', '678901']


# ---- tokenizer, configuration and logits that disagree

def test_a_mask_token_beyond_the_vocabulary_is_refused(tmp_path):
    saved(tmp_path, 'llada', mask_token_id=99999)
    tok = published.small_tokenizer(tmp_path, mask_token=None)
    tok.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='id 99999 is none of the model'): opened(tmp_path)
    with pytest.raises(ValueError, match='id 77 is none of the model'): opened(tmp_path, mask=77)
    assert opened(tmp_path, mask=1).ids.mask == 1


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
    saved(tmp_path, 'llada', vocab_size=20)
    with pytest.raises(ValueError, match='do not belong together'): opened(tmp_path)


def test_padding_is_no_id(tmp_path):
    "pad = eos, and the pad token's own text in a prompt: real positions stay real, and the end is legal"
    saved(tmp_path, 'sdar')
    tok = published.small_tokenizer(tmp_path)
    tok.pad_token = '<eos>'
    tok.save_pretrained(tmp_path)
    hub = opened(tmp_path)
    assert hub.ids.ends == (2,)
    assert hub.space(3).legal[0, 2]
    assert hub.space(3).pad == -1
    x, real = hub.rows(['1<eos>2=', '<pad>+<eos>', '7='], 4)
    assert real.sum(1).tolist() == [8, 7, 6]
    assert x[0, :4].tolist() == hub.coded(['1<eos>2='])[0]
    together = hub.answers(['1<eos>2=', '<pad>+<eos>', '7='], 8, GenerationOptions(block=4, steps=4))
    assert together == hub.answers(
        ['1<eos>2=', '<pad>+<eos>', '7='], 8, GenerationOptions(block=4, steps=4), batch=1
    )


def test_mask_is_the_last_column_and_there_is_no_pad(tmp_path):
    saved(tmp_path, 'mdlm')
    tok = published.small_tokenizer(tmp_path, mask_token=None, pad_token=None)
    tok.save_pretrained(tmp_path)
    hub = opened(tmp_path)
    assert hub.ids.mask == 40 and hub.ids.V == 41 and hub.ids.ends == (2,)
    how = GenerationOptions(block=8, steps=8)
    assert hub.answers(TEXTS, 8, how) == hub.answers(TEXTS, 8, how, batch=1)


def test_a_model_without_an_end(tmp_path):
    "BERT: its separator is the end; without one, training raises an error"
    native(tmp_path, 'bert', eos=None)
    tok = published.small_tokenizer(tmp_path, eos_token=None)
    tok.sep_token = '='
    tok.save_pretrained(tmp_path)
    assert opened(tmp_path).ids.ends == (tok.convert_tokens_to_ids('='),)
    tok.sep_token = None
    tok.save_pretrained(tmp_path)
    hub = opened(tmp_path)
    assert hub.ids.ends == () and len(hub.answers(['1+2='], 4, GenerationOptions(block=4, steps=4))) == 1
    with pytest.raises(ValueError, match='names no end of an answer'): hub.targets([('1+2=', '3')], 4)


def test_logits_with_fewer_or_more_columns_than_ids(tmp_path):
    net = published.network('llada')
    tok = published.small_tokenizer(tmp_path)
    class Fewer(torch.nn.Module):                       # SMDM: MASK has an embedding and no column
        def forward(self, ids): return net(ids).logits[..., 2:].roll(0, -1)
    hub = wrap(Fewer(), tok, mask=39, V=40, shift=0)
    assert hub.ids.V == 40
    x, at = torch.full((1, 4), 5), torch.tensor([[1]])
    assert hub(x, 0., x > 0, at).logits[0, 0, 38:].eq(-torch.inf).all()
    wide = torch.nn.Linear(40, 64)
    hub = wrap(lambda ids: wide(net(ids).logits), tok, mask=1, V=40, shift=0)
    assert hub.ids.V == 64 and not hub.space(1).legal[0, 40:].any()


def test_a_network_with_the_same_logits_everywhere_is_refused(tmp_path):
    tok = published.small_tokenizer(tmp_path)
    def same(ids): return torch.zeros(*ids.shape, 40) + torch.arange(40.)
    def not_numbers(ids): return torch.full((*ids.shape, 40), torch.nan)
    with pytest.raises(ValueError, match='its logits are the same at every position'):
        wrap(same, tok, mask=1, V=40, shift=0)
    with pytest.raises(ValueError, match='not numbers'):
        wrap(not_numbers, tok, mask=1, V=40, shift=0)


@pytest.mark.parametrize('case, given, why', [
    ('llada', dict(time='sigma'), "takes none of"), ('sdar', dict(block=5), None),
    ('llada', dict(block=4), 'follows no mask of them'),
    ('mdlm', dict(time='hours'), "time='hours' is unknown"),
    ('llada', dict(dtype='bf16'), "dtype='bf16' is unknown"),
    ('llada', dict(mask=99999), 'id 99999 is none')])
def test_facts_can_be_given_and_are_checked(tmp_path, case, given, why):
    saved(tmp_path, case)
    if why is None: assert opened(tmp_path, **given).facts.block == 5
    else:
        with pytest.raises(ValueError, match=why): opened(tmp_path, **given)


# ---- blocks, heads, dual streams, error injection

def test_blocks_of_the_answer_fit_the_blocks_of_the_model(tmp_path):
    saved(tmp_path, 'sdar')
    hub = opened(tmp_path)
    with pytest.raises(ValueError, match='attends by blocks of 4, and block=3'):
        hub.answers(['1+2='], 6, GenerationOptions(block=3, steps=3))
    seen = []
    def note(st, x, keep): seen.append((x == 1).sum().item())
    hub.answers(['1+2=3'], 8, GenerationOptions(block=4, steps=1), callback=note, stop=False)
    # five tokens of a prompt: 3, 4 and 1 of the answer a block
    assert seen == [5, 1, 0]


@pytest.mark.parametrize('case', ['llada', 'llada_tied', 'dream', 'llada2_moe', 'sdar', 'mdlm', 'bert'])
def test_dual_streams_are_trained_saved_and_loaded_again(tmp_path, case):
    native(tmp_path, case) if case in NATIVE else saved(tmp_path, case)
    hub = opened(tmp_path)
    rows = hub.targets([(f'{a}+{b}=', f'{a + b}') for a in range(6) for b in range(6)], 4).rows
    put_dual_stream(hub, [0, 1])
    frozen = {k: p.clone() for k, p in hub.net.named_parameters()}
    first = [p.clone() for p in hub.second.parameters()]
    finetune(hub, rows, after_position(rows.x.shape[1] - 4), Tuning(batch=8, accumulate=1, lr_head=1e-2), 3)
    assert all(p.equal(frozen[k]) for k, p in hub.net.named_parameters())
    assert any(not p.equal(q) for p, q in zip(hub.second.parameters(), first))
    save_hub_head(tmp_path/'dual_stream.safetensors', hub, steps=3)
    again = opened(tmp_path, heads=dict(ups=tmp_path/'dual_stream.safetensors'))
    at = torch.tensor([[4, 5]]*2)
    with torch.no_grad(): a, b = (h(rows.x[:2], .5, rows.real[:2], at) for h in (hub, again))
    assert a.logits.equal(b.logits) and a.heads['ups'].equal(b.heads['ups'])


def test_errors_are_injected_into_a_hub_model(model):
    case, folder, _ = model
    hub = opened(folder)
    rows = hub.targets([(f'{a}+{b}=', f'{a + b}') for a in range(4) for b in range(4)], 4).rows
    where = after_position(rows.x.shape[1] - 4)(rows.x)
    u = torch.rand(*rows.x.shape, 3, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(): bad = inject_errors(hub.process(rows.real), rows.x, where, 2, u)
    assert ((bad != rows.x).sum(1) == 2).all()
    assert bad[~where].equal(rows.x[~where])
    assert hub.space(1).legal[0][bad[bad != rows.x]].all()


def test_a_hub_model_in_the_plain_sampler(tmp_path):
    saved(tmp_path, 'llada')
    hub = opened(tmp_path)
    x, real = hub.rows(TEXTS, 6)
    noise, frozen = Noise(0, torch.arange(4)), x != hub.ids.mask
    out = sample(hub.process(real), x, uniform_grid(6), draw=nucleus(.9), noise=noise, frozen=frozen)
    assert out[x != 1].equal(x[x != 1])
    assert hub.space(1).legal[0][out[x == 1]].all()
