"""Write the pages of the site into build/site: `python docs/build.py`, which `make site` runs.

Nothing is written here that is not in README.md, docs/pages, LOG.md, the notebooks, the docstrings, or what
`make faults` counted."""
import functools, importlib, inspect, json, pathlib, posixpath, re, shutil
import matplotlib.pyplot as plt, nbformat, remask, torch, yaml
from nbconvert import MarkdownExporter
from nbdev.showdoc import BasicMarkdownRenderer, show_doc
from remask._modidx import d as MODULES
from remask.core.exact import brackets
from remask.core.plot import show_trajectory
from remask.core.sampler import Process, sample
from remask.core.schedules import linear
from remask.methods.catalogue import CATALOGUE, CONSTRUCTORS, METHOD_INFO
from remask.methods.exact_benchmark import exact_with_heads
from remask.methods.published import compared
from remask.methods.registry import get_method

ROOT = pathlib.Path(__file__).parents[1]
SITE = ROOT/'build'/'site'
OWN_PAGE = dict(notebooks='notebooks', methods='methods') # pages of docs/pages that are a part of the site
HOW_TO = [
    'own-model', 'own-method', 'own-plans', 'own-text', 'own-questions', 'real-llada', 'training-again',
    'comparing-revisions', 'samples-elsewhere', 'cluster',
]
PROJECT = ['domains', 'experiments', 'work', 'layout', 'platforms'] # beside the front page
OUTPUTS = 'The pages show the outputs that are stored in the notebooks; building the site runs none of them.'
NO_CONTENTS = '---\nhide: [toc]\n---\n' # the table of contents leaves its width to the page
STEPS, ROWS, LENGTH = 16, 20, 10 # of the picture of a method


def slug(title): return re.sub(r'\W+', '-', title.lower()).strip('-')


def row(cells): return f"| {' | '.join(cells)} |"


def table(head, rows):
    "Lines of Markdown"
    return '\n'.join([row(head), '|---'*len(head) + '|', *map(row, rows), ''])


def refuse(why): raise SystemExit(f'docs/build.py: {why}')


def write(page, text):
    path = SITE/'pages'/page
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# ---- links

@functools.cache
def notebooks():
    "{name without folder nbs and ending: path}, in the order in which to read them"
    found = sorted((ROOT/'nbs').glob('[0-9]_*/*.ipynb')) + sorted((ROOT/'nbs').glob('experiments/*/*.ipynb'))
    return {str(p.relative_to(ROOT/'nbs').with_suffix('')): p for p in found}


def named(title):
    "The page of the notebook with this name, whatever its number"
    for name in notebooks():
        if re.fullmatch(rf'.*/\d\d_{title}', name): return f'notebooks/{name}.md'
    refuse(f'there is no notebook {title} in nbs')


@functools.cache
def targets():
    "{name in backticks: page}: notebooks, and names of the library"
    pages = {name: f'notebooks/{name}.md' for name in notebooks()}
    pages |= {f'nbs/{name}.ipynb': page for name, page in pages.items()}
    pages |= {posixpath.basename(name): page for name, page in pages.items() if re.match(r'\d_', name)}
    for module, names in MODULES['syms'].items():
        for name in names: pages[name] = f'api/{module}.md#{name.removeprefix(module + ".")}'
    pages |= {f'remask.{name}': pages[f'remask.{module}.{name}'] for name, module in remask._FACE.items()}
    return pages


def address(target, page): return posixpath.relpath(target, posixpath.dirname(page) or '.')


def linked(text, page):
    "A page whose words in backticks are links where they name a notebook or a function"
    def link(m): return f'[{m[0]}]({address(targets()[m[1]], page)})' if m[1] in targets() else m[0]
    lines, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith('```')
        plain = fenced or line.startswith(('#', '    ', '<'))
        lines.append(line if plain else re.sub(r'(?<!\[)`([^`]+)`(?!\])', link, line))
    return '\n'.join(lines) + '\n'


# ---- README.md and docs/pages

