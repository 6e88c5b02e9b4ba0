"""Reading the project's notebooks: their cells, and which of them are exported."""
import ast, json, pathlib, re

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = sorted((ROOT/'nbs').glob('[0-9]_*')) # of the chapters, in their order


def cells(path): return json.loads(path.read_text())['cells']
def source(c): return ''.join(c['source'])
def is_code(c): return c['cell_type'] == 'code'
def directives(c): return [l.strip() for l in source(c).splitlines() if l.lstrip().startswith('#|')]
def exported(c): return is_code(c) and any(re.match(r'#\|\s*export\b', d) for d in directives(c))


def ids(path): return f'{path.parent.name}/{path.stem}' # of a notebook, as a case of a test


def parse(text):
    "Parse Python with the magics and directives of notebooks"
    return ast.parse(
        '\n'.join('' if l.lstrip().startswith(('%', '!', '#|')) else l for l in text.splitlines())
    )
