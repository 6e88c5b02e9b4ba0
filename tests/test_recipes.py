"""Every command of README.md and docs/pages, word for word, in a fresh clone, at the sizes of `smoke`."""
import hashlib, json, os, pathlib, pickle, re, shutil, signal, socket, subprocess, sys, time
import numpy as np, pytest, torch, yaml
from ruamel.yaml import YAML
from scipy.io import savemat
from remask.pipeline import store
from remask.methods.published import compared
from remask.pipeline.cli import generate_shards, parser, sweep
from remask.pipeline.params import declared_parameters, find_stage, read_params
from remask.pipeline.tracking import open_experiment, runs
from remask.core.files import open_tensors
from remask.domains.text import Vocabulary

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT/'docs'/'pages').glob('*.md'))
# a page is a section
README = '\n'.join([(ROOT/'README.md').read_text(), *(f'#{p.read_text()}' for p in PAGES)])
MAKE = (ROOT/'Makefile').read_text()
TOOLS = r'(?:make|dvc|remask|remask-stage|nbdev_\w+|source|mkdir|cp|python3\.11|git)'

# ---- reading README.md


def sections():
    "{heading: text}; the text before the first heading is under ''"
    parts = re.split(r'^## (.*)\n', README, flags=re.M)
    return {'': parts[0], **dict(zip(parts[1::2], parts[2::2]))}


def blocks(text):
    "The indented blocks of a text, without comments, continued lines joined"
    for block in re.findall(r'(?:^    .*\n)+', text, re.M):
        lines = [re.sub(r'\s+# .*', '', l[4:]) for l in block.splitlines()]
        yield '\n'.join(l for l in lines if l.strip()).replace('\\\n', ' ')


def is_edit(block): return bool(re.match(r'\w+:( |\n|$)', block))
def is_python(block): return bool(re.match(r'(from|import) ', block))


def steps(text):
    "The steps of a text in their order: commands and edits of params.yaml"
    for block in blocks(text):
        if is_edit(block): yield block
        elif not is_python(block): yield from (' '.join(c.split()) for c in block.splitlines())


def inline(text): # commands in backticks
    for word in re.findall(r'`([^`\n]+)`', text):
        if re.fullmatch(rf'{TOOLS} .*|nbdev_\w+', word): yield word


def commands(text): return [s for s in [*steps(text), *inline(text)] if not is_edit(s)]


# ---- which test follows which command

FOLLOWED = [
    'Training again',
    'Your own plans',
    'Your own text',
    'Your own questions',
    'Samples elsewhere',
]  # whole sections
FRONT = [
    'make repro',
    'make remedies',
    'make record',
    'make text',
    'make exactness',
    'make sudoku',
    'make answers',
    'make ablations',
    'make fair',
]
SAMPLED_AGAIN = 'make record SAMPLE=1'
OF_MINE = 'make record DATA=mine'
EXPERIMENTS = [
    'dvc exp run --temp -n first compare',
    'dvc exp run --queue -n second -S run.steps=10 compare',
    'dvc queue start',
    'dvc exp show',
    'dvc exp apply second',
]
OTHERS = [
    'dvc metrics diff HEAD~1', 'dvc plots show', 'remask dependencies',
    *EXPERIMENTS,
    'nbdev_export',
    'nbdev_clean',
    'remask doctor',
    'remask profile smoke',
    'remask profile laptop',
    'remask profile paper',
    'make ui',
    'make site',
    'remask methods --to docs/pages/methods.md',
    'source .venv/bin/activate',
    'remask-stage sample data=plans comparison=main method=llada_topp09_no_remask',
    'make commit',
    'make look',
    'python docs/readme.py collect',
    'make readme',
]
DEMOS = [
    'remask demo plans',
    'remask demo sudoku --method self_masking --strength 0.4',
    'remask explain remdm_cap',
]
OWN_MODEL = ('remask tune mine.py:model mine.py:score remdm_cap eta=0.02,0.1 --length 64 --vocab-size 1000 '
             '--mask-id 1000')