def sections(folder=ROOT/'docs'/'pages'):
    "{name: text of a page without its title}"
    found = {path.stem: path.read_text().partition('\n')[2] for path in sorted(folder.glob('*.md'))}
    known = [*HOW_TO, *PROJECT, *OWN_PAGE]
    for name in known:
        if name not in found: refuse(f'there is no page docs/pages/{name}.md; mend the lists above')
    for name in found:
        if name not in known: refuse(f'docs/pages/{name}.md is on no list: add it to HOW_TO or PROJECT')
    return found


def title(name):
    "The heading of a page of docs/pages"
    return (ROOT/'docs'/'pages'/f'{name}.md').read_text().partition('\n')[0].removeprefix('# ')


def place(name):
    "Where a page of docs/pages is on the site"
    if name in OWN_PAGE: return f'{OWN_PAGE[name]}/index.md'
    return f'how-to/{name}.md' if name in HOW_TO else f'{name}.md'


FILES = {'LOG.md': 'log/index.md', 'CHANGELOG.md': 'changelog.md', 'CONTRIBUTING.md': 'contributing.md',
         'docs/remasking.gif': 'remasking.gif'}


def moved(text, page):
    "A text whose links to files of the repository lead to their places on the site"
    def to(m):
        name = re.fullmatch(r'(?:docs/pages/)?([\w-]+)\.md', m[1])
        if m[1] in FILES: return f']({address(FILES[m[1]], page)})'
        return f']({address(place(name[1]), page)})' if name and name[1] in known else m[0]
    known = {path.stem for path in (ROOT/'docs'/'pages').glob('*.md')}
    return re.sub(r'\]\(([^)#]+)\)', to, text)


def start(page='index.md'):
    "The front page"
    return moved((ROOT/'README.md').read_text(), page)


def write_readme(found):
    write('index.md', linked(start(), 'index.md'))
    shutil.copy(ROOT/'docs'/'remasking.gif', SITE/'pages')
    chapters = re.sub(r'```mermaid\n(.*?)```\n', imports_table, found['notebooks'], flags=re.S)
    chapters = re.sub(r'\*\*`nbs/(.*?)/`\*\*(.*?)(?=\*\*|<!--)', chapter_table, chapters, flags=re.S)
    write('notebooks/index.md', linked(f'# The notebooks\n\n{OUTPUTS}\n{chapters}', 'notebooks/index.md'))
    for name in [*HOW_TO, *PROJECT]:
        text = moved(f'# {title(name)}\n{found[name]}', place(name))
        write(place(name), linked(text, place(name)))
    for name in 'CHANGELOG', 'CONTRIBUTING':
        page = f'{name.lower()}.md'
        write(page, linked(moved((ROOT/f'{name}.md').read_text(), page), page))


def pages_of(names): return [{title(name): place(name)} for name in names]


def imports_table(m):
    "The arrows of the diagram of chapters as rows of a table, which needs no script"
    arrows = {}
    for a, b in re.findall(r'(\w+) --> (\w+)', m[1]): arrows.setdefault(a, []).append(b)
    return table(['chapter', '→'], [[a, ', '.join(to)] for a, to in arrows.items()])


def chapter_table(m):
    "The table of a chapter, whose notebooks are named with their folder"
    return f'## {m[1]}\n' + re.sub(r'^\| `', f'| `{m[1]}/', m[2], flags=re.M)


# ---- notebooks

TEMPLATE = """{%- extends 'markdown/index.md.j2' -%}
{% block in_prompt %}{% endblock %}
{% block input %}
`````python
{{ cell.source }}
`````
{% endblock %}
{% macro printed(text) %}
````` { .text .output }
{{ text | strip_ansi | trim('\\n') }}
`````
{% endmacro %}
{% block stream %}{{ printed(output.text) }}{% endblock %}
{% block data_text scoped %}{{ printed(output.data['text/plain']) }}{% endblock %}
{% block data_html scoped %}
{{ output.data['text/html'] | plain_table }}
{% endblock %}
"""


def plain_table(html):
    "A table of pandas without its style"
    html = re.sub(r'<style.*?</style>', '', html, flags=re.S)
    return re.sub(r'\n\s*', '\n', re.sub(r' (border|class|style)="[^"]*"', '', html)).strip()


def is_hidden(cell): return re.match(r'\s*#\|\s*(hide|default_exp)', cell.source)


