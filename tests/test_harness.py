"""lm-evaluation-harness: requests, batches, scores, and errors."""
import hashlib, json, math, os, subprocess, sys
import pytest, torch

pytest.importorskip('lm_eval')
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from sqlitedict import SqliteDict
import published
import remask.lm.harness
from remask.core.denoiser import Denoised
from remask.lm.harness import (
    Generation, HarnessLM, _batches, _ids, _job, cut_at_stops, pair_ids, read_gen_kwargs,
    request_key, scoring_windows)
from remask.lm.hub_model import Hub, save_small
from remask.lm.hub import load_hub, semi_autoregressive
from remask.lm.blocks import GenerationOptions, draw_at, generate_blocks
from remask.core.sampler import Noise


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    to = tmp_path_factory.mktemp('harness')
    save_small(to/'small')
    published.sharpen(to/'small')
    return to/'small'


@pytest.fixture(scope='module')
def hub(folder): return load_hub(folder)


def made(hub, **changes): return HarnessLM(hub, semi_autoregressive(8, 4, 8), 8, **dict(draws=8) | changes)
def ask(*args, kind='loglikelihood', doc=0, task='t'): return Instance(kind, {}, args, 0, (task, doc, 1))
def gen(prompt, doc=0, **kwargs): return ask(prompt, kwargs, kind='generate_until', doc=doc)
def whole(text): return ask(text, kind='loglikelihood_rolling')


PROMPTS = ['1+2=', '(10+20)*3=', '7=', '', '1+1+1+1+1=', '4*4=', '12=', '3-1=', '9+9+9=', 'a', '5=', '6+6=',
           '8-8=', '2', '0*0*0=', '(1)=', '(((2)))=']


# ---- batches: a result depends on its request only

@pytest.mark.parametrize('kwargs',
                         [dict(), dict(temperature=1.), dict(do_sample=True, top_p=.8), dict(max_gen_toks=5)])
def test_a_text_is_the_same_in_any_batch(hub, kwargs):
    asked = [gen(p, k, **kwargs) for k, p in enumerate(PROMPTS)]
    want = made(hub, batch=1).generate_until(asked, True)
    for batch in 7, 16: assert made(hub, batch=batch).generate_until(asked, True) == want
    backwards = made(hub, batch=7).generate_until(asked[::-1], True)[::-1]
    assert backwards == want and made(hub).generate_until(asked[3:5], True) == want[3:5]


def test_a_bound_is_the_same_in_any_batch(hub):
    asked = [ask(p, c, doc=k) for k, p in enumerate(PROMPTS) for c in ('3', ' 31', '', '12+3')]
    want = [b for b, _ in made(hub, batch=1).loglikelihood(asked, True)]
    for batch in 7, 16:
        got = [b for b, _ in made(hub, batch=batch).loglikelihood(asked, True)]
        assert max(abs(a - b) for a, b in zip(got, want)) < 1e-6*max(1, max(-b for b in want))
    some = made(hub, batch=16).loglikelihood(asked[40:3:-1], True)
    assert [b for b, _ in some] == pytest.approx(want[40:3:-1], rel=1e-6)