CHAT = "echo '961+169' | remask chat --json"
# followed by test_sweep and test_engine, where Ray is installed
ON_A_CLUSTER = ['On a cluster', 'Slurm', 'Kubernetes']
# followed by test_cli, and its Python by test_face
MANY_ROWS = 'More rows than memory holds'
NOT_HERE = {
    'make test': 'runs this file',
    'make help': 'is run by test_house',
    'remask chat': 'is run by test_cli',
    'make lab': 'what it opens is run by test_workbench',
    'remask train': 'is run by test_cli with a parameter it refuses',
    'source <(remask completion bash)': 'is run by test_cli',
    CHAT: 'is run by test_cli',
    'remask explain METHOD': 'a name in place of METHOD is among DEMOS',
    OWN_MODEL: 'is run by test_package',
    'python3.11 -m venv .venv && .venv/bin/python -m pip install torch':
        'makes an environment from the network',
}
FOREIGN_MODEL = 'The real LLaDA'   # followed by `test_the_page_of_the_real_llada`


def test_every_command_is_followed_by_a_test():
    known = {*FRONT, SAMPLED_AGAIN, OF_MINE, *OTHERS, *DEMOS, *NOT_HERE}
    followed = [*FOLLOWED, FOREIGN_MODEL, MANY_ROWS, *ON_A_CLUSTER]
    for title in followed: known |= set(commands(sections()[title]))
    rules = re.compile(
        '<!-- methods -->.*<!-- end of methods -->', re.S
    )  # equations, some of which begin with remask
    found = {title: set(commands(rules.sub('', text))) - known for title, text in sections().items()}
    assert not any(found.values()), f'no test for {found}'
    assert set(FRONT) <= set(commands(README)) and {'make train-text', 'make train-answers'} <= set(
        commands(README)
    )


def test_the_page_on_clusters_names_options_and_versions_that_exist():
    page = [c for title in ON_A_CLUSTER for c in commands(sections()[title])]
    sweeps = [c[c.index('remask sweep'):].split()[1:] for c in page if 'remask sweep s' in c]
    for words in sweeps: assert parser().parse_args(words).run is sweep
    assert len(sweeps) >= 3 and any('ray' in words for words in sweeps)
    installed, = (c.split()[-1] for c in page if 'pip install' in c)
    assert f'ray = ["{installed}"]' in (ROOT/'pyproject.toml').read_text()
    single, = (c.split()[1:] for c in page if c.startswith('remask-stage '))
    known = declared_parameters(find_stage(single[0], ROOT/'nbs/experiments'))
    assert {w.partition('=')[0] for w in single[1:]} <= set(known)


def test_the_page_on_many_rows_names_options_and_a_method_that_exist():
    page = commands(sections()[MANY_ROWS])
    words = [c.split()[1:] for c in page if '--rows' in c]
    asked = [parser().parse_args(w) for w in words]
    assert {a.run for a in asked} == {generate_shards} and {a.engine for a in asked} == {'local', 'ray'}
    assert {compared(a.method).process for a in asked} == {'unweighted'}


def test_commands_are_read_with_their_comments_and_continuations():
    text = ('Do `make text`, not `x`.\n\n    make a  # why\n    b c \\\n      d\n\n'
            'and\n\n    corpora:\n      mine: {L: 8}  # x\n')
    assert [*steps(text)] == ['make a', 'b c d', 'corpora:\n  mine: {L: 8}']
    assert commands(text) == ['make a', 'b c d', 'make text']


def test_what_the_front_page_makes_is_in_the_lanes_of_the_smoke_run():
    lanes = set(' '.join(re.findall(r'^LANE_\w+ := (.*)$', MAKE, re.M)).split())
    for command in FRONT:
        body = re.search(rf'^{command.split()[1]}: .*\n((?:\t.*\n)+)', MAKE, re.M).group(1)
        calls = [part.split('&&')[0] for part in body.split('dvc repro ')[1:]]
        words = ' '.join(call.partition('\n')[0] for call in calls).split()
        ends = {w.partition('@')[0] for w in words if re.fullmatch(r'[a-z_]+(@.*)?', w)}
        assert ends and ends - {'heldout'} <= lanes, command        # the rest are options and variables


# ---- a fresh clone

def environment(to):
    "An environment that is this one, made just now"
    (to/'.venv').mkdir()
    for name in ('bin', 'lib', 'pyvenv.cfg'): (to/'.venv'/name).symlink_to(pathlib.Path(sys.prefix)/name)
    (to/'.venv'/'ready').touch()


