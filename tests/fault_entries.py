"""What reads something from outside: valid inputs of each reader and entry point, and how they are read."""
import contextlib, gzip, io, json, pickle, re, sys
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple
from unittest.mock import patch
import numpy as np, pyarrow, pyarrow.ipc, torch, yaml
from pyarrow import parquet
from ruamel.yaml import YAML
from scipy.io import loadmat, savemat
from damage import JSON, LINES, PACKED, PLAIN, TEXTS, Form, dump_lines
from remask.core import files
from remask.core.denoiser import Denoiser, load_denoiser
from remask.core.files import open_tensors, save_net, save_tensors
from remask.core.rate_network import load_rate_network
from remask.core.shards import read_shards, write_shards
from remask.core.train import fit, published
from remask.core.training_state import Curve, described
from remask.domains import readers, tasks
from remask.domains.graphs import (
    Graph, encode_graphs, graph_position_features, graph_rate_network, graph_space)
from remask.domains.text import Vocabulary, read_text
from remask.evaluate.answer_metrics import same_answer
from remask.evaluate.compare import check_comparable, comparison_markdown, read_metrics
from remask.evaluate.text_metrics import Judge, load_judge
from remask.lm.blocks import DualStream, load_scorer
from remask.lm.hub_model import save_small
from remask.methods.text_checkpoints import load_text_checkpoints
from remask.pipeline import cli, doctor, profiles, provenance, stages, store
from remask.pipeline.dependencies import import_closure
from remask.pipeline.tracking import database_fault, open_experiment
from remask.policies.ups import ScoreHead

ROOT = Path(__file__).parents[1]


class Entry(NamedTuple):
    make: Callable               # folder -> writes valid inputs there
    read: Callable               # (folder, name of the input) -> what was read
    forms: dict                  # name of an input -> its form
    told: Callable|None = None   # bytes -> whether the format itself tells that they are damaged
    share: int = 10              # how often it is tried, against the others
    words: tuple = ()            # what else a sentence may name: parameters


def said(f, *args): # what a command prints, or its error
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: f(*args)
        except SystemExit as e:
            if isinstance(e.code, int) and e.code not in (0, 1, 2): raise
            message = e.code if isinstance(e.code, str) else err.getvalue()
            if e.code: raise ValueError(message.strip()) from e
    return out.getvalue()


@contextlib.contextmanager
def in_place(folder, name, at):
    "The damaged file where its reader looks for it, for a while"
    place = folder/at/name
    before = place.read_bytes()
    place.write_bytes((folder/name).read_bytes())
    try: yield
    finally: place.write_bytes(before)


# ---- what a format itself tells

def unique(pairs):
    names = [name for name, _ in pairs]
    if len({*names}) < len(names): raise ValueError('a name twice')
    return dict(pairs)


def strict(text): return json.loads(text, object_pairs_hook=unique)


def json_told(data):
    "No UTF-8, no JSON, a name twice"
    try:
        text = data.decode('utf-8-sig')
        try: strict(text)
        except ValueError: [strict(line) for line in text.split('\n') if line.strip()]
    except (ValueError, RecursionError): return True
    return False


def gzip_told(data):
    try: return json_told(gzip.decompress(data))
    except Exception: return True


def yaml_told(data):
    "No YAML, or a name twice"
    try: YAML(typ='safe', pure=True).load(data.decode())
    except Exception: return True
    return False


def signed(data): return b'__metadata__' in data # a digest of what was written stands there


def pages_told(data): # of Parquet written with checksums
    try: parquet.read_table(io.BytesIO(data), page_checksum_verification=True)
    except Exception: return True
    return False


# ---- plans