def defined(source):
    "The names that an exported cell defines"
    if not re.search(r'^#\|\s*export', source, re.M): return []
    return re.findall(r'^(?:class|def) (\w+)', source, re.M)


def shown(cells):
    "The cells a reader sees, without directives; a target of links before each definition"
    for cell in cells:
        if is_hidden(cell): continue
        if cell.cell_type == 'code':
            for name in defined(cell.source): yield nbformat.v4.new_markdown_cell(f'<a id="{name}"></a>')
            cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
            cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
        if cell.source: yield cell


@functools.cache
def exporter(): return MarkdownExporter(raw_template=TEMPLATE, filters={'plain_table': plain_table})


def write_notebook(name, path):
    "The page of a notebook with the outputs that are stored in it; its title"
    nb, page = nbformat.read(path, as_version=4), f'notebooks/{name}.md'
    nb.cells = [*shown(nb.cells)]
    names = dict(unique_key=path.stem, output_files_dir=f'{path.stem}_files')
    text, made = exporter().from_notebook_node(nb, names)
    write(page, linked(text, page))
    for file, data in made['outputs'].items():
        to = (SITE/'pages'/page).parent/file
        to.parent.mkdir(exist_ok=True)
        to.write_bytes(data)
    return {re.search(r'^# (.*)', text, re.M)[1]: page}


def write_notebooks():
    nav = {}
    for name, path in notebooks().items():
        made = write_notebook(name, path)
        chapter = nav.setdefault(posixpath.dirname(name), [])
        if named('glossary') not in made.values(): chapter.append(made)
    return ['notebooks/index.md', *({folder.replace('/', ', '): pages} for folder, pages in nav.items())]


# ---- methods

@functools.cache
def exact_model():
    "The model of the pictures, and its exact denoiser"
    model = brackets(LENGTH)
    return model, exact_with_heads(model)


def run(method):
    "The ids of ROWS rows after every step: (S,ROWS,L)"
    model, denoise = exact_model()
    states = [torch.full((ROWS, LENGTH), model.space.mask)]
    times = method.times(STEPS, linear, torch.ones(1, LENGTH, dtype=torch.bool))
    process = Process(denoise, linear, model.space)
    def note(st, x, keep): states.append(x)
    sample(process, states[0], times, method.policy, method.draw, callback=note, check=False)
    return torch.stack(states)


def most_changed(states, mask):
    "The row whose unmasked tokens were changed or masked again most often"
    before, after = states[:-1], states[1:]
    return ((before != mask) & (after != before)).sum((0, 2)).argmax()


def draw(name):
    states, (model, _) = run(CATALOGUE[name]), exact_model()
    chosen = most_changed(states, model.space.mask)
    ax = show_trajectory(states[:, chosen], model.space, model.names)
    ax.figure.savefig(SITE/'pages'/'methods'/f'{name}.png', dpi=160, bbox_inches='tight')
    plt.close(ax.figure)


def cells(line): return [cell.strip() for cell in line.strip('| ').split(' | ')]


def method_rows(text):
    "{method: (heading, cell) of its row} of the table of docs/pages/methods.md"
    head, _, *rows = [cells(line) for line in text.splitlines() if line.startswith('|')]
    return {first.strip('`'): [*zip(head, (first, *rest))] for first, *rest in rows}


def parameters(make):
    "A table of the parameters of a constructor, and their defaults"
    given = inspect.signature(make).parameters.values()
    rows = [[f'`{p.name}`', f'`{p.default!r}`'] for p in given]
    return table(['parameter', 'default'], rows) if rows else ''


def example(found, name):
    "The call of the page on models of one's own, with this method"
    call = re.search(r'^out = remask\.generate.*', found['own-model'], re.M)[0]
    return re.sub(r"method='\w+'", f"method='{name}'", call)


# ---- results of a method: the stored comparison of plans, and the findings that name it

COLUMNS = {'coverage/unique_archetypes': 'archetypes', 'validity/inside_validity': 'inside validity',
           'distribution/edge_js': 'edge JS', 'coverage/diversity': 'diversity', 'cost/nfe': 'NFE'}