def clone(to):
    subprocess.run(['git', 'clone', '-q', ROOT, to], check=True)
    names = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.split('\0')
    for n in filter(None, names):
        if (ROOT/n).is_file(): (to/n).parent.mkdir(parents=True, exist_ok=True); shutil.copy2(ROOT/n, to/n)
        elif not (ROOT/n).exists(): (to/n).unlink(missing_ok=True)
    environment(to)
    return to


def shell(at, command, ok=True, **env):
    "Do as a person does in the project's folder: activate the environment, then the command"
    names = dict(
        PYTHONPATH=str(at),
        GIT_AUTHOR_NAME='a',
        GIT_AUTHOR_EMAIL='a@b',
        GIT_COMMITTER_NAME='a',
        GIT_COMMITTER_EMAIL='a@b',
    )
    names = (
        {
            k: v
            for k, v in os.environ.items()
            if k not in ('MAKEFLAGS', 'MAKELEVEL', 'MAKEOVERRIDES', 'MFLAGS')
        }
        | names
        | env
    )
    path = f'{at}/.venv/bin:{os.environ["PATH"]}'
    done = subprocess.run(
        ['bash', '-c', command], cwd=at, env=names | dict(PATH=path), capture_output=True, text=True
    )
    printed = done.stdout + done.stderr
    assert not ok or done.returncode == 0, f'{command}: exit {done.returncode}\n{printed[-3000:]}'
    return printed if ok else (done.returncode, printed)


def edit(at, block):
    "Change params.yaml as a block of README.md has it: a list is replaced, a line is added to a section"
    path, file = at/'params.yaml', YAML()
    params = file.load(path)
    for key, value in yaml.safe_load(block).items():
        assert key in params, f'params.yaml has no {key}'
        params[key] = params[key] | value if isinstance(value, dict) else value
    file.dump(params, path)


def every(step): return True


def follow(at, title, only=every):
    "Run the steps of a section; return what each command printed"
    printed = {}
    for step in filter(only, steps(sections()[title])):
        if is_edit(step): edit(at, step)
        else: printed[step] = shell(at, step)
    return printed


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A fresh clone with what comes along, everything small by the documented command"
    at = clone(tmp_path_factory.mktemp('recipes')/'remask')
    shell(at, 'make pull')
    shell(at, 'remask profile smoke')
    assert yaml.safe_load((at/'params.yaml').read_text())['run']['profile'] == 'smoke'
    return at


def narrow(at, **lists):
    for key, names in lists.items(): edit(at, yaml.safe_dump({key: names}))


def lock(at): return yaml.safe_load((at/'dvc.lock').read_text())['stages']
def net(at, name): return open_tensors(at/'build'/f'{name}.safetensors')
def same(a, b):
    equal = [torch.equal(a[k], b[k]) for k in a.keys() & b.keys()]
    return a.keys() == b.keys() and all(equal)


def test_a_fresh_clone_has_what_trainings_depend_on_and_trains_nothing(project):
    "With the params.yaml that comes along, every stage of the store is up to date"
    small = (project/'params.yaml').read_text()
    (project/'params.yaml').write_text((ROOT/'params.yaml').read_text())
    try: printed = shell(project, 'dvc status ' + ' '.join(store.pinned_stages(project/'dvc.yaml')))
    finally: (project/'params.yaml').write_text(small)
    assert 'up to date' in printed, printed
    assert 'frozen' not in (ROOT/'dvc.yaml').read_text()


# ---- a training asked for again

def test_a_training_is_made_again_when_it_is_asked_for_again(project):
    command, name = 'make train-sudoku', 'networks/sudoku/solver_tiny'
    assert command in commands(sections()['Training again'])
    first = shell(project, command)
    assert 'remask: solver_tiny: a new training of 2 steps' in first and '2 of 2 steps to go' in first
    tensors, about = net(project, name)
    again = shell(project, command)
    assert '2 steps were made before; the training starts afresh' in again and '2 of 2 steps to go' in again
    assert same(net(project, name)[0], tensors) and net(project, name)[1]['provenance']['steps'] == 2
    mark, = project.glob('build/state/sudoku-solver_tiny-*/finished')
    mark.unlink()                                  # killed before the network was written
    (project/'build'/f'{name}.safetensors').unlink()
    last = shell(project, 'remask-stage train_sudoku network=solver_tiny')
    assert (
        'all 2 steps are made' in last
        and '0 of 2 steps to go' in last
        and same(net(project, name)[0], tensors)
    )