GRAPHS = [dict(types=[0, k % 3 + 1, 2], edges=[[0, 1, k % 3], [1, 2, 3]]) for k in range(4)]
G2P = [dict(rType=[0, 1, 2], rEdge=[[0, 1, 2], [1, 2, 5]]), dict(rType=[0, 3], rEdge=[[1, 0, 4]])]
CORNERS = (0, 0, 4, 5), (4, 0, 8, 4), (0, 5, 5, 9)
KINDS = 'living', 'kitchen', 'bedroom'
ROOMS = [dict(id=f'{kind}_0', type=kind, bbox=[*box], area=20.) for kind, box in zip(KINDS, CORNERS)]
NEIGHBOURS = [['living_0', 'kitchen_0'], ['living_0', 'bedroom_0']]
RESPLAN = [dict(id=k, rooms=ROOMS, adjacent=NEIGHBOURS) for k in (1, 2)]
HOUSEGAN = [dict(room_type=[1, 2, 3], boxes=[[0, 0, 100, 80], [100, 0, 200, 80], [0, 80, 200, 160]])]


def put(name, data): return lambda folder: (folder/name).write_bytes(data)


def matlab(records, **how):
    cells = np.empty(len(records), object)
    for k, r in enumerate(records): cells[k] = {name: np.array(v) for name, v in r.items()}
    out = io.BytesIO()
    savemat(out, dict(data=cells), **how)
    return out.getvalue()


def from_matlab(data): # back to lists
    found = loadmat(io.BytesIO(data), squeeze_me=True, struct_as_record=False)['data']
    def fields(d): return dict(rType=d.rType.tolist(), rEdge=np.reshape(d.rEdge, (-1, 3)).tolist())
    return [*map(fields, np.ravel(found))]


MAT = Form(from_matlab, partial(matlab, do_compression=True))


def pickled():
    import shapely
    plans = [dict(id=1, living=shapely.box(0, 0, 8, 5), bedroom=[shapely.box(0, 5, 5, 9)], kitchen=None)]
    return pickle.dumps(plans*2, protocol=4)


def shared(levels): return b')' + b'2\x86'*levels # of a pickle: tuples of themselves, small until hashed


PICKLES = dict(key=b'}' + shared(60) + b'Ns', member=b'\x8f(' + shared(60) + b'\x90')
PICKLES |= dict(frozen=b'(' + shared(60) + b'\x91')
PICKLES |= dict(living=b'}\x8c\x06living' + shared(60) + b's', memo=b'Nr\xff\xff\xff\x0f')
PICKLES |= dict(itself=b'](h\x00e')


def pickles(folder):
    (folder/'ResPlan.pkl').write_bytes(pickled())
    for name, plan in PICKLES.items(): (folder/f'{name}.pkl').write_bytes(b'\x80\x04]\x94' + plan + b'a.')


def read_reading(read):
    def call(folder, name): return tuple(read(folder/name))[:1]
    return call


def plain_graphs(folder, name): return readers.read_jsonl(folder/name)
def any_graphs(folder, name): return readers.read_graphs(folder/name).graphs


def converted(folder, name):
    "By the command line"
    said(cli.main, ['data', str(folder/name), '--to', str(folder/'out.jsonl')])
    return (folder/'out.jsonl').read_bytes()


# ---- records

def sum_of(k): return dict(question=f'What is {k}+2?', answer=f'It is {k + 2}.\n#### {k + 2}', n=k, x=[k, .5])


ROWS = [*map(sum_of, range(5))]


def table_bytes(rows, how):
    out = io.BytesIO()
    table = pyarrow.Table.from_pylist(rows)
    if how == 'parquet': parquet.write_table(table, out, write_page_checksum=True)
    else:
        new = pyarrow.ipc.new_file if how == 'file' else pyarrow.ipc.new_stream
        with new(out, table.schema) as writer: writer.write_table(table)
    return out.getvalue()


def from_parquet(data): return parquet.read_table(io.BytesIO(data)).to_pylist()
def from_arrow(data): return pyarrow.ipc.open_file(data).read_all().to_pylist()
def from_stream(data): return pyarrow.ipc.open_stream(data).read_all().to_pylist()


