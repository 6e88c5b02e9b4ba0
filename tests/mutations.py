"""Mutations of a module: one operator, comparison, bound, constant, side or type at a time.

`python tests/mutations.py docs/mutations.json core/forward core/loss` tries a sample of each module and
writes what noticed it; without names, of all of GUARDS. What was tried on the same code is kept."""
import ast, hashlib, importlib, inspect, json, os, signal, sys, tempfile, time
from collections import Counter
from pathlib import Path
from typing import NamedTuple
import pytest
from hypothesis import settings
from notebooks import ROOT, cells, exported, is_code, parse, source

GUARDS = {}   # module -> notebook, files of tests, which of them
GUARDS['core/loss'] = '1_core/09_loss', 'test_train.py', 'published_loss or capped or bound or never_occurs'
GUARDS['core/schedules'] = ('1_core/05_schedules', 'test_train.py test_rate_network.py',
                            'log_uniform or is_refused or is_a_schedule')
GUARDS['core/forward'] = ('1_core/07_forward', 'test_forward.py test_rate_network.py',
                          'share or gaps or lie or other or last_id or decoys or straight')
GUARDS['core/tokens'] = '1_core/02_tokens', 'test_tokens.py test_registry.py', 'special or equal'
GUARDS['core/sampler'] = ('1_core/12_sampler', 'test_registry.py', 'little or smallest or denies or foreign '
                          'or returns or decisions and (remdm_cap or gibbs or wino or star)')
GUARDS['core/fast'] = '1_core/13_fast', 'test_fast.py', 'not statistics and not generate_rows'
GUARDS['core/statistics'] = '1_core/14_statistics', 'test_text_metrics.py', 'divergence'
GUARDS['lm/blocks'] = '5_lm/01_blocks', 'test_blocks.py', 'not frequencies and not trains_in_fit'
GUARDS['evaluate/graph_metrics'] = '6_evaluate/01_graph_metrics', 'test_graph_metrics.py', 'test'
GUARDS['evaluate/answer_metrics'] = '6_evaluate/03_answer_metrics', 'test_answer_metrics.py', 'test'
GUARDS['evaluate/text_metrics'] = '6_evaluate/02_text_metrics', 'test_text_metrics.py', 'test'
KEPT = ROOT/'build'/'mutations'
ALWAYS = 'token_weights bound 1', 'nucleus type 1'   # were not noticed once, and change what is computed
NUMBER, SECONDS = 10, 120   # mutations of a module; of the processor for each, after which it is noticed

# Mutations that change nothing, and why: reason -> what is written, before and after
HARMLESS = {}
HARMLESS['a number drawn or computed meets this bound with probability 0'] = [
    'check_schedule: rise.max() > 1e-09 -> rise.max() >= 1e-09',
    '_Guard.__call__: (out >= self.low - 1e-09) & (out <= self.high + 1e-09) -> '
    '(out >= self.low - 1e-09) & (out < self.high + 1e-09)',
    'kl: np.where(p > 1e-10, p, 0) -> np.where(p >= 1e-10, p, 0)',
    'decoys: torch.where(v < kept, x0, x) -> torch.where(v <= kept, x0, x)']
HARMLESS['a processor sorts stably even where it is not asked to'] = ['top: stable=True -> stable=False']
HARMLESS['zero and one are exact in either type'] = ['remask_below: st.masked.double() -> st.masked.float()']
HARMLESS['logits of networks are single, and their differences double in either case'] = [
    'suppress_eos: st.logits.gather(-1, draft).double() -> st.logits.gather(-1, draft).float()']
HARMLESS['a pattern that is known already is looked up again, with the same result'] = [
    'tabulated: same = last is not None and real.shape == last.shape and real.equal(last) -> '
    'same = last is not None and real.shape != last.shape and real.equal(last)']
REASON = {what: reason for reason, some in HARMLESS.items() for what in some}