# ---- your own questions

ASKED = "Zoë’s shop sells {a} pens at £{b} each. How many pounds are {a} pens? ½ are red."
WORKED = "Each pen is £{b}, so it’s {a}*{b} = <<{a}*{b}={c}>>{c} pounds.\n#### {c}"


def gsm8k(path, first, n, long=0, short=0):
    "A file of the form of GSM8K, some of its questions or answers very long"
    def record(k):
        a, b = 2 + k, 3 + k % 7
        fill = dict(a=a, b=b, c=a*b)
        return dict(
            question=ASKED.format(**fill) + ' Why?' * (200 * (k < first + long)), answer=WORKED.format(**fill)
        )
    rows = [dict(question='1+6?', answer='7')]*short + [record(k) for k in range(first, first + n)]
    path.write_text(''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows))
    return rows


def test_your_own_questions(project):
    train, test = gsm8k(project/'train.jsonl', 0, 300, long=1), gsm8k(project/'test.jsonl', 1000, 14, short=1)
    narrow(project, heads=['dual_stream'])
    printed = follow(project, 'Your own questions')
    rows, about = net(project, 'tasks/mine/rows')
    vocab, P = Vocabulary(about['chars']), about['P']
    texts = vocab.decode(rows['train'].long())
    assert len(texts) == 299
    assert texts[0][:P].strip() == train[1]['question']
    assert texts[0][P:].rstrip('∎') == train[1]['answer']
    kept = [json.loads(l) for l in (project/'build/tasks/mine/test.jsonl').read_text().splitlines()]
    questions, answers = [r['question'] for r in test], [r['answer'] for r in test]
    assert [p['prompt'] for p in kept] == questions
    assert [p['answer'] for p in kept] == answers
    assert [p['gold'] for p in kept] == [a.rpartition('#### ')[2] for a in answers]
    assert [t[:P].strip() for t in vocab.decode(rows['test'].long())] == questions
    output = printed['make train-answers']
    assert f'training: 300 problems; left out: 1 longer than P={P}; kept: 99.7%' in output
    assert output.index('kept: 99.7%') < output.index('a new training') and '299 rows, ' in output
    assert 'mine has no kinds of problems: dual_stream learns from all of them' in output
    for name in ('answerer', 'dual_stream'):
        origin = net(project, f'answerers/mine/{name}')[1]['provenance']
        digest = hashlib.sha256(rows['train'].numpy().tobytes()).hexdigest()
        assert origin['quiz'] == 'mine' and [leg['data'] for leg in origin['legs']] == [digest]
    assert '# Answers: comparison of decoders' in printed['make answers']
    assert '| dual_stream_refine |' in printed['make answers']
    assert 'mine: 1 answers of fewer than 4 characters are left out' in printed['make answers']
    deps = lock(project)['tasks@mine']['deps']
    assert {d['path'] for d in deps} >= {'inputs/mine'}
    assert 'data' not in str(deps)


def stage(project, *words): return shell(project, ' '.join(['remask-stage', *words]), ok=False)


def test_a_single_file_is_parted_and_what_cannot_be_asked_is_one_sentence(project):
    rows = gsm8k(project/'one.jsonl', 0, 200)
    options = 'quiz=arithmetic', 'source=one.jsonl', 'form=gsm8k', 'kinds=', 'P=0', 'G=0'
    assert stage(project, 'tasks', *options)[0] == 0
    tensors, about = net(project, 'tasks/arithmetic/rows')
    vocab, P = Vocabulary(about['chars']), about['P']
    def questions(part): return {t[:P].strip() for t in vocab.decode(tensors[part].long())}
    train, test = questions('train'), questions('test')
    assert not train & test and len(test) > 4
    assert train | test == {r['question'] for r in rows}
    for words, why in [
        (['kinds=addition'], 'has no kinds of problems'),
        (['P=8', 'kinds='], 'no problem is left'),
    ]:
        code, printed = stage(project, 'tasks', 'quiz=arithmetic', 'source=one.jsonl', 'form=gsm8k', *words)
        assert code == 1 and why in printed and 'Traceback' not in printed
    shell(project, 'dvc checkout -f tasks@arithmetic')