TABLES = {}
TABLES['a.parquet'] = Form(from_parquet, partial(table_bytes, how='parquet'))
TABLES['a.arrow'] = Form(from_arrow, partial(table_bytes, how='file'))
TABLES['s.arrow'] = Form(from_stream, partial(table_bytes, how='stream'))
FORMS = dict({'a.jsonl': LINES, 'a.json': JSON, 'a.jsonl.gz': PACKED}, **TABLES)


def all_forms(folder):
    for name, form in FORMS.items(): (folder/name).write_bytes(form.dump(ROWS))


def records_told(data):
    if data[:2] == b'\x1f\x8b': return gzip_told(data)
    if data[:4] == b'PAR1': return pages_told(data)
    return data[:6] != b'ARROW1' and data[:4] != b'\xff\xff\xff\xff' and json_told(data)


def records(folder, name): return files.read_records(folder/name)
def pairs(folder, name): return tasks.read_pairs(folder/name, 'gsm8k')
def tabbed(folder, name): return tasks.read_tabbed(folder/name)
def a_text(folder, name): return read_text(folder/name)


# ---- tensors

SPACE = graph_space(4)
IDS = encode_graphs([Graph(tuple(g['types']), tuple(map(tuple, g['edges']))) for g in GRAPHS]*4, 4)
VOCAB = Vocabulary.of('abc d\n')


def network():
    torch.manual_seed(0)
    return Denoiser(graph_position_features(4), SPACE.legal, d=16, layers=1, dropout=0.)


def spelled():
    torch.manual_seed(0)
    return Denoiser(torch.zeros(12, 0), VOCAB.space(12).legal, 16, 2, 2, 0., False)


def load_header(data): # of safetensors: its JSON with the record unpacked, and the tensors
    size = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:8 + size])
    header['__metadata__']['about'] = json.loads(header['__metadata__']['about'])
    return [header, data[8 + size:].hex()]


def dump_header(parts):
    header, tensors = parts
    if isinstance(header.get('__metadata__', {}).get('about'), (dict, list)):
        header['__metadata__']['about'] = json.dumps(header['__metadata__']['about'])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + bytes.fromhex(tensors)


TENSORS = Form(load_header, dump_header)


def nets(folder):
    save_net(folder/'net.safetensors', network(), steps=3)
    save_net(folder/'alpha.safetensors', graph_rate_network(4), steps=3)
    save_net(folder/'judge.safetensors', Judge(VOCAB.space(12).legal, 8), steps=3)
    save_net(folder/'head.safetensors', ScoreHead(16, 8), steps=3)
    save_net(folder/'stream.safetensors', DualStream(spelled().blocks, [0, 1], 16), steps=3)
    save_tensors(folder/'samples.safetensors', dict(x=IDS, keep=torch.rand(3, 5)), dict(seeds=[1, 2]))


def described_net(path, net): return described(dict(net.state_dict())), getattr(net, 'config', None)


LOADERS = {'net': load_denoiser, 'alpha': load_rate_network, 'judge': load_judge}
LOADERS['head'] = lambda path: load_scorer(path, spelled())
LOADERS['stream'] = lambda path: load_scorer(path, spelled())
NETS = dict.fromkeys((f'{name}.safetensors' for name in LOADERS), TENSORS)


def loaded(folder, name):
    path = folder/name
    net, origin = LOADERS[path.stem](path)
    return described_net(path, net), origin


def opened(folder, name): return described(list(open_tensors(folder/name)))


def without_digest(folder):
    "As they were written before there were digests"
    nets(folder)
    for path in folder.glob('*.safetensors'):
        header, tensors = load_header(path.read_bytes())
        header['__metadata__']['about'].pop('__digest__')
        path.write_bytes(dump_header([header, tensors]))


def texts(folder):
    about = dict(chars=VOCAB.chars, L=12, revision='abc')
    save_net(folder/'denoiser.safetensors', spelled(), **about)
    save_net(folder/'critic.safetensors', ScoreHead(16, 8), **about)


