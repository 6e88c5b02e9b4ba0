"""OpenCompass: its interface on a stand-in, prompts, sources, likelihoods, and what is refused."""
import inspect, subprocess, sys
from types import ModuleType
import numpy as np
import pytest, torch

pytest.importorskip('lm_eval')
import published
from remask.core.denoiser import Denoised
from remask.lm.harness import request_key
from remask.lm.hub_model import Hub, save_small
from remask.lm.hub import lm_policy, load_hub, save_hub_head, semi_autoregressive
from remask.lm.blocks import draw_at, generate_blocks
from remask.lm.opencompass import CompassArgs, MaskedModel, messages, read_compass_args
from remask.core.sampler import Noise
from remask.policies.ups import ScoreHead


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    to = tmp_path_factory.mktemp('compass')
    save_small(to/'small')
    hub = published.sharpen(to/'small')
    torch.manual_seed(0)
    hub.heads['ups'] = ScoreHead(32)
    for p in hub.heads['ups'].parameters(): torch.nn.init.normal_(p)
    save_hub_head(to/'ups.safetensors', hub)
    return to


def made(folder, **how):
    settings = dict(gen_length=8, gen_blocksize=4, gen_steps=8, mc_num=8)
    return MaskedModel(str(folder/'small'), **settings | how)


def human(text): return [dict(role='HUMAN', prompt=text)]


TEXTS = ['1+2', '(10+20)*3', '7', '4*4', '9-9-9']


# ---- answers

@pytest.mark.parametrize('source', ['ups', 'tps_prob', None])
@pytest.mark.parametrize('suppress', [False, True])
def test_answers_are_the_hubs_own(folder, source, suppress):
    ups = folder/'ups.safetensors' if source == 'ups' else None
    model = made(folder, confidence_source=source, ups_head=ups, diff_confidence_eos_eot_inf=suppress)
    hub = load_hub(folder/'small', dict(ups=ups) if ups else ())
    name, ends = 'remask' if source else 'no_remask', hub.ids.ends if suppress else ()
    policy = lm_policy(name, source or 'tps_prob', hub.heads, ends)
    # its template adds '='
    want = hub.answers([t + '=' for t in TEXTS], 8, semi_autoregressive(8, 4, 8, policy=policy))
    assert model.generate([human(t) for t in TEXTS], 8) == want == model.generate(TEXTS, max_out_len=8)
    settings = dict(confidence_source=source, ups_head=ups, diff_confidence_eos_eot_inf=suppress)
    assert made(folder, **settings, batch_size_=1).generate(TEXTS, 8) == want


def test_the_sources_do_different_things(folder):
    ups = folder/'ups.safetensors'
    settings = dict(ups_head=ups, gen_blocksize=8, gen_steps=8, temperature=1.)
    def answers(**how): return tuple(made(folder, **settings, **how).generate(TEXTS, 8))
    got = [answers(confidence_source=s) for s in ('ups', 'tps_prob', 'random', None)]
    got.append(answers(remasking='random'))
    assert len(set(got)) == 5


def test_random_scores_and_draws_are_keyed_by_the_prompt(folder):
    model = made(folder, confidence_source='random', temperature=.8)
    hub, ids = model.lm.hub, model.tokenizer('7=')['input_ids']
    asked = dict(max_gen_toks=8, until=[])
    noise = Noise(0, torch.tensor([request_key(1234, ids, asked, 0)]))
    x = torch.tensor([ids + [hub.ids.mask]*8])
    how = semi_autoregressive(8, 4, 8, policy=lm_policy('remask', 'random'), draw=draw_at(.8))
    want = hub.read(generate_blocks(hub, hub.space(10), x, how, noise, check=False), 2)
    assert model.generate(['7'], 8) == want == model.generate(['7', *TEXTS], 8)[:1]
    other = made(folder, confidence_source='random', temperature=.8, seed=1)
    assert other.generate(TEXTS, 8) != model.generate(TEXTS, 8)


def test_generation_kwargs_and_those_of_a_call(folder):
    plain, warm = made(folder), made(folder, generation_kwargs=dict(do_sample=True, temperature=1.))
    sampled = plain.generate(TEXTS, 8, do_sample=True, temperature=1.)
    assert warm.generate(TEXTS, 8) == sampled != plain.generate(TEXTS, 8)
    assert warm.generate(TEXTS, 8, do_sample=False) == plain.generate(TEXTS, 8)
    with pytest.raises(ValueError, match='leave the others out'):
        made(folder, generation_kwargs=dict(num_return_sequences=4)).generate(TEXTS, 8)
    with pytest.raises(ValueError, match='min_out_len=5'): plain.generate(TEXTS, 8, min_out_len=5)
    assert plain.generate(TEXTS, 8, min_out_len=None, stopping_criteria=[]) == plain.generate(TEXTS, 8)