# ---- your own text

@pytest.fixture(scope='module')
def own_text(project):
    "A text of one's own, its networks trained: the text, and what the commands printed"
    text = ''.join(f'Zeile {k}: der Fuß tut weh, ja – sehr.\n' for k in range(900))
    (project/'mine.txt').write_text(text)
    def trains(step): return step != 'make text' and not step.startswith('remask demo')
    return text, follow(project, 'Your own text', only=trains)


def test_training_on_your_own_text(project, own_text):
    text, printed = own_text
    assert f'mine has {len(text):,} characters' in printed['make train-text']
    rows, about = net(project, 'text/mine/rows')
    vocab = Vocabulary(about['chars'])
    assert vocab.decode(rows['train'][:1].long())[0] == text[:128]
    assert {'ß', '–'} <= set(vocab.chars)
    digest = hashlib.sha256(rows['train'].numpy().tobytes()).hexdigest()
    for name in ('denoiser', 'judge', 'own_errors'):
        origin = net(project, f'networks/mine/{name}')[1]['provenance']
        assert (
            origin['text'] == 'mine'
            and origin['data'] == digest
            and origin['revision'].startswith('mine.txt, sha256 ')
        )
    deps = [d['path'] for d in lock(project)['corpus@mine']['deps']]
    assert 'inputs/mine.txt' in deps and 'data' not in deps
    demo = shell(project, next(s for s in steps(sections()['Your own text']) if s.startswith('remask demo')))
    assert '░' in demo or len(demo) > 100


@pytest.mark.slow
def test_the_rest_of_your_own_text(project, own_text):
    shell(project, 'make text')
    page = (project/'reports'/'text'/'comparison.md').read_text()
    assert '### mine' in page and '### teacher' not in page


# ---- your own plans

FIELDS = 'name', 'boundary', 'order', 'rType', 'rBoundary', 'gtBox', 'gtBoxNew', 'rEdge'
NO_EDGE = np.zeros((0, 3))
ODD_EDGES = [[0, 0, 4], [2, 0, 2], [0, 1, 5], [0, 1, 6]]   # a loop, one turned round, one twice
QUIRKS = [([5], NO_EDGE), ([7, 1], [[0, 1, 3]]), ([7, 1, 0], ODD_EDGES)]
QUIRKS += [([], NO_EDGE), (range(9), [[0, 1, 2]])]         # no room, more rooms than fit


def record(types, edges):
    "The fields of a record of Graph2Plan's release, as MATLAB keeps them"
    n = len(types)
    boxes = np.zeros((n, 4), np.uint8)
    column = np.array([*types], np.uint8).reshape(n, 1)
    outline = np.zeros((n, 1), object)
    edges = np.array(edges, np.uint8)
    return 'a', boxes, column, column, outline, boxes, boxes, edges


def mat(path, n):
    "A file of the form of Graph2Plan's release: one row of records, some of them odd"
    plain = [([7, 1, 0, 2 + k % 3], [[0, 1, k % 10], [1, 2, 9], [0, 3, k % 7]]) for k in range(n)]
    data = np.empty((1, n + len(QUIRKS)), [(name, object) for name in FIELDS])
    for k, (types, edges) in enumerate(plain + QUIRKS): data[0, k] = record(types, edges)
    savemat(path, dict(data=data), do_compression=True)


def pickled(path, n):
    "A file of the form of ResPlan's release"
    shapely = pytest.importorskip('shapely')
    def plan(k):
        rooms = [shapely.box(10*i, 0, 10*i + 9, 9 + i + k) for i in range(4)]
        bedrooms = shapely.MultiPolygon(rooms[2:])
        stair = shapely.box(0, 50, 5, 55)
        return dict(living=rooms[0], kitchen=rooms[1], bedroom=bedrooms, stair=stair, unitType='A')
    path.write_bytes(pickle.dumps([plan(k) for k in range(n)]))