OPPOSITE = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq}
OPPOSITE |= {ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
BOUND = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
OPERATORS |= {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult, ast.FloorDiv: ast.Div}
SIDES = dict(minimum='maximum', amin='amax', min='max', argmin='argmax', any='all', sum='mean', floor='ceil')
SIDES |= {b: a for a, b in SIDES.items()}
TYPES = dict(double='float', float='double', float64='float32', long='double')
TEXT = ast.Raise, ast.JoinedStr, ast.Assert   # what only words an error


def replaced(field, table):
    "A change of one field of a node, by a table"
    def change(node):
        old = getattr(node, field)
        key = old if isinstance(old, str) else type(old)
        setattr(node, field, table[key] if isinstance(old, str) else table[key]())
    return change


def other_comparison(table):
    def change(node): node.ops[0] = table[type(node.ops[0])]()
    return change


def other_constant(node): node.value = not node.value if isinstance(node.value, bool) else node.value + 1


def variants(node):
    "What can be changed in a node: (kind, change in place)"
    if isinstance(node, ast.Compare):
        first = type(node.ops[0])
        tables = dict(comparison=OPPOSITE, bound=BOUND)
        return [(kind, other_comparison(table)) for kind, table in tables.items() if first in table]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return [('operator', replaced('op', OPERATORS))]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [('sign', replaced('op', {ast.USub: ast.UAdd}))]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        return [('constant', other_constant)]
    if isinstance(node, ast.Attribute):
        tables = dict(side=SIDES, type=TYPES)
        return [(kind, replaced('attr', table)) for kind, table in tables.items() if node.attr in table]
    return []


def inside(node):
    "A node and those below it, without annotations, decorators and what words an error"
    yield node
    for name, value in ast.iter_fields(node):
        if name in ('annotation', 'returns', 'decorator_list'): continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, TEXT): yield from inside(child)


def plain(function):
    "Not decorated, or by what can be unwrapped"
    return all('no_grad' in ast.unparse(d) for d in function.decorator_list)


def functions(tree):
    "(name, node) of the functions and methods of a module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and plain(node): yield node.name, node
        if not isinstance(node, ast.ClassDef): continue
        methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and plain(n)]
        yield from ((f'{node.name}.{n.name}', n) for n in methods)


def line_of(function, node):
    "The smallest statement or expression around a node that says where it is"
    wide = ast.stmt, ast.BinOp, ast.Compare, ast.Call, ast.keyword
    around = [n for n in ast.walk(function) if isinstance(n, wide) and node in ast.walk(n) and n is not node]
    simple = [n for n in around if not isinstance(n, (ast.FunctionDef, ast.For, ast.If, ast.While, ast.With))]
    texts = [ast.unparse(n) for n in simple or [node]]
    return min(texts, key=len).replace('\n', ' ')


class Mutation(NamedTuple):
    function: int  # its number in the module
    node: int      # its number in the function
    variant: int   # of what can be changed there
    kind: str
    name: str      # of the function, the kind and the how manieth of it


def mutations(text):
    "Every mutation of a module"
    found, seen = [], Counter()
    for at, (name, function) in enumerate(functions(ast.parse(text))):
        for k, node in enumerate(inside(function)):
            for j, (kind, _) in enumerate(variants(node)):
                seen[name, kind] += 1
                found.append(Mutation(at, k, j, kind, f'{name} {kind} {seen[name, kind]}'))
    return found


def mutated(text, mutation):
    "What is written where a mutation is, before and after, and the mutated module"
    tree = ast.parse(text)
    name, own = [*functions(tree)][mutation.function]
    node = [*inside(own)][mutation.node]
    before = line_of(own, node)
    variants(node)[mutation.variant][1](node)
    return f'{name}: {before} -> {line_of(own, node)}', ast.unparse(ast.fix_missing_locations(tree))


def digest(mutation): return hashlib.sha256(mutation.name.encode()).digest()


def sample(found, number=NUMBER):
    "Some of them: those of ALWAYS, then each kind in turn, by their digests"
    by_kind = {}
    for mutation in sorted(found, key=digest): by_kind.setdefault(mutation.kind, []).append(mutation)
    turns = [(k, kind, m) for kind, some in by_kind.items() for k, m in enumerate(some)]
    first = [m for m in found if m.name in ALWAYS]
    others = [m for *_, m in sorted(turns) if m not in first]
    return (first + others)[:number]