def text_networks(folder, name):
    nets = load_text_checkpoints(folder)
    return described(dict(nets.denoiser('critic').state_dict())), nets.L, nets.revision


def training(folder, steps=2):
    weight = torch.ones(int(SPACE.legal.shape[1]))
    recipe = published(weight, lr=1e-2, warmup=1, batch=4, ema=.9)
    how = dict(save_every=1, log_every=1, log=Curve(folder/'run').log)
    return fit(network(), SPACE, IDS, recipe, steps, folder/'run', **how)


def begun(folder):
    training(folder)
    (folder/'state.safetensors').write_bytes((folder/'run'/'state.safetensors').read_bytes())
    (folder/'curve.jsonl').write_bytes((folder/'run'/'curve.jsonl').read_bytes())


def resumed(folder, name):
    with in_place(folder, name, 'run'): return described(dict(training(folder, 2).net.state_dict()))


def curve(folder, name):
    with in_place(folder, name, 'run'): return Curve(folder/'run').entries


def row_numbers(first, n): return dict(number=first + torch.arange(n))


def some_shards(folder): write_shards(folder, row_numbers, 5, dict(seed=0, method='cap'), size=3)


def shards_told(data): return json_told(data) if data[:1] == b'{' else signed(data)


def shard_rows(folder, name): return [described(shard) for shard in read_shards(folder)]


# ---- results

METRICS = dict(method='cap', summary={'validity/validity': [.5, .1]}, params=dict(samples=3, seeds=[1, 2]))
METRICS |= dict(per_seed=[{'validity/validity': .4}, {'validity/validity': .6}])


def results(folder):
    for name in 'ab': (folder/f'{name}.json').write_text(json.dumps(METRICS | dict(method=name)))


def compared(folder, name):
    found = read_metrics([folder/'a.json', folder/'b.json'])
    check_comparable(found, samples=3)
    return comparison_markdown(found)


def made(folder):
    save_tensors(folder/'build'/'x.safetensors', dict(x=IDS), {})
    with contextlib.chdir(folder): provenance.log_made('build/x.safetensors', seconds=[1., 2.])
    (folder/'x.json').write_bytes((folder/'build'/'made'/'x.json').read_bytes())


def how_made(folder, name):
    with in_place(folder, name, 'build/made'), contextlib.chdir(folder):
        return provenance.read_made('build/x.safetensors')


def durations(folder):
    for k in range(3): stages.log_duration('sample', dict(k=k), 1.5, folder/'durations.jsonl')


def times(folder, name): return stages.duration_table(folder/name)


# ---- configuration

PARAMS = dict(run=dict(profile='laptop', steps=10), datasets=['plans'])
PARAMS |= dict(data=dict(plans=dict(source='data/plans.jsonl', n_max=8)))
PARAMS |= dict(processes=dict(v1=dict(train_steps=40, cooldown=.2, lr=1e-3, batch=8, ema=.9, warmup=5)))
PARAMS |= dict(comparisons=dict(main=dict(lists=['published'], seeds=[1, 2], samples=4, stored=False)))
PARAMS |= dict(lists=dict(published=['llada_topp09_no_remask', 'v2_llada_topp09_no_remask']))
LAPTOP = dict(run=dict(profile='laptop', steps=10), processes=dict(v1=dict(train_steps=40)))
SMOKE = dict(run=dict(profile='smoke', steps=2))
STORED = dict(outs=[dict(path='data/a.txt', md5='0'*32, hash='md5')])
PINNED = [{'x': dict(remote='store')}]
PIPELINE = dict(stages=dict(one=dict(cmd='remask-stage sample', deps=['params.yaml'], outs=PINNED)))
LOCK = dict(stages=dict(one=dict(cmd='x', outs=[dict(path='params.yaml', md5='0'*32)])))


def dump_yaml(value): return yaml.safe_dump(value, allow_unicode=True, sort_keys=False).encode()