def test_the_real_plans_are_read_by_the_commands_of_the_page(project):
    mat(project/'data.mat', 60)
    pickled(project/'ResPlan.pkl', 3)
    def converts(step): return step.startswith(('mkdir', 'remask data'))
    printed = follow(project, 'Your own plans', only=converts)
    graphs = [json.loads(line) for line in (project/'inputs/mine.jsonl').read_text().splitlines()]
    assert len(graphs) == 63 and graphs[3]['types'] == [7, 1, 0, 2]
    assert [len(g['types']) for g in graphs[60:]] == [1, 2, 3]
    assert graphs[62]['edges'] == [[0, 1, 6], [0, 2, 7]]     # the last of two, and 2 turned round
    report = printed['remask data data.mat --to inputs/mine.jsonl']
    contradicting = '1 contradicting edges overwritten (first: data.mat, record 63)'
    counts = ['1 self-loops dropped', '1 edges turned round', contradicting, '1 skipped: no rooms',
              '1 skipped: more than 8 rooms', '65 records read']
    assert all(count in report for count in counts), report
    plans = [json.loads(line) for line in (project/'inputs/resplan.jsonl').read_text().splitlines()]
    assert [sorted(g['types']) for g in plans] == [[0, 1, 2, 7]]*3


@pytest.mark.slow
def test_comparing_on_your_own_plans(project):
    mat(project/'data.mat', 60)
    pickled(project/'ResPlan.pkl', 60)
    printed = follow(project, 'Your own plans')
    assert 'up to date' in printed['dvc status data.dvc']
    page = (project/'reports'/'mine-main'/'comparison.md').read_text()
    assert 'llada_topp09_remdm_confidence_tsw05' in page
    about = open_tensors(project/'build/prepare/mine/tokens.safetensors')[1]
    assert about['source'] == 'inputs/mine.jsonl' and lock(project)['train@mine-v1']
    assert 'rank correlation' in shell(project, OF_MINE)
    assert (project/'reports'/'mine-record'/'fidelity.md').exists()


# ---- where the store cannot be read

def pull(at): return shell(at, 'make pull', ok=False)


def test_a_file_of_your_own_in_data_is_named_and_told_where_to_go(project):
    (project/'data'/'mine.txt').write_text('hello')
    code, printed = pull(project)
    (project/'data'/'mine.txt').unlink()
    assert (
        code == 2
        and "data/mine.txt: not one of the project's files; move yours: mkdir -p inputs && mv" in printed
        and 'store' not in printed
    )


def test_without_git_it_is_said(project):
    (project/'.git').rename(project/'git')
    try: code, printed = pull(project)
    finally: (project/'git').rename(project/'.git')
    assert (
        code == 2
        and 'DVC says: ' in printed
        and 'there is no .git folder here: get the project with git clone' in printed
    )


def test_files_that_the_store_lost_come_back_by_the_command_that_is_printed(tmp_path):
    at = clone(tmp_path/'remask')
    def size(path): return path.stat().st_size
    files = [p for p in (at/'.dvcstore'/'files').rglob('*') if p.is_file()]
    largest = max(files, key=size)
    largest.unlink()
    code, printed = pull(at)
    assert code == 2 and 'DVC says: ' in printed and 'run git checkout -- .dvcstore' in printed
    shell(at, re.search(r'run (git checkout -- \.dvcstore)', printed).group(1))
    assert largest.exists()


def test_pulling_a_text_that_was_never_trained_is_no_failure(project):
    "What was never made is not asked for; a name means all stages of a kind only where all were made"
    before = (project/'params.yaml').read_text()
    edit(project, 'corpora:\n  new: {source: inputs/new.txt}\ntexts: [new]')
    try: code, printed = pull(project)
    finally: (project/'params.yaml').write_text(before)
    assert code == 0, printed


# ---- the front page and the rest

@pytest.mark.slow
@pytest.mark.parametrize('command', [*FRONT, SAMPLED_AGAIN])
def test_the_front_page(tmp_path_factory, command):
    at = clone(tmp_path_factory.mktemp('front')/'remask')
    shell(at, 'remask profile smoke')
    assert 'remask: ' in shell(at, command) or command in ('make ablations', 'make repro')


