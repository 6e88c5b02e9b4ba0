"""Faults that users of this field's tools reported, one test each: it fails if the kind of fault returns.

Two faults need whole pipelines and are tested in test_recipes: 04, a file of one's own in data/
(`test_a_file_of_your_own_in_data_is_named_and_told_where_to_go`),
and 05, own problems (`test_your_own_questions`).
"""
import json
from pathlib import Path
import numpy as np, pytest, torch

transformers = pytest.importorskip('transformers')
pytest.importorskip('peft')
import published
from test_families import TEXTS, opened, saved, trained
from test_blocks import ending
from remask.core.files import read_records
from remask.domains.readers import READERS, read_graphs
from remask.lm.harness import HarnessLM
from remask.lm.hub import Tuning, finetune, load_hub, put_dual_stream, save_hub_head, semi_autoregressive
from remask.lm.hub_model import save_small
from remask.evaluate.hub_eval import MAKERS, detect, inject, repair_answers
from remask.evaluate.answer_metrics import extract, pass_at, right_answers, same_answer
from remask.lm.blocks import GenerationOptions, after_position, generate_blocks
from remask.pipeline.stages import SECTIONS, declared_parameters, entries, read_params, stage_params
from remask.domains.tasks import Pair, as_pairs, as_rows, collect_characters, read_tabbed
from remask.domains.text import Vocabulary, read_text
from remask.core.tokens import TokenSpace
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

ROOT = Path(__file__).parents[1]