CONFIG = Form(yaml.safe_load, dump_yaml, True)


def project(folder):
    for name in 'sample', 'train', 'prepare':
        (folder/'nbs'/'experiments'/'plans').mkdir(parents=True, exist_ok=True)
        at = Path('nbs/experiments/plans', f'{name}.ipynb')
        (folder/at).write_bytes((ROOT/at).read_bytes())
    (folder/'profiles').mkdir(exist_ok=True)
    for name, value in ('laptop', LAPTOP), ('smoke', SMOKE):
        (folder/'profiles'/f'{name}.yaml').write_bytes(dump_yaml(value))
    (folder/'params.yaml').write_bytes(dump_yaml(PARAMS))
    with contextlib.chdir(folder): profiles.use_profile(None)


def run_quietly(words):
    "A stage up to where its notebook would run: what it would be given"
    given = []
    def note(notebook, out, params): given.append((Path(notebook).name, Path(out).name, params))
    with patch.object(stages, 'run_notebook', note), patch.object(sys, 'argv', ['remask-stage', *words]):
        with patch.object(stages, 'log_duration', lambda *args: None):
            said(stages.stage_main)
    return given


SAMPLE = 'sample', 'data=plans', 'comparison=main', 'method=llada_topp09_no_remask', 'process=v1'


def stage(folder, name):
    train = 'train', 'data=plans', 'process=v1'
    with contextlib.chdir(folder): return run_quietly(SAMPLE), run_quietly(train)


def project_apart(folder):
    "With what is damaged at its top, so that all is in one folder"
    project(folder)
    for path in *folder.glob('nbs/experiments/plans/sample.ipynb'), *folder.glob('profiles/*.yaml'):
        (folder/path.name).write_bytes(path.read_bytes())


def notebook(folder, name):
    at = 'nbs/experiments/plans'
    with in_place(folder, name, at), contextlib.chdir(folder):
        return run_quietly(SAMPLE), import_closure(f'{at}/{name}')


def profile(folder, name):
    "By the command line; params.yaml is put back"
    before = (folder/'params.yaml').read_bytes()
    with in_place(folder, name, '.' if name == 'params.yaml' else 'profiles'), contextlib.chdir(folder):
        try: return said(cli.main, ['profile', 'smoke']), (folder/'params.yaml').read_bytes()
        finally: (folder/'params.yaml').write_bytes(before)


def store_files(folder):
    for name, value in ('data.dvc', STORED), ('dvc.yaml', PIPELINE), ('dvc.lock', LOCK):
        (folder/name).write_bytes(dump_yaml(value))
    (folder/'requirements.lock').write_text('numpy==0\ntorch==2.1\n')
    (folder/'params.yaml').write_text('a: 1\n')


STORE_READERS = {'data.dvc': store.untracked_files, 'dvc.yaml': store.pinned_stages}
STORE_READERS |= {'dvc.lock': doctor.recorded_digests, 'requirements.lock': doctor.environment_faults}


def stored(folder, name):
    with contextlib.chdir(folder): return STORE_READERS[name]()


# ---- words of the command line

WORDS = {}
WORDS['data'] = ['data', 'a.jsonl', '--to', 'out.jsonl', '--kind', 'jsonl', '--n-max', '8']
WORDS['plans'] = ['plans', '--to', 'out.jsonl', '--n', '3', '--seed', '1']
WORDS['profile'] = ['profile', 'smoke', '--force']
WORDS['demo'] = 'demo text --text abc --score psi --strength 0.1 --prompt ab░ --steps 2 --pause 0'.split()
WORDS['methods'] = ['methods', '--to', 'page.md']
WORDS['dependencies'] = ['dependencies', 'dvc.yaml']
WORDS['stage'] = [*SAMPLE, 'steps=4', 'seeds=[1, 2]', 'overrides={}']
AS_JSON = {f'{name}.json': JSON for name in WORDS}