class Fives(Hub):
    def forward(self, x, t, real, at):
        self.seen.append(x.shape[1])
        logits = torch.zeros(self.ids.V)
        logits[9] = 5.
        logits[2] = 6.  # an end is likelier still
        return Denoised(logits.expand(*at.shape, -1), None, {})


def fives(folder, **how):
    model = made(folder, diff_logits_eos_inf=True, **how)
    model.lm.hub.__class__, model.lm.hub.seen = Fives, []
    return model


def test_an_answer_is_as_long_as_its_setting_or_else_as_the_call_asks(folder):
    fixed, free = fives(folder), fives(folder, gen_length=None, gen_steps=None)
    assert fixed.generate(['1'], 3) + fixed.generate(['1'], 50) == ['555', '5'*8]
    assert set(fixed.lm.hub.seen) == {2 + 8}
    assert free.generate(['1'], 3) + free.generate(['1'], 10) == ['555', '5'*10]
    assert set(free.lm.hub.seen) == {2 + 4, 2 + 12}
    assert len(free.lm.hub.seen) == 4 + 12                                 # a step a position
    short = fives(folder, max_seq_len=20)
    short.generate(['1+2'*30], 8); assert set(short.lm.hub.seen) == {20}


def test_stops_and_ends(folder):
    model = fives(folder, stop_words=['x', '55555'])
    assert model.generate(['1'], 8) == ['']
    assert fives(folder).generate(['1'], 8, stopping_criteria=['555']) == ['']
    ends = made(folder); ends.lm.hub.__class__, ends.lm.hub.seen = Fives, []
    # the end token, which may be generated here
    assert ends.generate(['1'], 8) == ['']


# ---- prompts

@pytest.mark.parametrize('prompt, want', [
    ('a', [('user', 'a')]),
    ([dict(role='SYSTEM', prompt='s'), *human('a'), dict(role='BOT', prompt='b'), *human('c')],
     [('system', 's'), ('user', 'a'), ('assistant', 'b'), ('user', 'c')]),
    ([*human('a'), *human('b')], [('user', 'a\nb')]),
    ([*human('a'), dict(role='BOT', prompt='')], [('user', 'a')]), (['x', *human('a')], [('user', 'x\na')]),
    ([dict(role='user', content='a')], [('user', 'a')]),
    ([dict(section='round', pos='begin'), *human('a')], [('user', 'a')])])
def test_adjacent_parts_of_one_role_are_one_message(prompt, want):
    assert [(m['role'], m['content']) for m in messages(prompt)] == want


def test_prompts_reach_the_model_as_they_are_meant(folder):
    chat, base = made(folder), made(folder, chat=False)
    two = [dict(role='HUMAN', prompt='1+'), dict(role='BOT', prompt='2=')]
    assert base.generate(['1+2='], 8) == chat.generate(['1+2'], 8) == base.generate([two], 8)
    # the answer begins with the text of the BOT
    assert chat.generate([two], 8) == base.generate(['1+2='], 8)
    assert [chat.get_token_len(p) for p in ('1+2', two, '')] == [3, 4, 0]
    with pytest.raises(ValueError, match='the mask token'): chat.generate(['1<mask>'], 8)
    with pytest.raises(ValueError, match="role 'API'"): chat.generate([[dict(role='API', prompt='a')]], 8)


# ---- likelihoods

class Uniform(Hub):
    def forward(self, x, t, real, at): return Denoised(torch.zeros(*at.shape, 40), None, {})


def test_ppl_is_the_average_over_the_scored_tokens(folder):
    model = made(folder, chat=False)
    got = model.get_ppl(['1+2=3', '1+2=4', '7'], mask_length=[4, 4, 0])
    assert isinstance(got, np.ndarray) and got.shape == (3,) and (got > 0).all() and got.tolist()
    row = torch.tensor([model.tokenizer('1+2=<mask>')['input_ids']])
    logp = model.lm.hub.net(row).logits[0, -1].log_softmax(0)
    # '3' and '4'; one token: exact
    assert got[:2].tolist() == pytest.approx([-logp[7].item(), -logp[8].item()], rel=1e-5)
    model.lm.hub.__class__ = Uniform
    flat = model.get_ppl(['1+2=3', '12'*100, 'a'*64], [2, 3, 0])
    # also where it is longer than the model
    assert flat.tolist() == pytest.approx([np.log(40)]*3, rel=1e-6)
    for texts, lengths in ((['1', ''], None), (['12'], [2])):
        with pytest.raises(ValueError, match='none is left'): model.get_ppl(texts, lengths)
    with pytest.raises(ValueError, match='mask token'): model.get_ppl(['1<mask>'])


def test_ppl_of_a_conversation_takes_the_template_without_a_prompt_for_an_answer(folder):
    chat, base = made(folder), made(folder, chat=False)
    talk = [*human('1+2='), dict(role='BOT', prompt='3')]
    assert chat.get_ppl([talk], [4]).tolist() == base.get_ppl(['1+2=3'], [4]).tolist()