CAPITALS = {'P2': 'p2', 'RCR': 'rcr', 'DFM': 'dfm', 'Gibbs': 'gibbs', 'WINO': 'wino', 'PRISM': 'prism',
            'RemeDi': 'remedi', 'Tolerator': 'tolerator', 'self-masking': 'self_masking'}


@functools.cache
def stored_results(): return json.loads((ROOT/'docs'/'results.json').read_text())


@functools.cache
def families():
    "{method: names of its rows in the stored comparison}"
    found = {}
    for name in stored_results()['methods']:
        if name == 'heldout': continue
        found.setdefault(get_method(compared(name).id).family, []).append(name)
    return found


def interval(known, metric):
    "Mean and spread over the seeds"
    if metric not in known: return '-'
    mean, spread = known[metric]
    digits = 0 if mean >= 20 and not spread else 1 if mean >= 20 else 4
    return f'{mean:.{digits}f}' + (f' ± {spread:.{digits}f}' if spread else '')


def plans_results(name):
    "The rows of the stored comparison that are of this method, and the held-out reference"
    found = stored_results()
    if name not in families(): return []
    names = [*families()[name], 'heldout']
    rows = [[f'`{n}`', *(interval(found['methods'][n], m) for m in COLUMNS)] for n in names]
    size = f"{len(found['seeds'])} seeds of {found['samples']} plans, {found['steps']} steps"
    said = f'Floor plans ({size}; mean ± deviation over seeds):'
    return [said, table(['', *COLUMNS.values()], rows)]


def spoken(log):
    "{word of LOG.md: method}: names as they are and as they were, and how the papers write them"
    former = re.findall(r'^\| (.+?) \| (.+?) \| .*\|$', log, re.M)
    words = {f'`{name}`': name for name in CATALOGUE} | CAPITALS
    words |= {name.replace('_', ' '): name for name in CATALOGUE if '_' in name}
    for old, new in former:
        for method in set(re.findall(r'`(\w+)`', new)) & set(CATALOGUE):
            words |= {f'`{was}`': method for was in re.findall(r'`(\w+)`', old)}
    return words


def named_in(text, words):
    "The methods that a finding names"
    plain = ' '.join(text.replace('ReMDM', 'remdm').split())
    def stands(word): return re.search(rf'(?<![\w-]){re.escape(word)}(?![\w-])', plain)
    return {method for word, method in words.items() if stands(word)}


@functools.cache
def findings_of_methods():
    "{method: [(topic, title), ...]}, in the order of the log's index"
    log = (ROOT/'LOG.md').read_text()
    words, texts, found = spoken(log), findings(log), {}
    for topic, titles in topics(log).items():
        for title in titles:
            for method in named_in(f'{title} {texts[title]}', words):
                found.setdefault(method, []).append((topic, title))
    return found


def results_of(name):
    "What is known of a method in every domain"
    page = f'methods/{name}.md'
    def link(topic, title): return f'[{title}]({address(f"log/{slug(topic)}.md", page)}#{slug(title)})'
    rows = [[topic, link(topic, title)] for topic, title in findings_of_methods().get(name, ())]
    said = ['Findings that name it:', table(['topic', 'finding'], rows)] if rows else []
    parts = plans_results(name) + said
    return ['## Results', *parts] if parts else []


CAPTION = (
    f'{STEPS} steps on the balanced strings of {LENGTH} brackets, with the exact denoiser. Of {ROWS} rows, '
    'the one whose unmasked tokens were changed or remasked most often. A dot marks an unmasked '
    'position, a cross a remasked one; grey is masked.'
)


def python(code): return f'```python\n{code.strip()}\n```'


def method_page(name, known, call):
    info, make = METHOD_INFO[name], CONSTRUCTORS[name].make
    facts = [pair for pair in known if pair[0] not in ('method', 'what it does')]
    what = info.what[0].upper() + info.what[1:]
    parts = [NO_CONTENTS + f'# {name}', f'{what}.', table(['', ''], facts), '[Meaning of the rows](index.md)']
    parts += [parameters(make), '' if info.needs else python(call)]
    parts += [f'![{name}]({name}.png){{ width=420 }}', CAPTION]
    source = address(f'{named("catalogue")}#{make.__name__}', f'methods/{name}.md')
    parts += [f'[`{make.__name__}`]({source})', python(inspect.getsource(make)), *results_of(name)]
    return '\n\n'.join(filter(None, parts)) + '\n'