def command_line(folder):
    project(folder)
    texts(folder/'build'/'networks'/'abc')
    (folder/'a.jsonl').write_bytes(dump_lines(GRAPHS))
    (folder/'page.md').write_text('\n'.join(cli.MARKS))
    (folder/'dvc.yaml').write_bytes(dump_yaml(PIPELINE))
    for name, words in WORDS.items(): (folder/f'{name}.json').write_text(json.dumps(words))


def is_inside(word): return '..' not in word and not word.startswith(('/', '~', '-')) and '\0' not in word


TOO_LONG = r'[0-9]{4,}' # steps of a demonstration are drawn as long as the user asks


def harmless(words):
    "Whether words may be tried: they lead nowhere else, and ask for nothing that is long by right"
    if not all(map(is_inside, (w for w in words if w[:2] != '--'))): return False
    return words[:1] != ['demo'] or not any(re.search(TOO_LONG, w) or w.startswith('1e') for w in words)


def words_of(folder, name):
    try: words = json.loads((folder/name).read_bytes())
    except (ValueError, RecursionError): return []
    return [str(w) for w in words] if isinstance(words, list) else [str(words)]


def names_one(message, words): # of the words, or their parameters
    plain = [w.strip('-').replace('-', '_').partition('=')[0] for w in words]
    return 'error: ' in message or any(w and w[:60] in message for w in [*words, *plain])


def typed(folder, name):
    "The words of a file as a command line"
    words = words_of(folder, name)
    if not words or not harmless(words): return 'not tried'
    with contextlib.chdir(folder), patch.object(cli, 'method_table', lambda: '| a |\n| - |\n| b |'):
        try: return run_quietly(words) if words[0] == 'sample' else said(cli.main, words)
        except ValueError as e:
            *_, last = str(e).split('\n') # argparse says first how it is used
            raise ValueError(f'{name}: {last[:300]}' if names_one(last, words) else str(e)) from e


# ---- what a model answered

ASKED = dict(prompt='12*(3+4)-5', answer='3+4=7;12*7=84;84-5=79#79')


def asked(folder): (folder/'asked.json').write_text(json.dumps(ASKED))


def judged(folder, name):
    try: d = json.loads((folder/name).read_bytes())
    except (ValueError, RecursionError): return 'not tried'
    prompt, answer = (str(d.get(k)) for k in ASKED) if isinstance(d, dict) else (str(d), '')
    try: return tasks.verify(prompt, answer), same_answer(answer, prompt)
    except ValueError as e: raise ValueError(f'{name}: {e}' if repr(prompt)[:20] in str(e) else str(e)) from e


def models(folder):
    save_small(folder/'small')
    for name in MODEL: (folder/name).write_bytes((folder/'small'/name).read_bytes())


MODEL = dict.fromkeys(('config.json', 'tokenizer.json', 'tokenizer_config.json'), JSON)
MODEL |= {'model.safetensors': PLAIN}


def inspected(folder, name):
    with in_place(folder, name, 'small'): return said(cli.main, ['inspect', str(folder/'small')])


def database(folder):
    with contextlib.redirect_stderr(io.StringIO()): open_experiment(folder/'made', 'e')
    (folder/'mlflow.db').write_bytes((folder/'made'/'mlruns'/'mlflow.db').read_bytes())


def sound(folder, name):
    fault = database_fault(folder/name)
    if fault: raise ValueError(f'{name}: {fault}')


def plans_of(name, records, read, form=LINES):
    return Entry(put(name, form.dump(records)), read, {name: form}, json_told)


def parameters(*names): return dict.fromkeys(names, CONFIG)


