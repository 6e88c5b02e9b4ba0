"""How dense code is: syntax-tree nodes of a simple statement, lambdas, nested comprehensions.

`python tests/density.py FILE...` prints the figures of modules and notebooks
(exported cells, then all others).
"""
import ast, pathlib, sys
from typing import NamedTuple
from notebooks import cells, exported as is_exported, is_code, parse, source

SIMPLE = ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr, ast.Raise, ast.Assert, ast.Delete
COMPREHENSIONS = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp


class Density(NamedTuple):
    statements: int
    mean: float      # nodes a statement
    above: float     # share of the statements above 40 nodes
    most: int        # nodes of the largest statement
    lambdas: int
    lines: int       # that are not blank
    crowded: list    # functions with more than one lambda
    nested: list     # functions with comprehensions nested deeper than two


def is_docstring(n): return isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)


def depth(n):
    "How deep comprehensions are nested below a node"
    inner = max((depth(c) for c in ast.iter_child_nodes(n)), default=0)
    return inner + isinstance(n, COMPREHENSIONS)


def own_lambdas(function):
    "Lambdas of a function that are in no function within it"
    todo, found = [*ast.iter_child_nodes(function)], 0
    while todo:
        n = todo.pop()
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)): continue
        found += isinstance(n, ast.Lambda)
        todo += ast.iter_child_nodes(n)
    return found


def density(texts):
    "Measure pieces of Python"
    texts = list(texts)
    every = [n for t in texts for n in ast.walk(parse(t))]
    statements = [n for n in every if isinstance(n, SIMPLE) and not is_docstring(n)]
    sizes = [len([*ast.walk(n)]) for n in statements] or [0]
    mean = sum(sizes)/len(sizes)
    above = sum(s > 40 for s in sizes)/len(sizes)
    lambdas = sum(isinstance(n, ast.Lambda) for n in every)
    lines = sum(bool(l.strip()) for t in texts for l in t.splitlines())
    functions = [n for n in every if isinstance(n, ast.FunctionDef)]
    crowded = [f.name for f in functions if own_lambdas(f) > 1]
    nested = [f.name for f in functions if depth(f) > 2]
    return Density(len(sizes), mean, above, max(sizes), lambdas, lines, crowded, nested)


def code(path, exported):
    "The code cells of a notebook that are exported, or that are not; of a module, all of it"
    if path.suffix == '.py': return [path.read_text()] if exported else []
    return [source(c) for c in cells(path) if is_code(c) and is_exported(c) == exported]


def show(path, exported, d):
    which = 'exported' if exported else 'others'
    print(f'{path.stem:20} {which:9} mean {d.mean:5.1f}', end='  ')
    print(f'above 40 {d.above:6.1%}  most {d.most:4}', end='  ')
    print(f'lambdas {d.lambdas:3} in {d.lines:4} lines ', d.crowded or '', d.nested or '')


if __name__ == '__main__':
    for path in map(pathlib.Path, sys.argv[1:]):
        for exported in True, False:
            if texts := code(path, exported): show(path, exported, density(texts))