def write_methods(found):
    section, nav = found['methods'], {}
    rows = method_rows(section)
    if missing := set(CATALOGUE) - set(rows):
        page = 'docs/pages/methods.md'
        refuse(f'{page} has no row of {min(missing)}; run remask methods --to {page}')
    index = re.sub(r'^\| `(\w+)` \|', r'| [`\1`](\1.md) |', section, flags=re.M)
    write('methods/index.md', NO_CONTENTS + '# The methods\n' + index)
    for name, method in CATALOGUE.items():
        write(f'methods/{name}.md', method_page(name, rows[name], example(found, name)))
        draw(name)
        nav.setdefault(method.preserves, []).append({name: f'methods/{name}.md'})
    return ['methods/index.md', *({f'preserves {kept}': pages} for kept, pages in nav.items())]


# ---- the library

def declaration(record):
    "The fields of a named tuple with their comments, as they stand in the source"
    source = inspect.getsource(record)
    return python(re.split(r'^    def ', source, flags=re.M)[0]) + '\n'


def documented(thing, name):
    "Signature and docstring"
    text = show_doc(thing, renderer=BasicMarkdownRenderer, name=name)._repr_markdown_()
    return text.partition('### ')[2].partition('\n')[2]


def entry(module, name, notebook, page):
    "Signature, docstring and source of one name"
    where = address(f'notebooks/{notebook}.md#{name.split(".")[0]}', page)
    thing = functools.reduce(getattr, name.split('.'), module)
    body = declaration(thing) if hasattr(thing, '_fields') else documented(thing, name)
    return f'## {name} {{ id="{name}" }}\n\n[source]({where})\n{body}'


def public(module):
    "Names of a module in the order in which they are defined, and the methods of its classes"
    known = [n.removeprefix(module.__name__ + '.') for n in MODULES['syms'][module.__name__]]
    methods = [n for n in known if '.' in n and '._' not in n and n[0] != '_']
    for name in module.__all__:
        if callable(getattr(module, name)): yield name
        yield from (n for n in methods if n.startswith(name + '.'))


def write_module(notebook, module):
    page = f'api/{module.__name__}.md'
    title = [f'# {module.__name__}', module.__doc__, f'`{notebook}`']
    entries = [entry(module, name, notebook, page) for name in public(module)]
    write(page, linked('\n\n'.join(title), page) + '\n\n' + '\n\n'.join(entries))
    return {module.__name__.removeprefix('remask.'): page}


def exports():
    "{notebook: module}"
    for notebook, path in notebooks().items():
        if m := re.search(r'#\|\s*default_exp ([\w.]+)', path.read_text()): yield notebook, f'remask.{m[1]}'


def write_library():
    nav, rows = {}, []
    for notebook, name in exports():
        module = importlib.import_module(name)
        rows.append([f'[`{name}`]({name}.md)', module.__doc__])
        nav.setdefault(name.split('.')[1], []).append(write_module(notebook, module))
    write('api/index.md', '# API\n\n' + table(['', ''], rows))
    return ['api/index.md', *({chapter: pages} for chapter, pages in nav.items())]


# ---- LOG.md

def topics(log):
    "{topic: titles of its findings} of the index"
    index = log.partition('## Index by topic')[2].partition('\n## ')[0]
    parts = re.split(r'^\*\*(.*)\*\*$', index, flags=re.M)
    return {topic: re.findall(r'^- (.*)', text, re.M) for topic, text in zip(parts[1::2], parts[2::2])}


def findings(log):
    "{date and title: text}"
    start = r'^\*\*(\d{4}-\d\d-\d\d)\. (.*?)\*\*'
    parts = re.split(start, log.partition('## Findings')[2], flags=re.M | re.S)
    titles = [' '.join(title.split()).rstrip('.') for title in parts[2::3]]
    return {f'{date} {title}': text for date, title, text in zip(parts[1::3], titles, parts[3::3])}


