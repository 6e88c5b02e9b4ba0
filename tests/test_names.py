"""Names that a notebook uses are defined in it or imported; keywords are those of the function."""
import ast, builtins, importlib, inspect
import pytest
from notebooks import ROOT, cells, ids, is_code, parse, source

NOTEBOOKS = sorted((ROOT/'nbs').rglob('*.ipynb'))
GIVEN = {*dir(builtins), 'get_ipython', 'display'}


def star(module):
    "What `from module import *` defines"
    library = importlib.import_module(module)
    return getattr(library, '__all__', [name for name in vars(library) if not name.startswith('_')])


def imported(node):
    for alias in node.names:
        if alias.name == '*': yield from star(node.module)
        elif isinstance(node, ast.Import): yield (alias.asname or alias.name).split('.')[0]
        else: yield alias.asname or alias.name


def defined(node):
    "The names that a node of the syntax tree defines"
    if isinstance(node, (ast.Import, ast.ImportFrom)): return set(imported(node))
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)): return {node.name}
    if isinstance(node, ast.arg): return {node.arg}
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs)) and node.name: return {node.name}
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load): return {node.id}
    return set()


def undefined(texts):
    nodes = [node for text in texts for node in ast.walk(parse(text))]
    known = GIVEN.union(*map(defined, nodes))
    return sorted({n.id for n in nodes if isinstance(n, ast.Name) and n.id not in known})


@pytest.mark.parametrize('path', NOTEBOOKS, ids=ids)
def test_every_name_is_defined(path):
    assert undefined([source(c) for c in cells(path) if is_code(c)]) == []


def test_an_undefined_name_is_found():
    assert undefined(['from math import *\ndef f(x): return g(sin(x))', '[y for y in [f]]']) == ['g']


def library_names(nodes):
    "The objects of the library that a notebook imports and does not define anew: name -> object"
    found, own = {}, set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.startswith('remask.'):
            module = importlib.import_module(node.module)
            found |= {name: getattr(module, name) for name in imported(node) if hasattr(module, name)}
        elif not isinstance(node, (ast.Import, ast.ImportFrom)): own |= defined(node)
    return {name: f for name, f in found.items() if name not in own and callable(f)}


def takes(f, keyword):
    parameters = inspect.signature(f).parameters.values()
    return any(p.name == keyword or p.kind == p.VAR_KEYWORD for p in parameters)


def wrong_keywords(texts):
    nodes = [node for text in texts for node in ast.walk(parse(text))]
    known = library_names(nodes)
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name): continue
        f = known.get(node.func.id)
        for k in node.keywords:
            if f and k.arg and not takes(f, k.arg): yield f'{node.func.id}({k.arg}=)'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=ids)
def test_every_keyword_is_a_parameter(path):
    assert [*wrong_keywords([source(c) for c in cells(path) if is_code(c)])] == []


def test_a_wrong_keyword_is_found():
    text = 'from remask.core.forward import *\ndecoys(spans(n=2), 1, shown=1)'
    assert [*wrong_keywords([text])] == ['decoys(shown=)']
