"""Models in the Hugging Face format, offline: loading, answers, heads, adapters, and errors."""
import json, math
import pytest, torch

transformers = pytest.importorskip('transformers')
pytest.importorskip('peft')
from transformers import AutoConfig, AutoTokenizer
from remask.core.files import open_tensors
from remask.lm.hub import (
    SOURCES, IdRows, Tuning, _learners, finetune, gradients, lm_policy, load_hub, lora,
    put_dual_stream, save_hub_head, semi_autoregressive, wide_noise)
from remask.lm.hub_model import save_small, wrap
from remask.lm.blocks import GenerationOptions, after_token, draw_at, generate_blocks
from remask.policies.ranked import compete
from remask.core.train import keyed_generator
from remask.policies.ups import ScoreHead, by_head
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    to = tmp_path_factory.mktemp('small')
    save_small(to/'a'); save_small(to/'wide', 48)
    return to


@pytest.fixture
def hub(folder): return load_hub(folder/'a')


def part(rows, n): return IdRows(rows.x[:n], rows.real[:n])


def sums(hub):
    texts = [f'{a}+{b}={a + b}' + '<eos>'*(a + b < 10) for a in range(10) for b in range(10)]
    x = torch.tensor(hub.tokenizer(texts)['input_ids'])
    return IdRows(x, torch.ones_like(x).bool()), after_token(hub.tokenizer.convert_tokens_to_ids('='))


# ---- evaluation

def test_columns_are_the_models_own_logits(hub):
    x, at = torch.randint(4, 30, (3, 12)), torch.tensor([[0, 11], [5, 5], [7, 2]])
    seen = []
    hook = hub.top.register_forward_hook(lambda m, a, out: seen.append(out.shape))
    got = hub(x, 0., x != 0, at)
    hook.remove()
    whole = hub.net(input_ids=x)
    # nothing is computed at other columns
    assert seen == [(3, 2, 40)]
    want = whole.logits.gather(1, at[..., None].expand(-1, -1, 40))
    assert got.logits.allclose(want, atol=1e-5) and got.hidden_states.shape == (3, 2, 32)


def test_a_prompt_gives_what_it_gives_alone(hub):
    texts, how = ['1+2=', '(10+20)*3=', '7='], semi_autoregressive(8, 4, 8)
    together = hub.answers(texts, 8, how)
    assert together == [hub.answers([t], 8, how)[0] for t in texts]
    assert together == hub.answers(texts, 8, how, batch=2)


def test_hidden_states_by_output_where_no_hook_can_be(hub):
    hub.heads['ups'] = ScoreHead(32)
    x, at = torch.randint(4, 30, (2, 6)), torch.tensor([[1], [2]])
    by_hook = hub(x, 0., x != 0, at)
    hub.facts = hub.facts._replace(picks=False)
    by_output = hub(x, 0., x != 0, at)
    assert by_output.logits.allclose(by_hook.logits, atol=1e-5)
    assert by_output.hidden_states.shape == by_hook.hidden_states.shape
    own = hub.net.forward
    hub.net.forward = lambda x, **k: transformers.modeling_outputs.MaskedLMOutput(logits=own(x).logits)
    with pytest.raises(ValueError, match='neither by its output layer nor by its output'):
        hub(x, 0., x != 0, at)


@pytest.mark.parametrize('T', [0., 1.])
@pytest.mark.parametrize('source', ['ups', *SOURCES])
def test_every_source_generates_legal_tokens(hub, source, T):
    hub.heads['ups'] = ScoreHead(32)
    (x, real), kept = hub.rows(['1+2=', '30*4='], 8), []
    policy = lm_policy('remask', source, hub.heads, hub.ids.ends)
    def note(st, x, keep): kept.append((x == 1).sum(1))
    how = GenerationOptions(policy, draw_at(T), 4, 4)
    out = generate_blocks(hub, hub.space(x.shape[1]), x, how, real=real, callback=note)
    assert out[x != 1].equal(x[x != 1])
    assert not torch.isin(out[x == 1], torch.tensor(hub.ids.never)).any()
    assert [k.tolist() for k in kept] == [[7 - i]*2 for i in range(8)]


def test_answers_without_an_end_and_with_one(hub):
    hub.top.bias.data[2] += 50.
    assert hub.answers(['1='], 8, GenerationOptions(block=8, steps=8)) == ['']
    assert len(hub.answers(['1='], 8, GenerationOptions(block=8, steps=8), without=hub.ids.ends)[0]) == 8