@pytest.mark.slow
def test_a_change_that_trains_the_same_is_recorded(tmp_path):
    at, module = clone(tmp_path/'remask'), 'remask/core/loss.py'
    shell(at, 'make pull')
    (at/module).write_text((at/module).read_text() + '# a remark\n')
    names = ' '.join(store.pinned_stages(at/'dvc.yaml'))
    assert module in shell(at, f'dvc status {names}')
    assert 'dvc.lock' in shell(at, 'make commit')
    assert 'up to date' in shell(at, f'dvc status {names}')


def recorded(at):
    "The steps of the live runs of the methods in the project's store"
    found = runs(open_experiment(at, 'bubble-diagrams'))
    return {r.data.params['steps'] for r in found if 'steps' in r.data.params}


@pytest.mark.slow
def test_experiments_run_beside_the_working_tree_and_are_recorded_in_the_project(tmp_path):
    at = clone(tmp_path/'remask')
    shell(at, 'make pull')
    shell(at, 'remask profile smoke')
    shell(at, 'git commit -qam small')
    run, queue, start, show, apply = EXPERIMENTS
    shell(at, run)
    assert recorded(at) == {'12'}
    shell(at, queue)
    shell(at, start)
    while 'Success' not in (printed := shell(at, 'dvc queue status')):
        assert 'Failed' not in printed
        time.sleep(2)
    assert recorded(at) == {'10'}
    assert {'first', 'second'} <= set(re.findall(r'\w+', shell(at, show)))
    shell(at, apply, ok=False)                     # reports what nobody has made here
    assert read_params(at/'params.yaml')['run']['steps'] == 10
    assert 'up to date' in shell(at, 'dvc status compare')


@pytest.mark.slow
def test_samples_elsewhere(project, tmp_path):
    for step in steps(sections()['Samples elsewhere']):
        if step != 'make bench': shell(project, step.replace('/a/shared/folder', str(tmp_path/'shared')))


@pytest.mark.slow
def test_the_other_trainings_of_the_page(project):
    trainings = 'make train', 'make train-text', 'make train-answers'
    follow(project, 'Training again', only=trainings.__contains__)


@pytest.mark.slow
def test_one_stage_export_and_the_table_of_methods(tmp_path):
    at = clone(tmp_path/'remask')
    shell(at, 'make pull')
    shell(at, 'remask profile smoke')
    for command in [
        'source .venv/bin/activate',
        'nbdev_export',
        'nbdev_clean',
        'remask methods --to docs/pages/methods.md',
    ]:
        shell(at, command)
    page = 'docs/pages/methods.md'
    assert (at/page).read_text() == (ROOT/page).read_text()
    assert not [p for p in (at/'remask').glob('*.py') if p.read_text() != (ROOT/'remask'/p.name).read_text()]
    shell(at, 'remask-stage sample data=plans comparison=main method=llada_topp09_no_remask')
    assert (at/'reports/notebooks/sample-plans-main-llada_topp09_no_remask.ipynb').exists()


@pytest.mark.slow
def test_the_front_page_is_written_again_as_it_is(project):
    figure = project/'docs'/'remasking.gif'
    figure.unlink()
    assert 'README.md and docs/remasking.gif' in shell(project, 'make readme')
    assert (project/'README.md').read_text() == (ROOT/'README.md').read_text()
    assert 50_000 < figure.stat().st_size < 500_000


def served(project, port):
    "The server of `make ui`, and its lines up to the first address"
    server = subprocess.Popen(['bash', '-c', f'make ui PORT={port}'], cwd=project, text=True,
                              stdout=subprocess.PIPE, start_new_session=True,
                              env=os.environ | dict(PYTHONPATH=str(project), PYTHONUNBUFFERED='1'))
    lines = [server.stdout.readline()]
    while 'http' not in lines[-1] and lines[-1]: lines.append(server.stdout.readline())
    return server, lines


def listens(port): return socket.socket().connect_ex(('127.0.0.1', port)) == 0


@pytest.mark.slow
def test_the_page_shows_addresses_takes_a_free_port_and_leaves_it(project):
    open_experiment(project, 'bubble-diagrams')    # a store to show
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        server, (first, *_, address) = served(project, port)
        assert first.startswith(f'remask: port {port} is taken')
        other = int(re.search(r'http://127.0.0.1:(\d+)/#/experiments/', address)[1])
        assert other > port
        while not listens(other): time.sleep(.5)
        os.killpg(server.pid, signal.SIGINT)
        server.wait(60)
        assert not listens(other)