def write_log(log):
    found, nav, index = findings(log), [], log.partition('## Findings')[0]
    for topic, titles in topics(log).items():
        page = f'log/{slug(topic)}.md'
        for t in titles:
            if t not in found: refuse(f'LOG.md has no finding {t!r}, which its index names')
        text = ''.join(f'## {t} {{ id="{slug(t)}" }}\n\n{found[t].strip()}\n\n' for t in titles)
        write(page, linked(f'# {topic}\n\n{text}', page))
        for t in titles: index = index.replace(f'- {t}\n', f'- [{t}]({slug(topic)}.md#{slug(t)})\n')
        nav.append({topic: page})
    write('log/index.md', index)
    return ['log/index.md', *nav]


# ---- damaged inputs

CLASSES = {}
CLASSES['clean'] = 'read correctly, or refused in one sentence that names the file or the parameter'
CLASSES['raw'] = 'any other error'
CLASSES['different'] = 'read as something else, although a digest or the format tells'
CLASSES['hang'] = 'not done after 10 seconds'
CLASSES['death'] = 'the process ended, or grew by more than a gigabyte'
RELIABILITY = (
    'Small valid inputs are damaged, bits, bytes, lengths, numbers, fields, nesting and encodings, and given '
    'to everything that reads something from outside. `make faults` does it again and writes these counts. '
    'Besides, it kills `dvc repro` fifty times at random moments, at least once while each kind of stage '
    'runs: what is there after a kill is whole, and another run ends in the same outputs. Trainings and '
    'writes are killed at chosen moments too; the tests are `tests/test_faults.py` and those it names.')


MUTATIONS = (
    'One place of a module is changed at a time: an operator, a comparison, a bound, a constant, a side, a '
    'type. The examples of its notebook and the quick tests that guard it should notice. `make mutations` '
    'tries ten of each module, every kind in turn, chosen by a digest; methods and policies are tried whole '
    'by the tests of the registry (`tests/test_registry.py`).')


def in_table(code): return '`' + code.replace('|', r'\|') + '`'


def mutations():
    "What `make mutations` wrote: text and tables"
    counts = json.loads((ROOT/'docs'/'mutations.json').read_text())
    ways = 'tried', 'notebook', 'tests', 'time'
    rows = [[name, *(str(of[way]) for way in ways), str(len(of['left']))] for name, of in counts.items()]
    left = [[in_table(what), why] for of in counts.values() for what, why in of['left'].items()]
    noticed = table(['module', 'tried', 'by the notebook', 'by tests', 'by the time', 'not noticed'], rows)
    return '## Mutations', MUTATIONS, noticed, table(['not noticed', 'why it changes nothing'], left)


def write_reliability():
    "The counts that `make faults` wrote"
    counts = json.loads((ROOT/'docs'/'faults.json').read_text())
    total = {kind: sum(of_entry[kind] for of_entry in counts.values()) for kind in CLASSES}
    rows = [[name, *of_entry.values()] for name, of_entry in counts.items()] + [['all', *total.values()]]
    figures = table(['what is read', *CLASSES], [map(str, cells) for cells in rows])
    meaning = table(['class', 'meaning'], CLASSES.items())
    write('reliability.md', '\n\n'.join(['# Reliability', RELIABILITY, figures, meaning, *mutations()]))
    return 'reliability.md'


# ---- all of it

def main():
    shutil.rmtree(SITE, ignore_errors=True)
    (SITE/'pages'/'methods').mkdir(parents=True)
    shutil.copy(ROOT/'docs'/'site.css', SITE/'pages')
    found = sections()
    write_readme(found)
    front = ['index.md', *pages_of(PROJECT), {'Changes': 'changelog.md'}, {'Contributing': 'contributing.md'}]
    nav = {'Start': front, 'Concepts': named('glossary'), 'Methods': write_methods(found)}
    nav |= {'How-to': pages_of(HOW_TO), 'Notebooks': write_notebooks(), 'API': write_library()}
    nav['Reliability'] = write_reliability()
    nav['Log'] = write_log((ROOT/'LOG.md').read_text())
    config = dict(INHERIT='../../docs/mkdocs.yml', nav=[{title: pages} for title, pages in nav.items()])
    (SITE/'mkdocs.yml').write_text(yaml.safe_dump(config, sort_keys=False))


if __name__ == '__main__': main()