# ---- code of its own, as LLaDA has it

MODEL = '''
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
class OwnConfig(PretrainedConfig):
    model_type = 'own_llada'
    def __init__(self, vocab_size=40, hidden_size=16, mask_token_id=1, max_sequence_length=32, **k):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.mask_token_id, self.max_sequence_length = mask_token_id, max_sequence_length
        super().__init__(**k)
class OwnLM(PreTrainedModel):
    config_class = OwnConfig
    def __init__(self, config):
        super().__init__(config)
        self.wte = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.ff_out = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
    def get_input_embeddings(self): return self.wte
    def get_output_embeddings(self): return self.ff_out
    def forward(self, input_ids, attention_mask=None):
        h = self.wte(input_ids)
        return CausalLMOutputWithPast(logits=self.ff_out(h + h.mean(1, keepdim=True)))
'''


def test_code_that_comes_with_a_model_runs_only_when_asked(folder, tmp_path):
    import importlib.util
    (tmp_path/'m').mkdir(); (tmp_path/'m'/'modeling_own.py').write_text(MODEL)
    spec = importlib.util.spec_from_file_location('modeling_own', tmp_path/'m'/'modeling_own.py')
    own = importlib.util.module_from_spec(spec); spec.loader.exec_module(own)
    own.OwnLM(own.OwnConfig()).save_pretrained(tmp_path/'m')
    tok = AutoTokenizer.from_pretrained(folder/'a')
    tok.mask_token = None
    tok.save_pretrained(tmp_path/'m')
    config = json.loads((tmp_path/'m'/'config.json').read_text())
    config['auto_map'] = dict(AutoConfig='modeling_own.OwnConfig', AutoModel='modeling_own.OwnLM')
    (tmp_path/'m'/'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match='could not be loaded.*trust_remote_code=True'):
        load_hub(tmp_path/'m')
    with pytest.raises(ValueError, match='give shift=0'): load_hub(tmp_path/'m', trust_remote_code=True)
    hub = load_hub(tmp_path/'m', trust_remote_code=True, shift=0)
    hub.heads['ups'] = ScoreHead(16)
    assert hub.ids.mask == 1                                # MASK is named by the configuration alone
    assert hub.d == 16
    assert len(hub.answers(['1+2='], 4, GenerationOptions(compete(by_head()), block=4, steps=4))) == 1
    with pytest.raises(ValueError, match="more than the model's 32 positions"): hub.rows(['1+2='], 30)


# ---- heads and adapters

def test_a_head_goes_back_on_its_model_and_on_no_other(hub, folder, tmp_path):
    hub.heads['ups'] = ScoreHead(32, 4)
    save_hub_head(tmp_path/'new'/'ups.safetensors', hub, steps=3)
    record = open_tensors(tmp_path/'new'/'ups.safetensors')[1]
    assert record['config'] == dict(d=32, width=4)
    origin = {k: record['provenance'][k] for k in ('model', 'hidden', 'mask', 'steps')}
    assert origin == dict(model='a', hidden=32, mask=1, steps=3)
    again = load_hub(folder/'a', dict(ups=tmp_path/'new'/'ups.safetensors'))
    x, at = torch.randint(4, 30, (2, 6)), torch.tensor([[1], [2]])
    assert hub(x, 0., x != 0, at).heads['ups'].equal(again(x, 0., x != 0, at).heads['ups'])
    with pytest.raises(ValueError, match='of width 32, the network has 48'):
        load_hub(folder/'wide', dict(ups=tmp_path/'new'/'ups.safetensors'))
    with pytest.raises(ValueError, match='trained with mask 1, this model has 5'):
        load_hub(folder/'a', dict(ups=tmp_path/'new'/'ups.safetensors'), mask=5)
    hub.name = 'elsewhere/b'; save_hub_head(tmp_path/'b.safetensors', hub)
    with pytest.raises(ValueError, match="trained with model 'b'"):
        load_hub(folder/'a', dict(ups=tmp_path/'b.safetensors'))


def test_wide_noise_keeps_the_rates_and_every_other_id_is_as_likely(hub):
    space, x0 = hub.space(10), torch.full((60_000, 10), 7)
    x, asked, _ = wide_noise(.2)(space, x0, torch.tensor([[.5]]), torch.rand(60_000, 10, 3))
    wrong = (x != x0) & ~asked
    assert abs(wrong.sum()/(~asked).sum() - .2) < .005
    assert abs(asked.double().mean() - .5) < .005
    n = x[wrong].bincount(minlength=40).double()
    legal = space.legal[0].clone(); legal[7] = False
    assert (n[~legal] == 0).all()
    assert (n[legal]/n.sum()*legal.sum() - 1).abs().max() < .1


def test_a_head_is_trained_on_a_frozen_network(hub):
    rows, answer = sums(hub)
    hub.heads['ups'], seen = ScoreHead(32), []
    before = {k: p.clone() for k, p in hub.net.named_parameters()}
    def log(step, metrics): seen.append(metrics['ups'])
    finetune(hub, rows, answer, Tuning(batch=10, accumulate=2, lr_head=3e-2), 20, log=log)
    assert sum(seen[-5:]) < .8*sum(seen[:5])
    assert all(p.equal(before[k]) for k, p in hub.net.named_parameters())


def test_micro_batches_add_up_and_lambda_scales_the_gradient(hub):
    rows, answer = sums(hub)
    hub.heads['ups'] = ScoreHead(32)
    def grads(how, parts):
        hub.zero_grad()
        for p in parts: gradients(hub, p, answer, how, ['ups'], keyed_generator(0, 1))
        return torch.cat([p.grad.flatten() for p in hub.heads.parameters()])
    one, two = grads(Tuning(accumulate=1), [part(rows, 8)]), grads(Tuning(accumulate=2), [part(rows, 8)]*2)
    assert one.allclose(two, rtol=1e-4)
    assert grads(Tuning(accumulate=1, weight=3.), [part(rows, 8)]).allclose(3*one, rtol=1e-4)


@pytest.mark.parametrize('mode, moves',
    [('ups', {'ups'}), ('tps', {'tps'}), ('joint', {'ups', 'tps'}), ('alternating', {'ups', 'tps'})])
def test_parameters_that_each_mode_trains(hub, mode, moves):
    rows, answer = sums(hub)
    hub.heads['ups'] = ScoreHead(32)
    lora(hub, 2, dropout=0.)
    def flat(parameters): return torch.cat([p.flatten() for p in parameters]).clone()
    def state():
        additions = [p for n, p in hub.net.named_parameters() if 'lora' in n]
        return flat(hub.heads.parameters()), flat(additions)
    before = state()
    finetune(hub, rows, answer, Tuning(mode, batch=4, accumulate=2, turns=1, lr=1e-2, lr_head=1e-2), 2)
    after = state()
    assert {k for k, a, b in zip(('ups', 'tps'), before, after) if not a.equal(b)} == moves


def test_an_adapter_is_loaded_again_and_can_be_trained_further(hub, folder, tmp_path):
    rows, answer = sums(hub)
    finetune(lora(hub, 2, dropout=0.), rows, answer, Tuning('tps', batch=8, accumulate=1, lr=1e-2), 3)
    hub.net.save_pretrained(tmp_path/'adapter')
    back = load_hub(folder/'a', adapter=tmp_path/'adapter')
    x, at = rows.x[:2], torch.tensor([[4], [5]])
    assert back(x, 0., x != 0, at).logits.allclose(hub(x, 0., x != 0, at).logits, atol=1e-5)
    learn = [p for p in back.net.parameters() if p.requires_grad]
    assert learn and _learners(back, Tuning('tps'))


def test_a_dual_stream_on_a_hub_model(hub):
    rows, answer = sums(hub)
    x, at = rows.x[:4], torch.tensor([[4, 5]]*4)
    with torch.no_grad(): plain = hub(x, 0., x != 0, at).logits
    put_dual_stream(hub, [0, 1])
    with torch.no_grad(): got = hub(x, 0., x != 0, at)
    assert got.logits.equal(plain) and got.heads['ups'].shape == (4, 2)
    frozen = {k: p.clone() for k, p in hub.net.named_parameters()}
    seen = []
    def log(step, metrics): seen.append(metrics['ups'])
    finetune(hub, rows, answer, Tuning(batch=10, accumulate=1, lr_head=1e-3), 6, log=log)
    assert all(p.equal(frozen[k]) for k, p in hub.net.named_parameters())
    assert all(map(math.isfinite, seen))


# ---- errors

@pytest.mark.parametrize('given, why', [
    ((128, 30, 128), "block=30 does not divide the answer's 128 positions; try 16"),
    ((128, 32, 30), 'steps=30 cannot be shared among 4 blocks; try 28'),
    ((0, 32, 32), 'all must be at least 1'), ((64, 128, 64), 'does not divide')])
def test_lengths_that_do_not_divide(given, why):
    with pytest.raises(ValueError, match=why): semi_autoregressive(*given)


def test_impossible_prompts_are_refused(hub):
    with pytest.raises(ValueError, match='the answer is empty'): hub.rows(['1'], 0)
    with pytest.raises(ValueError,
                       match="prompt of 4 tokens and an answer of 61 are more than the model's 64"):
        hub.rows(['1+2='], 61)
    with pytest.raises(ValueError, match='prompt 1 contains MASK'): hub.rows(['1', '1<mask>'], 4)
    hub.tokenizer.chat_template = None
    with pytest.raises(ValueError, match='no chat template'): hub.rows(['1'], 4, chat=True)


@pytest.fixture(scope='module')
def function(folder):
    "A model that is a plain function on ids: no tokenizer, no weights to train"
    net = load_hub(folder/'a').net
    def logits(ids): return net(input_ids=ids).logits
    with pytest.warns(UserWarning, match='no attention mask'): return wrap(logits, mask=1, V=40, shift=0)


def test_without_a_tokenizer_texts_are_refused(function):
    ids = torch.full((1, 6), 5)
    why = 'the callable: has no tokenizer; it takes ids and no texts'
    with pytest.raises(ValueError, match=why): function.read(ids, 2)
    with pytest.raises(ValueError, match=why): function.rows(['1'], 4)
    with pytest.raises(ValueError, match=why): function.coded(['1'])


def test_a_folder_without_the_files_of_its_tokenizer_is_refused(folder, tmp_path):
    AutoConfig.from_pretrained(folder/'a').save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='its tokenizer has no tokens .*; its files are missing'):
        load_hub(tmp_path)