# ---- what notices

def put(module, text):
    "Give the functions of a module the code of a mutated text"
    space = dict(__name__=module.__name__, __package__=module.__package__, __file__=module.__file__)
    exec(compile(text, module.__file__, 'exec'), space)
    for name, _ in functions(ast.parse(text)):
        owner, _, own = name.rpartition('.')
        old = vars(getattr(module, owner))[own] if owner else getattr(module, own)
        new = vars(space[owner])[own] if owner else space[own]
        old, new = inspect.unwrap(old), inspect.unwrap(new)
        for part in '__code__', '__defaults__', '__kwdefaults__': setattr(old, part, getattr(new, part))


def run_notebook(path, module):
    "The cells that are not exported"
    os.chdir(path.parent)
    space = dict(vars(module), __name__='__main__')
    for cell in cells(path):
        if not is_code(cell) or exported(cell): continue
        exec(compile(parse(source(cell)), path.name, 'exec'), space)


def noticed_by(module, text, guard):
    "'notebook', 'tests', 'time' or '' where nothing notices: all of it in a process of its own"
    notebook, tests, which = guard
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(5*SECONDS)   # of the clock, where it waits
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in 1, 2: os.dup2(null, stream)
        try:
            put(module, text)
            run_notebook(ROOT/'nbs'/f'{notebook}.ipynb', module)
        except BaseException: os._exit(1)
        os.chdir(ROOT)
        files = [str(ROOT/'tests'/name) for name in tests.split()]
        args = [*files, '-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', '-k', which]
        os._exit(2 if pytest.main(args) else 0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status): return 'time'
    return ('', 'notebook', 'tests')[os.waitstatus_to_exitcode(status)]


def digest_of(guard):
    "Of all code that a verdict depends on"
    files = [*sorted((ROOT/'remask').rglob('*.py')), ROOT/'nbs'/f'{guard[0]}.ipynb']
    files += [ROOT/'tests'/name for name in guard[1].split()]
    total = hashlib.sha256(repr(guard).encode())
    for path in files: total.update(path.read_bytes())
    return total.hexdigest()


def examine(name, seconds=3600):
    "Try a sample of the mutations of a module, for some seconds; {mutation: what noticed it}"
    guard, path = GUARDS[name], KEPT/f'{name.replace("/", "-")}.json'
    text = (ROOT/'remask'/f'{name}.py').read_text()
    code = digest_of(guard)
    kept = json.loads(path.read_text()) if path.is_file() else {}
    verdicts = kept['verdicts'] if kept.get('code') == code else {}
    module, end = importlib.import_module('remask.' + name.replace('/', '.')), time.monotonic() + seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    if not verdicts and noticed_by(module, text, guard): raise SystemExit(f'{name}: fails as it is')
    for mutation in sample(mutations(text)):
        if time.monotonic() > end: break
        what, changed = mutated(text, mutation)
        if what not in verdicts: verdicts[what] = noticed_by(module, changed, guard)
        path.write_text(json.dumps(dict(code=code, verdicts=verdicts), indent=1))
    return verdicts


def record(verdicts):
    "The counts of a module, and what nothing noticed with the reason why it changes nothing"
    left = [key for key, by in verdicts.items() if not by]
    ways = [by for by in verdicts.values() if by]
    counts = {by: ways.count(by) for by in ('notebook', 'tests', 'time')}
    return dict(tried=len(verdicts), **counts, left={key: REASON.get(key, '') for key in sorted(left)})


def main(page, *names):
    settings.register_profile('same', derandomize=True, database=None)
    settings.load_profile('same')
    os.environ['MPLBACKEND'] = 'Agg'
    tempfile.tempdir = tempfile.mkdtemp()
    path = Path(page).resolve()
    counts = json.loads(path.read_text()) if path.is_file() else {}
    for name in names or GUARDS:
        counts[name] = record(examine(name))
        path.write_text(json.dumps(counts, indent=1) + '\n')
        print(name, json.dumps(counts[name], indent=1), flush=True)


if __name__ == '__main__': main(*sys.argv[1:])