# ---- on OpenCompass

class BaseModel:
    is_api = False
    def __init__(self, path, max_seq_len=2048, tokenizer_only=False, meta_template=None,
                 generation_kwargs=None, sync_rank=False):
        self.template_parser, self.eos_token_id = ('lm', meta_template), None
        self.sync_rank, self.generation_kwargs = sync_rank, generation_kwargs
    def generate(self, inputs, max_out_len): raise NotImplementedError
    def get_ppl(self, inputs, mask_length=None): raise NotImplementedError
    def get_token_len(self, prompt): raise NotImplementedError
    def generate_from_template(self, templates, max_out_len, **kwargs):
        return self.generate(templates, max_out_len=max_out_len, **kwargs)
    def get_ppl_from_template(self, templates, mask_length=None): return self.get_ppl(templates, mask_length)


@pytest.fixture
def compass(monkeypatch):
    from remask.lm.opencompass import opencompass_model
    opencompass_model.cache_clear()
    def module(name, **names):
        made = ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)
    for name in 'opencompass', 'opencompass.models': module(name)
    module('opencompass.models.base', BaseModel=BaseModel)
    module('opencompass.models.base_api', APITemplateParser=lambda meta: ('api', meta))
    yield
    opencompass_model.cache_clear()


def test_a_model_of_a_configuration(compass, folder):
    from remask.lm.opencompass import ROUNDS, RemaskModel
    import remask.lm.opencompass as module
    # as a dumped configuration names it
    assert f'{RemaskModel.__module__}.{RemaskModel.__qualname__}' == 'remask.lm.opencompass.RemaskModel'
    assert module.RemaskModel is RemaskModel and issubclass(RemaskModel, BaseModel)
    config = dict(path=str(folder/'small'), max_seq_len=64, gen_length=8, gen_blocksize=4, gen_steps=8)
    config |= dict(confidence_source='tps_prob', model_kwargs=dict(torch_dtype='torch.float32'))
    config |= dict(generation_kwargs=dict(do_sample=False))
    model = RemaskModel(**config)
    assert model.template_parser == ('api', ROUNDS)
    assert model.generation_kwargs == dict(do_sample=False)
    assert not model.is_api
    entry = [human(t) for t in TEXTS]
    got = model.generate_from_template(entry, max_out_len=8, stopping_criteria=[], min_out_len=None)
    assert got == made(folder, confidence_source='tps_prob').generate(TEXTS, 8)
    # passed only where they are named
    assert {'stopping_criteria', 'min_out_len'} <= set(inspect.signature(model.generate).parameters)
    assert model.get_ppl_from_template(['1+2']).tolist() and model.get_token_len('1+2') == 3
    meta = dict(round=[dict(role='HUMAN', begin='Q')])
    assert RemaskModel(**config | dict(chat=False, meta_template=meta)).template_parser == ('lm', meta)
    only = RemaskModel(path=str(folder/'small'), tokenizer_only=True)
    assert only.lm is None and only.get_token_len('1+2') == 3


def test_opencompass_is_imported_only_when_its_model_is_accessed():
    code = "import sys, remask.lm.opencompass as o\n" \
           "assert not any(m.split('.')[0] == 'opencompass' for m in sys.modules)\n" \
           "try: o.RemaskModel\nexcept ModuleNotFoundError as e: assert 'opencompass' in str(e)\n" \
           "try: o.other\nexcept AttributeError: sys.exit(3)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 3


# ---- errors, before the weights are read

@pytest.mark.parametrize('given, why', [
    (dict(gen_len=8), 'gen_len: unknown; known are gen_length'),
    (dict(remasking='entropy'), 'choose low_confidence or random'),
    (dict(gen_steps=8), 'gen_steps without gen_length'),
    (dict(confidence_source='ups'), 'there is no such head'),
    (dict(confidence_source='self'), "source 'self'"),
    (dict(gen_length=10, gen_blocksize=4), 'does not divide'),
    (dict(gen_length=8, gen_blocksize=4, gen_steps=3), 'cannot be shared'),
    (dict(temperature=-1.), 'must be 0'), (dict(gen_length=0), 'at least 1')])
def test_impossible_settings_are_refused(given, why):
    with pytest.raises(ValueError, match=why): MaskedModel('nowhere', **given)


@pytest.mark.parametrize('chat', [True, False])
def test_a_tokenizer_alone_answers_nothing(folder, chat):
    model = made(folder, tokenizer_only=True, chat=chat)
    why = 'small: tokenizer_only=True loads no model to evaluate'
    with pytest.raises(ValueError, match=why): model.generate(TEXTS, 8)
    with pytest.raises(ValueError, match=why): model.get_ppl([human('1+2')])


def test_defaults_are_declared_once():
    assert read_compass_args({}) == CompassArgs() and CompassArgs().confidence_source is None