@pytest.mark.parametrize('mode', ['ups', 'tps', 'joint', 'alternating'])
def test_a_function_has_no_weights_to_train(function, mode):
    x = torch.full((2, 6), 5)
    rows = IdRows(x, x > 0)
    why = 'the callable: is a function and has no weights to train'
    how = Tuning(mode, batch=2)
    with pytest.raises(ValueError, match=why): finetune(function, rows, after_token(5), how, 1)
    with pytest.raises(ValueError, match=why): lora(function)


def test_an_unknown_shift_is_named(hub):
    x = torch.full((2, 6), 5)
    hub.facts = hub.facts._replace(shift=None)
    with pytest.raises(ValueError, match='its shift is not known; call `verify_facts` first'):
        hub(x, 0., x > 0, x[:, :1])


def test_a_dual_stream_scores_only_what_its_network_has_read(hub):
    put_dual_stream(hub, [0])
    with pytest.raises(ValueError, match='has read nothing: run the network first'): hub.second()
    x = torch.full((2, 6), 5)
    hub.net(input_ids=x)
    assert hub.second().shape == (2, 6)
    with pytest.raises(ValueError, match='has read nothing'): hub.second()   # a row is scored once


def test_errors_are_raised_before_the_weights_are_read(folder, tmp_path):
    tok = AutoTokenizer.from_pretrained(folder/'a')
    tok.mask_token = None
    tok.save_pretrained(tmp_path)
    AutoConfig.from_pretrained(folder/'a').save_pretrained(tmp_path)         # no weights here at all
    with pytest.raises(ValueError, match='names a mask token'): load_hub(tmp_path)
    with pytest.raises(ValueError, match='ups.safetensors: no such file'):
        load_hub(folder/'a', dict(ups=tmp_path/'ups.safetensors'))
    with pytest.raises(ValueError, match='could not be loaded'): load_hub(tmp_path, mask=1)
    with pytest.raises(ValueError, match="source 'ups': there is no such head"): lm_policy(source='ups')
    with pytest.raises(ValueError, match='choose no_remask or remask'): lm_policy('both')


def test_impossible_training_is_refused(hub):
    rows, answer = sums(hub)
    with pytest.raises(ValueError, match='put a head on'): finetune(hub, rows, answer, Tuning(), 1)
    hub.heads['ups'] = ScoreHead(32)
    with pytest.raises(ValueError, match='call `lora` first'): finetune(hub, rows, answer, Tuning('joint'), 1)
    with pytest.raises(ValueError, match="mode='all' is unknown"):
        finetune(hub, rows, answer, Tuning('all'), 1)
    with pytest.raises(ValueError, match="fewer than a step's 256"):
        finetune(hub, rows, answer, Tuning(batch=128, accumulate=2), 1)