def saved_text(tmp_path, text, name='f.jsonl'):
    (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path/name


def test_01_a_model_of_the_hub_is_named_on_the_command_line():
    "`model` and every other name of a section belong to the stages that look them up"
    given = dict(model='GSAI-ML/LLaDA-8B-Instruct', text='a', quiz='b', network='c')
    notebook = ROOT/'nbs'/'experiments'/'answers'/'llada.ipynb'
    declared = declared_parameters(notebook)
    assert 'model' in declared and 'model' in SECTIONS
    known = read_params(ROOT/'params.yaml')
    assert stage_params(known, dict(model=given['model']), entries(declared))['model'] == given['model']


@pytest.mark.parametrize('case', ['llada', 'llada_tied', 'dream', 'dream_tied', 'llada2_moe', 'sdar', 'mdlm'])
def test_02_published_code_loads_under_the_pinned_transformers(tmp_path, case):
    net = saved(tmp_path, case)
    hub = opened(tmp_path)
    for k, v in hub.net.state_dict().items(): assert v.equal(net.state_dict()[k]), k


def test_03_nothing_that_trains_is_frozen():
    "followed word for word, with what is trained, in test_recipes"
    assert 'frozen' not in (ROOT/'dvc.yaml').read_text()


def test_06_characters_stay_as_they_are(tmp_path):
    text = 'x² ≤ 5 and θ ≥ π/2, 𝔸 é e\u0301 −2'
    vocab = Vocabulary.of(text)
    assert vocab.decode(vocab.encode(text)) == [text]
    assert read_text(saved_text(tmp_path, text, 'f.txt')).text == text
    rows = as_rows(collect_characters([text]), [(text, text)], 40, 40)
    assert text in collect_characters([text]).decode(rows.x)[0]
    assert not same_answer(extract('#### −2'), extract('#### 2'))
    assert same_answer(extract('#### −2'), extract('#### -2'))


def test_07_an_attention_mask_that_is_accepted_and_ignored(tmp_path):
    saved(tmp_path, 'llada')
    hub = opened(tmp_path)
    assert 'attention_mask' in hub.takes and hub.facts.mask_form == '' and 'rows by length' in hub.described()
    how = GenerationOptions(block=8, steps=8)
    together = hub.answers(TEXTS, 8, how)
    assert together == [hub.answers([t], 8, how)[0] for t in TEXTS]


def test_08_a_model_that_predicts_the_next_position(tmp_path):
    published.save(tmp_path, 'dream', trained('dream', 1))
    texts = opened(tmp_path).answers(['23456789012', '4567890'], 4, semi_autoregressive(4, 1, 4))
    assert texts == ['3456', '1234']


def test_09_tokenizer_configuration_and_logits_that_disagree(tmp_path):
    unmarked = published.small_tokenizer(tmp_path, mask_token=None, pad_token=None)
    saved(tmp_path/'a', 'mdlm', unmarked)
    assert opened(tmp_path/'a').ids.mask == 40                          # the last column, and no pad
    saved(tmp_path/'b', 'sdar', published.small_tokenizer(tmp_path, pad_token='<eos>'))
    hub = opened(tmp_path/'b')                                          # causal class only, tied, pad = eos
    prompts = ['1<eos>2=', '<pad>7=']
    assert hub.space(2).legal[0, 2] and hub.rows(prompts, 2).real.sum(1).tolist() == [6, 5]
    with pytest.raises(ValueError, match='id 99 is none of the model'): opened(tmp_path/'b', mask=99)


def test_10_the_harness(tmp_path):
    "overlong prompts, empty continuations, `until: null`, `max_gen_toks`, and noise by request"
    from types import SimpleNamespace
    save_small(tmp_path)
    lm = HarnessLM(load_hub(tmp_path), GenerationOptions(block=4, steps=4), 8, draws=4)
    def request(kind, *args, k=0):
        return SimpleNamespace(args=args, task_name='t', doc_id=k, request_type=kind, idx=k)
    texts = ('1+2=', '3'), ('9'*200, '12'), ('7=', '')
    pairs = [request('loglikelihood', *t) for t in texts]
    def bounds(some): return [b for b, _ in lm.loglikelihood(some, True)]
    alone = [bounds([p])[0] for p in pairs]
    assert alone[2] == 0 and np.isfinite(alone).all()
    assert bounds(pairs) == pytest.approx(alone) and bounds(pairs[::-1]) == pytest.approx(alone[::-1])
    asked = request('generate_until', '1+2=', dict(until=None, max_gen_toks=3))
    texts = lm.generate_until([asked], True)
    assert len(lm.hub.coded(texts)[0]) <= 3
    assert lm.apply_chat_template([dict(role='user', content='1+1')]) == '1+1='


def test_11_an_answer_that_has_ended_needs_no_further_evaluation():
    space, spent = TokenSpace(11, 12, (torch.arange(13) < 11).expand(20, -1)), torch.zeros(1)
    x = torch.full((1, 20), 11)
    x[:, :4] = 0
    generate_blocks(ending([4]), space, x, GenerationOptions(block=4, steps=4, ends=(9,)), count=spent.add_)
    assert spent.item() == 1                                            # not 16


@pytest.mark.parametrize('text, values', [
    ('{"a": "x\u2028y"}\n{"a": "z\u0085"}\n', ['x\u2028y', 'z\u0085']), ('\ufeff{"a": 1}\n', [1]),
    ('\n{"a": 1}\n\n{"a": 2}\n\n', [1, 2]),
    ('[{"a": 1}, {"a": 2}]', [1, 2]), ('{"a": 1}\r\n{"a": 2}\r\n', [1, 2])])
def test_12_json_lines_as_they_are_found(tmp_path, text, values):
    assert [r['a'] for r in read_records(saved_text(tmp_path, text))] == values


def test_12_a_missing_answer_is_named(tmp_path):
    line = '{"question": "a", "answer": NaN}\n'
    with pytest.raises(ValueError, match='record|line'):
        as_pairs(read_records(saved_text(tmp_path, line)), 'gsm8k')


def test_13_programs_are_judged_by_running_them():
    prompt = 'def double(x):\n    "twice"\n'
    tests = '\n\ndef check(f):\n    assert f(4) == 8\ncheck(double)'
    pair = Pair(prompt, '    return 2*x\n', before=prompt, after=tests)
    with pytest.raises(ValueError, match='program'): right_answers('humaneval', [pair], [pair.answer])
    tries = [pair.answer, '    return 8 if x == 4 else x\n', '    return x\n']
    got = right_answers('humaneval', [pair], [tries], 'run')
    assert got.tolist() == [[True, True, False]] and pass_at(1, got) == pytest.approx(2/3)


def test_14_small_mistakes_get_one_sentence(tmp_path):
    save_small(tmp_path/'m')
    hub = load_hub(tmp_path/'m')
    assert hub.answers([], 4) == []
    with pytest.raises(ValueError, match='give a list of texts'): hub.answers('1+2=', 4)
    with pytest.raises(ValueError, match='id 99999 is none'): load_hub(tmp_path/'m', mask=99999)
    with pytest.raises(ValueError, match="dtype='bf16' is unknown; choose"):
        load_hub(tmp_path/'m', dtype='bf16')
    crooked = saved_text(tmp_path, 'a\tb\nc\td\te\n', 'f.tsv')
    with pytest.raises(ValueError, match='f.tsv, line 2: '): read_tabbed(crooked)


def test_15_floor_plans_of_other_programs(tmp_path):
    boxes = [[0, 0, 100, 100], [100, 0, 160, 60], [95, 20, 105, 40]]
    plan = dict(room_type=[1, 2, 17], boxes=boxes, edges=[], ed_rm=[])
    graphs = read_graphs(saved_text(tmp_path, json.dumps(plan), 'plan.json')).graphs
    assert 'housegan' in READERS and len(graphs) == 1
    assert len(graphs[0].types) == 2 and len(graphs[0].edges) == 1
    lone = dict(nodes=[dict(id=0), dict(id=1)], links=[dict(source=0, target=1)])
    with pytest.raises(ValueError): read_graphs(saved_text(tmp_path, json.dumps(lone), 'cubi.json'))


def test_16_a_dual_stream_and_injected_errors_on_a_hub_model(tmp_path):
    saved(tmp_path, 'llada')
    hub = opened(tmp_path)
    sums = [Pair(f'{a}+{b}=', f'{a + b}') for a in range(10, 14) for b in range(3)]
    made = hub.targets(sums, 4)
    put_dual_stream(hub, [0, 1])
    finetune(hub, made.rows, after_position(made.P), Tuning(batch=6, accumulate=1), 2)
    save_hub_head(tmp_path/'s.safetensors', hub)
    again = opened(tmp_path, heads=dict(ups=tmp_path/'s.safetensors'))
    for maker in MAKERS:
        bad = inject(again, made, maker, 1)
        assert {r['source'] for r in detect(again, made, bad)} == {'ups', 'tps_prob'}
        assert 0 <= repair_answers(again, made, bad, 'ups').repaired <= 1