def test_seed_repeats_and_settings_change_the_noise_and_nothing_else_does(hub):
    one = gen('1+2=', temperature=1.)
    texts = made(hub).generate_until([one]*6, True)
    assert len(set(texts)) > 3                                             # six tries
    assert made(hub).generate_until([one, gen('9='), one], True)[::2] == texts[:2]
    twin = gen('1+2=', doc=5, temperature=1.)                               # the same request of another task
    assert made(hub).generate_until([one, twin], True) == [texts[0], texts[0]]
    assert made(hub, seed=2**64 - 1).generate_until([one]*6, True) != texts
    bounds = [made(hub, seed=s).loglikelihood([ask('1', '2+3=5')], True)[0][0] for s in (1, 1, 2)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_keys_are_62_bits_of_the_content():
    keys = [request_key(s, [1, 2], n) for s in range(50) for n in range(50)]
    assert len(set(keys)) == 2500
    assert all(0 <= k < 2**62 for k in keys)
    assert max(keys) > 2**61
    digest = hashlib.sha256(b'[7, "a", {"b": null, "c": 1}]').hexdigest()
    assert request_key(7, 'a', dict(c=1, b=None)) == int(digest[:16], 16) >> 2


def test_the_draw_is_the_samplers_own(hub):
    lm, req = made(hub), gen('1+2=', temperature=.7)
    job = _job(lm, req, 0, 0)
    x, _ = hub.rows(['1+2='], 8)
    noise = Noise(0, torch.tensor([request_key(1234, _ids(hub.tokenizer, '1+2='), dict(temperature=.7), 0)]))
    out = generate_blocks(hub, hub.space(12), x, lm.how._replace(draw=draw_at(.7)), noise, check=False)
    assert job.key == noise.ids.item() and lm.generate_until([req], True) == hub.read(out, 4)


def test_batches_are_of_like_requests_and_like_lengths(hub):
    lm = made(hub)
    jobs = [_job(lm, gen(p, max_gen_toks=4 + 4*(k % 2)), 0, k) for k, p in enumerate(PROMPTS)]
    def gen_of(job): return job.gen
    def four(job): return 4
    def batches(): return list(_batches(lm, jobs, gen_of, four))
    got = batches()
    assert sorted(j.at for b in got for j in b) == list(range(17))
    assert len(got) == 3 + 2
    assert all(len({j.gen for j in b}) == 1 for b in got)
    order = [len(j.ids) for b in got for j in b if b[0].gen == jobs[0].gen]
    assert order == sorted(order, reverse=True)
    # such a model takes no mask of padding
    facts, hub.facts = hub.facts, hub.facts._replace(mask_form='')
    try:
        assert all(len({len(j.ids) for j in b}) == 1 for b in batches())
        want = hub.answers(['1+2='], 8, lm.how) + hub.answers(['7='], 8, lm.how)
        assert lm.generate_until([gen('1+2='), gen('7=')], True) == want
        lm.loglikelihood([ask('1+2=', '3'), ask('7=', '7')], True)
    finally: hub.facts = facts


# ---- an exactly solvable model: every position has one distribution, whatever the other tokens

class Fixed(Hub):
    def forward(self, x, t, real, at):
        self.seen.append((x.clone(), real.clone()))
        return Denoised(self.logits.expand(*at.shape, -1), None, {})


@pytest.fixture
def fixed(folder):
    hub = load_hub(folder)
    hub.__class__, hub.seen = Fixed, []
    hub.logits = torch.zeros(hub.ids.V)
    return hub


def test_every_token_of_a_long_text_counts_once(fixed):
    text = '0123456789'*30                                                 # 300 tokens, 64 positions
    lm = made(fixed, draws=3)
    for chars in 1, 63, 64, 65, 127, 128, 300:
        got = lm.loglikelihood_rolling([whole(text[:chars])], True)[0]
        assert got == pytest.approx(-chars*math.log(40), rel=1e-6)         # uniform: exact in every draw
    assert lm.loglikelihood_rolling([whole('')], True) == [0.]


def test_a_bound_of_a_long_text_is_additive_and_unbiased(fixed):
    torch.manual_seed(0)
    fixed.logits = torch.randn(40)
    logp = fixed.logits.log_softmax(0)
    text = '3+4=7,(1+2)*3=9.'*6
    want = logp[_ids(fixed.tokenizer, text)].sum().item()
    got = made(fixed, draws=400, batch=400).loglikelihood_rolling([whole(text)], True)[0]
    assert got == pytest.approx(want, rel=.02)


def test_windows_against_an_independent_rewriting():
    def rewritten(n, most): # windows of positions, and the first scored one
        if n <= most: return [(0, n, 0)]
        ends = [*range(most - 1, n, most - 1)]
        if ends[-1] < n: ends.append(n)
        later = [(max(0, e - most), e, before) for before, e in zip(ends, ends[1:])]
        return [(0, ends[0], 0), *later]
    for most in 2, 3, 4, 7, 64:
        for n in range(1, 200):
            got = scoring_windows([*range(n)], 0, most)
            assert got == [([*range(a, e)], first - a) for a, e, first in rewritten(n, most)]
            scored = [i for ids, P in got for i in ids[P:]]
            assert scored == [*range(n)]
            assert all(len(ids) <= most for ids, _ in got)
            assert all(P for _, P in got[1:])


def test_a_continuation_is_kept_and_the_context_cut_on_the_left():
    for P in range(0, 30):
        for n in range(1, 30):
            ids = [*range(P + n)]
            got = scoring_windows(ids, P, 10)
            assert [i for w, p in got for i in w[p:]] == ids[P:]
            assert all(len(w) <= 10 for w, _ in got)
            if n <= 10: assert got == [(ids[-10:], min(P, 10 - n))]


def test_one_token_takes_one_row_and_many_share_a_batch(fixed):
    lm = made(fixed, draws=32, batch=16)
    lm.loglikelihood([ask(f'{k}+1=', c, doc=k) for k in range(10) for c in '1234'], True)
    assert [len(x) for x, _ in fixed.seen] == [16, 16, 8]
    fixed.seen.clear(); lm.loglikelihood([ask('1=', '12')], True)
    assert [len(x) for x, _ in fixed.seen] == [16, 16]


def test_only_the_continuation_is_masked_and_padding_does_not_exist(fixed):
    made(fixed, draws=4).loglikelihood([ask('1+2=', '34'), ask('1=', '345')], True)
    for x, real in fixed.seen:
        for row, ok in zip(x, real):
            n = int(ok.sum())
            context = {6: '1+2=', 5: '1='}[n]
            masked = (row[:n] == fixed.ids.mask).nonzero()[:, 0].tolist()
            assert ok.tolist() == [True]*n + [False]*(len(ok) - n)
            assert masked
            assert min(masked) >= len(context)
            assert row[:len(context)].tolist() == _ids(fixed.tokenizer, context)


# ---- edges of texts

def test_an_empty_continuation_has_probability_1(hub, fixed):
    lm = made(hub)
    assert lm.loglikelihood([ask('1+2=', ''), ask('', '')], True) == [(0., False)]*2
    assert made(hub, greedy=True).loglikelihood([ask('1+2=', '')], True) == [(0., True)]
    bounds = made(fixed).loglikelihood([ask('', '123'), ask('  ', '123')], True)
    assert bounds[0][0] == pytest.approx(-3*math.log(40), rel=1e-6)
    assert lm.loglikelihood_rolling([whole('3=3')], True)[0] == lm.loglikelihood([ask('', '3=3')], True)[0][0]
    for answer in lm.loglikelihood, lm.generate_until, lm.loglikelihood_rolling: assert answer([], True) == []


def test_blanks_belong_to_the_continuation_and_merged_tokens_are_separated():
    class Merging: # 'ab' is one token
        def __call__(self, text, add_special_tokens): return dict(input_ids=text.replace('ab', 'X'))
    assert pair_ids(Merging(), 'c  ', 'd') == ('c  d', 1) and pair_ids(Merging(), 'ca', 'b') == ('cab', 2)
    assert pair_ids(Merging(), 'cab', '') == ('cX', 2)


def test_overlong_requests_are_cut_with_a_warning_and_the_others_are_untouched(hub, caplog):
    lm = made(hub)
    long, short = ''.join(f'{k}+' for k in range(60)) + '=', '7='
    texts = lm.generate_until([gen(long), gen(short)], True)
    assert texts == hub.answers([long[-56:]], 8, lm.how) + hub.answers([short], 8, lm.how)
    assert 'task t: 1 contexts were cut on the left' in caplog.text
    got = lm.loglikelihood([ask(long, '31'), ask(long[-62:], '31')], True)
    assert got[0] == got[1]
    assert 'task t: 1 contexts' in caplog.text.split('\n', 1)[1]


@pytest.mark.parametrize('text', ['1<mask>=', '<mask>'])
def test_the_mask_token_is_refused_before_any_work(fixed, text):
    lm, fine = made(fixed), [ask('1=', '2'), gen('1=')]
    for bad in ask(text, '2', doc=3), ask('1', text, doc=3):
        with pytest.raises(ValueError, match="task t, document 3: the text contains the mask token '<mask>'"):
            lm.loglikelihood([fine[0], bad])
    with pytest.raises(ValueError, match='document 4: the text contains'):
        lm.generate_until([fine[1], gen(text, 4)])
    with pytest.raises(ValueError, match='the text contains'): lm.loglikelihood_rolling([whole(text)])
    assert not fixed.seen


# ---- gen_kwargs

@pytest.mark.parametrize('kwargs, want', [
    (dict(), Generation(128)), (dict(until=None), Generation(128)),
    (dict(until='ab'), Generation(128, ('ab',))), (dict(until=('a', 'é')), Generation(128, ('a', 'é'))),
    (dict(max_gen_toks=5), Generation(5)), (dict(max_tokens=6), Generation(6)),
    (dict(max_gen_toks=None), Generation(128)), (dict(do_sample=False), Generation(128, (), 0.)),
    (dict(temperature=.3), Generation(128, (), .3)), (dict(do_sample=True), Generation(128, (), 1.)),
    (dict(do_sample=True, temperature=.5, top_p=.9), Generation(128, (), .5, .9)),
    (dict(do_sample=False, temperature=.5), Generation(128, (), 0.)),
    (dict(top_k=0, num_beams=1, repetition_penalty=1.), Generation(128))])
def test_gen_kwargs_that_are_honoured(kwargs, want): assert read_gen_kwargs(kwargs, 128) == want


@pytest.mark.parametrize('kwargs, why', [
    (dict(top_k=50), 'has until, max_gen_toks, do_sample'), (dict(num_beams=4), 'leave the others out'),
    (dict(max_length=64), 'max_length'), (dict(until=3), 'must be a string'),
    (dict(until=['a', 1]), 'must be a string'), (dict(max_gen_toks=0), 'at least 1'),
    (dict(temperature=-1), '0 or more'), (dict(do_sample=True, top_p=0), 'top_p in'),
    (dict(do_sample=True, top_p=1.5), 'top_p in'),
    (dict(max_gen_toks=64), 'no room for a prompt is left of 64'), (dict(max_gen_toks='many'), 'many')])
def test_gen_kwargs_that_are_refused_by_name_before_any_work(fixed, kwargs, why):
    with pytest.raises(ValueError, match=f'task t, document 7: .*{why}'):
        made(fixed).generate_until([gen('1='), gen('1=', 7, **kwargs)])
    assert not fixed.seen


def test_lengths_are_whole_blocks_and_the_text_is_cut_to_tokens(fixed):
    fixed.logits[9] = 5.                                                   # '5' everywhere
    lm = made(fixed)
    lengths = 1, 4, 5, 8, 11
    texts = lm.generate_until([gen('1=', max_gen_toks=n) for n in lengths], True)
    assert texts == ['5'*n for n in lengths]
    assert sorted({x.shape[1] for x, _ in fixed.seen}) == [6, 10, 14]      # 4, 8 and 12 positions
    def steps(n): return sum(x.shape[1] == 2 + n for x, _ in fixed.seen)
    assert (steps(4), steps(8), steps(12)) == (2*4, 2*8, 12)               # four steps a block
    lm.gen_length = 16; fixed.seen.clear()
    assert lm.generate_until([gen('1=', max_gen_toks=3), gen('1=', max_gen_toks=30)], True) == ['555', '5'*16]
    assert {x.shape[1] for x, _ in fixed.seen} == {18}


@pytest.mark.parametrize('text, stops, want', [
    ('12é 3', ['é '], '12'), ('a<|x|>b', ['<|x|>'], 'a'), ('ab', ['', 'b', 'a'], ''), ('ab', [], 'ab'),
    ('Q: 1\nQ: 2', ['\nQ:'], 'Q: 1')])
def test_a_text_is_cut_before_its_first_stop(text, stops, want): assert cut_at_stops(text, stops) == want


def test_a_stop_that_spans_tokens(fixed):
    fixed.logits[9] = 5.
    asked = [gen('1=', until=until) for until in (['555'], '5', None)]
    assert made(fixed).generate_until(asked, True) == ['', '', '5'*8]


def test_a_warning_names_a_draw_that_is_not_used(hub, caplog):
    lm = made(hub); lm.how = lm.how._replace(draw=draw_at(1.))
    greedy = made(hub).generate_until([gen('1=')], True)
    assert lm.generate_until([gen('1=', temperature=0.)], True) == greedy
    assert 'draw of `how` is not used' in caplog.text
    def texts(lm): return [lm.generate_until([gen(p)], True) for p in PROMPTS[:3]]
    assert texts(lm) != texts(made(hub))


# ---- is_greedy

def test_greedy_is_what_one_token_at_a_time_gives(hub):
    lm = made(hub, greedy=True, batch=5)
    best = {
        p: hub.answers([p], 3, GenerationOptions(block=3, steps=3))[0] for p in ('1+2=', '7=', '(10+20)*3=')
    }
    asked = [ask(p, a, doc=k) for k, (p, a) in enumerate(best.items())]
    def spoilt(a): return ('1' if a[0] != '1' else '2') + a[1:]
    wrong = [ask(p, spoilt(a), doc=k) for k, (p, a) in enumerate(best.items())]
    flags = [g for _, g in lm.loglikelihood(asked + wrong, True)]
    assert all(len(_ids(hub.tokenizer, a)) == 3 for a in best.values())
    assert flags == [True]*3 + [False]*3
    assert not any(g for _, g in made(hub).loglikelihood(asked, True))


def test_a_warning_names_tasks_that_use_a_flag_that_is_not_computed(hub, caplog):
    lm = made(hub)
    lm.loglikelihood([ask('1=', '1', doc=d, task='choice') for d in (0, 1) for _ in '12'], True)
    assert 'is_greedy' not in caplog.text
    lm.loglikelihood([ask('1=', '1', doc=0, task='lambada')], True)
    assert 'tasks lambada: is_greedy is not computed' in caplog.text


# ---- chat templates

def test_a_conversation_is_put_through_the_chat_template(folder):
    lm = made(load_hub(folder))
    tok = lm.tokenizer
    talk = [dict(role='system', content='a'), dict(role='user', content='1+2')]
    assert lm.apply_chat_template(talk) == 'a1+2=' and lm.tokenizer_name == str(folder).replace('/', '__')
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tok.chat_template = refuse + "{{ messages[-1]['content'] }}"
    assert lm.apply_chat_template(talk) == '1+2'
    tok.chat_template = dict(default='d', tools='{{ messages[0].content }}t')
    assert lm.apply_chat_template(talk) == 'd' and lm.chat_template('tools') == tok.chat_template['tools']
    assert lm.apply_chat_template(talk) == 'at'
    with pytest.raises(ValueError, match='choose among default, tools'): lm.chat_template('rag')
    tok.chat_template, lm.template = None, None
    with pytest.raises(ValueError, match='has no chat template'): lm.apply_chat_template(talk)


# ---- through lm-eval itself

@pytest.fixture(scope='module')
def tasks(tmp_path_factory):
    to = tmp_path_factory.mktemp('tasks')
    docs = [dict(q=f'{a}+{b}=', a=str(a + b), no=str(a + b + 1)) for a in range(4) for b in range(3)]
    (to/'sums.jsonl').write_text(''.join(json.dumps(d) + '\n' for d in docs))
    def task(name, kind, more):
        data = f'dataset_path: json\ndataset_kwargs: {{data_files: {{test: {to}/sums.jsonl}}}}\n'
        text = f'task: {name}\noutput_type: {kind}\n' + data + f'test_split: test\n{more}'
        (to/f'{name}.yaml').write_text(text)
    q = 'doc_to_text: "{{q}}"\n'
    kwargs = '{until: ["\\n"], max_gen_toks: 6, do_sample: true, temperature: 0.9}'
    task('sums_write', 'generate_until', q + 'doc_to_target: "{{a}}"\nmetric_list: [{metric: exact_match}]\n'
         f'generation_kwargs: {kwargs}\nrepeats: 2\n')
    task('sums_pick', 'multiple_choice',
         q + 'doc_to_choice: ["{{a}}", "{{no}}"]\ndoc_to_target: 0\nmetric_list: [{metric: acc}]\n')
    task('sums_next', 'loglikelihood',
         q + 'doc_to_target: "{{a}}"\nmetric_list: [{metric: perplexity}, {metric: acc}]\n')
    task('sums_text', 'loglikelihood_rolling',
         'doc_to_text: ""\ndoc_to_target: "{{q}}{{a}}"\nmetric_list: [{metric: byte_perplexity}]\n')
    return to


ALL = ['sums_write', 'sums_pick', 'sums_next', 'sums_text']


def run(tasks, model, names=ALL, args=None, **how):
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return simple_evaluate(model, args, names, task_manager=manager, bootstrap_iters=0, **how)


def answers(got): return {n: [(s['doc_id'], s['resps']) for s in rows] for n, rows in got['samples'].items()}


def flat(responses): # texts, or bounds
    out = []
    for group in responses:
        first = group[0]
        if isinstance(first, str): out += group
        else: out.append(first[0] if isinstance(first, tuple) else first)
    return out


def test_tasks_by_name_and_by_object_together_alone_and_limited(hub, folder, tasks):
    lm = made(hub)
    together = run(tasks, lm, apply_chat_template=True)
    assert {n: len(s) for n, s in together['samples'].items()} == dict.fromkeys(ALL, 12)
    assert all(len(set(s['resps'][0])) == 2 for s in together['samples']['sums_write'][:3])
    by_name = run(tasks, 'remask', args=f'pretrained={folder},answer=8,block=4,steps=8,draws=8',
                  batch_size='5', device='cpu', apply_chat_template=True)
    few = run(tasks, lm, ['sums_next', 'sums_write'], limit=3, apply_chat_template=True)
    want = answers(together)
    for n, rows in answers(by_name).items():
        for (d, got), (e, other) in zip(rows, want[n]):
            assert d == e
            if n == 'sums_write': assert flat(got) == flat(other)
            else: assert flat(got) == pytest.approx(flat(other), rel=1e-6)
    assert answers(few)['sums_write'] == want['sums_write'][:3]
    assert by_name['config']['args'] == dict(pretrained=str(folder), answer=8, block=4, steps=8, draws=8)
    assert by_name['config']['steps_per_block'] == 4
    assert by_name['max_length'] == 64


def test_a_choice_is_the_likelier_of_two_bounds(hub, tasks):
    lm = made(hub)
    got = run(tasks, lm, ['sums_pick'])['samples']['sums_pick']
    for s in got:
        bounds = [lm.loglikelihood([ask(*a)], True)[0][0] for a in s['arguments']]
        assert s['acc'] == float(bounds[0] > bounds[1])


def test_gen_kwargs_of_a_run_prevail(hub, tasks):
    got = run(tasks, made(hub), ['sums_write'], gen_kwargs='max_gen_toks=2,temperature=0,do_sample=False')
    for pair in (pair for s in got['samples']['sums_write'] for pair in s['resps']):
        assert pair[0] == pair[1] and len(pair[0]) <= 2
    with pytest.raises(ValueError, match='task sums_write, document 0: .*top_k'):
        run(tasks, made(hub), ['sums_write'], gen_kwargs='top_k=5')


def test_a_cache_is_used_kept_when_interrupted_and_refused_to_others(fixed, tasks, tmp_path, monkeypatch):
    db, lm = str(tmp_path/'cache'), made(fixed)
    names = ['sums_pick', 'sums_next', 'sums_text']
    real_bounds, calls = remask.lm.harness._bounds, []
    def failing(lm, batch):
        calls.append(len(batch))
        if len(calls) == 3: raise KeyboardInterrupt
        return real_bounds(lm, batch)
    monkeypatch.setattr(remask.lm.harness, '_bounds', failing)
    with pytest.raises(KeyboardInterrupt): run(tasks, lm, names, use_cache=db)
    monkeypatch.setattr(remask.lm.harness, '_bounds', real_bounds)
    fixed.seen.clear(); first = answers(run(tasks, lm, names, use_cache=db))
    done, kept = sum(calls[:2]), sum(len(x) for x, _ in fixed.seen)
    fixed.seen.clear(); plain = answers(run(tasks, made(fixed), names))
    assert done and kept < sum(len(x) for x, _ in fixed.seen) and plain == first
    fixed.seen.clear()
    assert answers(run(tasks, made(fixed), names, use_cache=db)) == first and not fixed.seen
    with pytest.raises(ValueError, match='use_cache: the file holds results of .*use another file'):
        run(tasks, made(fixed, seed=5), names, use_cache=db)


def test_a_cache_of_another_model_is_refused(hub, tasks, tmp_path):
    with SqliteDict(tmp_path/'other_rank0.db', autocommit=True) as db: db['f00'] = (-1., False)
    with pytest.raises(ValueError, match='another model'):
        run(tasks, made(hub), ['sums_pick'], use_cache=str(tmp_path/'other'))


def test_repeats_and_a_cache_only_where_they_are_drawn(hub, tasks, tmp_path):
    db = str(tmp_path/'cache')
    first = run(tasks, made(hub), ['sums_write'], use_cache=db)
    assert answers(first) == answers(run(tasks, made(hub), ['sums_write'], use_cache=db))
    with pytest.raises(ValueError, match='one text to all repeats'):
        run(tasks, made(hub), ['sums_write'], use_cache=db, gen_kwargs='do_sample=False,temperature=0')


def test_progress_bars_can_be_disabled(hub, capfd):
    lm = made(hub)
    lm.loglikelihood([ask('1=', '1')], disable_tqdm=True)
    lm.generate_until([gen('1=')], disable_tqdm=True)
    assert capfd.readouterr().err == ''
    lm.generate_until([gen('1=')]); assert 'answers' in capfd.readouterr().err


def test_the_command_line(folder, tasks, tmp_path):
    command = [sys.executable, '-m', 'remask.lm.harness', '--model', 'remask']
    command += ['--batch_size', '4', '--limit', '3', '--output_path', tmp_path/'out.json']
    command += ['--tasks', 'sums_pick,sums_write', '--include_path', tasks]
    command += ['--model_args', f'pretrained={folder},answer=8,block=4,steps=8,draws=4']
    offline = os.environ | dict(HF_HUB_OFFLINE='1')
    done = subprocess.run(command, capture_output=True, text=True, env=offline)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'sums_pick' in done.stdout and 'exact_match' in done.stdout


# ---- model arguments

@pytest.mark.parametrize('args, why', [
    ('answer=8', 'pretrained=FOLDER .* is missing'), ('pretrained=x,steps=many', "steps='many': must be int"),
    ('pretrained=x,gen_len=3', 'gen_len: unknown; known are pretrained'),
    ('pretrained=x,answer=10,block=4', 'block=4 does not divide'),
    ('pretrained=x,source=ups', 'no such head'),
    ('pretrained=x,policy=all', 'choose'), ('pretrained=x,temperature=-1', 'must be 0'),
    ('pretrained=x,chat=true', 'chat: unknown'), ('pretrained=x,steps=0', 'at least 1'),
    ('pretrained=./nowhere/at/all', 'could not be loaded'), ('pretrained=x,greedy=maybe', 'must be bool')])
def test_model_args_that_are_refused_in_one_sentence(args, why):
    with pytest.raises(ValueError, match=why) as e: HarnessLM.create_from_arg_string(args, dict(batch_size=1))
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('args, why', [
    ('max_length=65', 'the model has 64 positions'), ('max_length=1', 'at least 2'),
    ('gen_length=0', 'at least 2 and 1'), ('draws=0', 'all must be at least 1'), ('answer=0', 'at least 1')])
def test_impossible_sizes_are_refused(folder, args, why):
    with pytest.raises(ValueError, match=why):
        HarnessLM.create_from_arg_string(f'pretrained={folder},{args}', {})
    with pytest.raises(ValueError, match='must be int'):
        HarnessLM.create_from_arg_string(f'pretrained={folder}', dict(batch_size='auto'))


def test_model_args_reach_the_model(folder, caplog):
    args = dict(pretrained=folder, answer=8, block=4, policy='remask', source='random', temperature=1)
    args |= dict(guidance=.5, max_length=32, gen_length=12, greedy=True, seed=7, suppress_eos=True)
    more = dict(batch_size=3, device='cuda:7', max_batch_size=None)
    lm = HarnessLM.create_from_arg_obj(args | dict(dtype='float64'), more)
    assert (lm.max_length, lm.gen_length, lm.greedy, lm.seed, lm.batch) == (32, 12, True, 7, 3)
    assert (lm.how.block, lm.how.steps, lm.how.guidance) == (4, 4, .5)
    assert lm.hub.net.dtype == torch.float64 and lm.device.type == 'cpu'
    if not torch.cuda.is_available(): assert 'device cuda:7 is not there' in caplog.text
    assert 'pretrained' in lm.args
    assert 'batch_size' not in lm.args
    assert json.loads(json.dumps(lm.get_model_info()))['args']['seed'] == 7
    assert len(lm.generate_until([gen('1+2=')], True)[0]) <= 8
