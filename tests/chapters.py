"""The chapters of the library and their imports: `python tests/chapters.py` writes their map into PAGE."""
import ast
from notebooks import FOLDERS, ROOT, cells, exported, parse, source

PAGE = ROOT/'docs'/'pages'/'notebooks.md'
BEGIN, END = '<!-- chapters -->\n', '<!-- end of chapters -->'


def arrows():
    "{(importing chapter, imported chapter)} of exported cells"
    found = set()
    for folder in FOLDERS:
        for c in (c for p in sorted(folder.glob('*.ipynb')) for c in cells(p) if exported(c)):
            modules = [n.module for n in ast.walk(parse(source(c))) if isinstance(n, ast.ImportFrom)]
            found |= {(folder.name[2:], m.split('.')[1]) for m in modules if m.startswith('remask.')}
    return {(a, b) for a, b in found if a != b}


def summary(notebook):
    "The one line below a notebook's title"
    return source(cells(notebook)[0]).partition('\n> ')[2].strip()


def page():
    "The map: a diagram of the chapters, and a table of their notebooks"
    lines = ['```mermaid', 'graph BT', *(f'  {a} --> {b}' for a, b in sorted(arrows())), '```', '']
    for folder in FOLDERS:
        lines += [f'**`nbs/{folder.name}/`**', '', '| | |', '|---|---|']
        lines += [f'| `{p.stem}` | {summary(p)} |' for p in sorted(folder.glob('*.ipynb'))] + ['']
    return '\n'.join(lines)


if __name__ == '__main__':
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + page() + END + after)