def test_a_stored_network_is_shown_at_work_from_any_folder(project):
    for command in DEMOS:
        printed = shell(project, command.replace('remask', 'cd nbs && remask', 1))
        assert 'tokens were remasked' in printed or 'min(eta, sigma_max)' in printed
    for what, judged in [('text', 'tokens were remasked'), ('answers', 'right: ')]:
        assert judged in shell(project, f'remask demo {what}')
    code, printed = shell(project, 'remask demo plans --method remedi', ok=False)
    assert code == 2 and "none is stored for plans; try it on answers" in printed
    record = shell(project, 'remask demo answers --prompt 12+34 --json')
    assert json.loads(record[record.index('{'):])['question'] == '12+34'


def test_the_stored_comparison_is_shown_without_sampling(project):
    began = time.time()
    printed = shell(project, 'make look')
    assert 'heldout' in printed and 'inside_validity' in printed
    for name in 'pareto', 'heat_map':
        assert (project/'reports'/'look'/f'{name}.png').stat().st_mtime > began


SIZES = {
    'answer=256': 'answer=32',
    'block=32': 'block=8',
    'steps=256': 'steps=8',
    'head_steps=2000': 'head_steps=2',
    'test_rows=100': 'test_rows=2',
    '(256, 32, 256,': '(32, 8, 8,',
    ', 256, how': ', 32, how',
}


def small(text): # the same command, at tiny sizes
    for large, tiny in SIZES.items(): text = text.replace(large, tiny)
    return text


@pytest.fixture(scope='module')
def foreign(project):
    "A small model in LLaDA's format where the loader searches for the hub's name, and the files of README.md"
    pytest.importorskip('transformers')
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import published

    published.save(
        project / 'GSAI-ML' / 'LLaDA-8B-Instruct',
        'llada',
        published.network('llada', max_sequence_length=128),
        max_sequence_length=128,
    )
    (project/'mine.txt').write_text('12+7=\n(3+4)*2=\n')
    sums = [f'{a}+{b}=\t{a + b}\n' for a in range(10, 20) for b in range(4)]
    (project/'pairs.tsv').write_text(''.join(sums))
    rows = [dict(question=f'{a} and {a}?', answer=f'{a}+{a}=\n#### {2*a}') for a in range(10, 14)]
    (project/'test.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    return project


def test_the_page_of_the_real_llada(foreign):
    "Word for word, with a small model of that family in place of the 8B one"
    page = sections()[FOREIGN_MODEL]
    inspected, staged, harness = steps(page)
    printed = shell(foreign, inspected)
    assert 'family' in printed and 'no mask is followed: rows by length' in printed and 'MASK' in printed
    shell(foreign, small(staged))
    report = (foreign/'build'/'llada'/'report.md').read_text()
    assert (
        '| remask_ups |' in report
        and '## repair' in report
        and (foreign / 'build' / 'llada' / 'ups.safetensors').exists()
    )
    python = next(b for b in blocks(page) if is_python(b))
    printed = shell(
        foreign, f"python - <<'E'\n{small(python).replace('hub.answers(', 'print(hub.answers(').rstrip()})\nE"
    )
    assert re.search(r"\['.*'\]", printed)


def test_the_arguments_of_the_page_for_the_harness(foreign):
    "The command itself is run in test_harness, on a task that is at hand"
    pytest.importorskip('lm_eval')
    harness = steps(sections()[FOREIGN_MODEL])
    *_, words = (s.split() for s in harness)
    assert words[:3] == ['python', '-m', 'remask.lm.harness'] and '--apply_chat_template' in words
    from remask.lm.harness import load_harness_lm, read_model_args
    given = dict(a.split('=') for a in words[words.index('--model_args') + 1].split(','))
    given |= dict(
        pretrained=str(foreign / given['pretrained']),
        trust_remote_code=True,
        answer=int(given['answer']),
        block=int(given['block']),
    )
    lm = load_harness_lm(read_model_args(given | dict(answer=32, block=8)))
    assert lm.apply_chat_template([dict(role='user', content='1+1')]) == '1+1='