ENTRIES = {}
ENTRIES['graphs'] = plans_of('a.jsonl', GRAPHS, plain_graphs)
ENTRIES['graph2plan json'] = plans_of('g.json', G2P, read_reading(readers.read_graph2plan), JSON)
ENTRIES['resplan lines'] = plans_of('r.jsonl', RESPLAN, read_reading(readers.read_resplan))
ENTRIES['house-gan'] = plans_of('h.json', HOUSEGAN, read_reading(readers.read_housegan), JSON)
ENTRIES['any plans'] = plans_of('r.jsonl', RESPLAN, any_graphs)
ENTRIES['remask data'] = plans_of('h.json', HOUSEGAN, converted, JSON)
READ_MATLAB, READ_PICKLE = map(read_reading, (readers.read_graph2plan, readers.read_resplan))
ENTRIES['matlab'] = Entry(put('data.mat', matlab(G2P)), READ_MATLAB, {'data.mat': MAT}, share=1)
ENTRIES['matlab packed'] = Entry(put('data.mat', MAT.dump(G2P)), any_graphs, {'data.mat': MAT}, share=1)
ENTRIES['resplan pickle'] = Entry(pickles, READ_PICKLE, {'ResPlan.pkl': PLAIN})
SMALL = {f'{name}.pkl': PLAIN for name in PICKLES}
ENTRIES['pickles that grow'] = Entry(pickles, READ_PICKLE, SMALL, share=1)
ENTRIES['records'] = Entry(all_forms, records, FORMS, records_told, 25)
ENTRIES['pairs'] = Entry(all_forms, pairs, FORMS, records_told)
ENTRIES['tabbed pairs'] = Entry(put('p.txt', b'1+1\t2\n2+2\t4\n'), tabbed, {'p.txt': TEXTS})
ENTRIES['text'] = Entry(put('t.txt', 'a text\nof two lines, é\n'.encode()), a_text, {'t.txt': TEXTS})
ENTRIES['networks'] = Entry(nets, loaded, NETS, signed, 25)
ENTRIES['networks without digest'] = Entry(without_digest, loaded, NETS)
ENTRIES['samples'] = Entry(nets, opened, {'samples.safetensors': TENSORS}, signed)
SPELLED = dict.fromkeys(('denoiser.safetensors', 'critic.safetensors'), TENSORS)
ENTRIES['networks of a text'] = Entry(texts, text_networks, SPELLED, signed)
SHARDS = {'manifest.json': JSON, '000001.safetensors': TENSORS}
ENTRIES['shards'] = Entry(some_shards, shard_rows, SHARDS, shards_told)
ENTRIES['training state'] = Entry(begun, resumed, {'state.safetensors': TENSORS}, signed, 5)
ENTRIES['training curve'] = Entry(begun, curve, {'curve.jsonl': LINES}, None, 5)
ENTRIES['metrics'] = Entry(results, compared, {'a.json': JSON}, json_told, 10, ('samples', 'process'))
ENTRIES['how it was made'] = Entry(made, how_made, {'x.json': JSON}, json_told, 5)
ENTRIES['durations'] = Entry(durations, times, {'durations.jsonl': LINES}, None, 5)
NAMES = (*'n_max samples seeds steps batch cooldown lr ema warmup train_steps source'.split(),)
ENTRIES['params.yaml'] = Entry(project, stage, parameters('params.yaml'), yaml_told, 15, NAMES)
CONFIGS = parameters('laptop.yaml', 'smoke.yaml', 'params.yaml')
ENTRIES['profiles'] = Entry(project_apart, profile, CONFIGS, yaml_told)
ENTRIES['stage notebook'] = Entry(project_apart, notebook, {'sample.ipynb': JSON}, None, 5, ('params.yaml',))
STORES = parameters('data.dvc', 'dvc.yaml', 'dvc.lock') | {'requirements.lock': TEXTS}
ENTRIES['store'] = Entry(store_files, stored, STORES, None)
ENTRIES['command line'] = Entry(command_line, typed, AS_JSON, None, 25)
ENTRIES['answers'] = Entry(asked, judged, {'asked.json': JSON})
ENTRIES['model folder'] = Entry(models, inspected, MODEL, None, 2, ('small',))
ENTRIES['database'] = Entry(database, sound, {'mlflow.db': PLAIN})
