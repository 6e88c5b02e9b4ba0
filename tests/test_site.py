"""The documentation site: how its pages are written, and that every link of it leads somewhere."""
import html.parser, importlib.util, json, os, re, subprocess, urllib.parse
import nbformat, pytest
from notebooks import FOLDERS, ROOT
from remask.methods.catalogue import CATALOGUE

spec = importlib.util.spec_from_file_location('build_site', ROOT/'docs'/'build.py')
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)
LOADED = dict(script='src', img='src', iframe='src', source='src', link='href') # fetched by the browser


# ---- how pages are written

def test_every_page_has_one_place_and_its_links_lead_there():
    assert len({site.place(name) for name in site.sections()}) == len(site.sections())
    front = site.start()
    assert front.startswith('# remask') and '](how-to/own-method.md)' in front and '](log/index.md)' in front
    assert '](docs/' not in front and '](LOG.md)' not in front
    assert site.moved('[a](own-text.md)', 'how-to/own-plans.md') == '[a](own-text.md)'
    assert site.moved('[a](methods.md)', 'how-to/own-plans.md') == '[a](../methods/index.md)'


def test_every_link_of_the_pages_leads_to_a_file():
    for path in [ROOT/'README.md', ROOT/'CONTRIBUTING.md', *(ROOT/'docs'/'pages').glob('*.md')]:
        for link in re.findall(r'\]\(([^)#:]+)\)', path.read_text()):
            assert (path.parent/link).exists(), f'{path.name}: {link}'


def test_a_missing_page_and_one_that_is_on_no_list_are_named(tmp_path):
    for path in (ROOT/'docs'/'pages').glob('*.md'): (tmp_path/path.name).write_text(path.read_text())
    (tmp_path/'new.md').write_text('# New')
    with pytest.raises(SystemExit, match='docs/pages/new.md is on no list'): site.sections(tmp_path)
    (tmp_path/'own-text.md').unlink()
    with pytest.raises(SystemExit, match='there is no page docs/pages/own-text.md'): site.sections(tmp_path)


def test_words_in_backticks_are_links_where_they_name_something():
    name, *_ = site.notebooks()
    fenced = f'```\n`{name}`\n```\n'
    policy, notebook = '../api/remask.core.sampler.md#Policy', f'../notebooks/{name}.md'
    text = f'See `remask.core.sampler.Policy`, `{name}` and `x`.\n{fenced}'
    linked = f'See [`remask.core.sampler.Policy`]({policy}), [`{name}`]({notebook}) and `x`.\n{fenced}'
    assert site.linked(text, 'how-to/a.md') == linked


def test_a_notebook_is_found_whatever_its_number():
    assert site.named('sampler').endswith('_sampler.md')
    with pytest.raises(SystemExit, match='there is no notebook sampel'): site.named('sampel')


NOTEBOOK = re.compile(r'`(?:nbs/)?(\d_\w+/\d\d_\w+?)(?:\.ipynb)?`')


def test_every_notebook_that_a_page_names_exists():
    pages = [ROOT/'README.md', *(ROOT/'docs'/'pages').glob('*.md'), *site.notebooks().values()]
    texts = {path.name: path.read_text() for path in pages}
    missing = {(page, name) for page, text in texts.items() for name in NOTEBOOK.findall(text)
               if name not in site.notebooks()}
    assert not missing


def test_a_reader_sees_no_hidden_cell_no_directive_and_no_progress_bar():
    code = nbformat.v4.new_code_cell
    bar = nbformat.v4.new_output('stream', name='stderr', text='50 %')
    exported = code('#| export\ndef f(): pass', outputs=[bar])
    target, cell = site.shown([code('#| default_exp a'), code('#| hide\nimport b'), exported])
    assert (target.source, cell.source, cell.outputs) == ('<a id="f"></a>', 'def f(): pass', [])


def test_a_finding_that_is_not_there_is_named():
    log = '## Index by topic\n\n**Text**\n\n- 2026-01-02 It works\n\n'
    log += '## Findings\n\n**2026-01-03. It works.** Yes.\n'
    with pytest.raises(SystemExit, match="LOG.md has no finding '2026-01-02 It works'"): site.write_log(log)
    assert site.findings(log) == {'2026-01-03 It works': ' Yes.\n'}


def test_the_findings_of_the_log_are_all_in_its_index():
    log = (ROOT/'LOG.md').read_text()
    assert {t for titles in site.topics(log).values() for t in titles} == set(site.findings(log))


def test_the_row_of_a_method_gives_its_facts():
    rows = site.method_rows(site.sections()['methods'])
    assert set(rows) == set(CATALOGUE)
    facts = dict(rows['remdm_cap'])
    assert facts['rule'] == '`sigma = min(eta, sigma_max)`' and facts['preserves'] == 'marginals'
    assert len({len(row) for row in rows.values()}) == 1


def test_every_stored_row_is_on_the_page_of_one_method():
    stored = [name for name in site.stored_results()['methods'] if name != 'heldout']
    placed = [name for names in site.families().values() for name in names]
    assert sorted(placed) == sorted(stored) and set(site.families()) <= set(CATALOGUE)
    mean, spread = site.stored_results()['methods']['random_topp09_remdm_cap_eta02']['distribution/edge_js']
    _, rows = site.plans_results('davis_rate')
    line, = (l for l in rows.splitlines() if l.startswith('| `random_topp09_remdm_cap_eta02` |'))
    assert f'{mean:.4f} ± {spread:.4f}' in line and '`heldout`' in rows
    assert site.plans_results('gibbs') == []


def test_a_finding_is_on_the_pages_of_the_methods_that_it_names():
    words = site.spoken('| `settled` | `threshold_remask` | policy |\n')
    text = 'At most `settled`, fixed count, P2 and ReMDM cap, but no threshold and no p2.'
    assert site.named_in(text, words) == {'threshold_remask', 'fixed_count', 'p2', 'remdm_cap'}
    found = dict(site.findings_of_methods())
    solves = '2026-11-28 Threshold remasking solves 9x9 Sudoku with 20 % of the evaluations'
    assert solves in [title for _, title in found['threshold_remask']]
    assert '](../log/' in site.results_of('threshold_remask')[-1]


# ---- the site

class Page(html.parser.HTMLParser):
    "Ids of a page, the addresses that it links to and those that it loads"
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, pairs):
        given = dict(pairs)
        if 'id' in given: self.ids.add(given['id'])
        if tag == 'a' and given.get('href'): self.links.append(given['href'])
        if given.get(LOADED.get(tag)): self.loads.append(given[LOADED[tag]])


def is_foreign(url): return bool(urllib.parse.urlsplit(url).netloc)
def is_data(url): return url.startswith('data:')


def leads(url, path, folder, pages):
    "Whether a link within the site leads to a file, and to a place in it"
    parts = urllib.parse.urlsplit(url)
    name, anchor = urllib.parse.unquote(parts.path), urllib.parse.unquote(parts.fragment)
    to = folder/name[1:] if name.startswith('/') else path.parent/name if name else path
    to = to.resolve()
    if to.is_dir(): to /= 'index.html'
    return to.exists() and (not anchor or to not in pages or anchor in pages[to].ids)


def broken(folder):
    "'page: address' of what leads nowhere, and of what is fetched from elsewhere"
    pages = {path: Page(path) for path in folder.rglob('*.html')}
    for path, page in pages.items():
        within = [u for u in page.links + page.loads if not is_foreign(u) and not is_data(u)]
        bad = [*filter(is_foreign, page.loads), *(u for u in within if not leads(u, path, folder, pages))]
        yield from (f'{path.name}: {url}' for url in bad)


def test_broken_links_are_found(tmp_path):
    links = '<a href="b.html#x">1</a><a href="b.html#y">2</a><a href="c.html">3</a><img src="d.png">'
    (tmp_path/'a.html').write_text(links)
    foreign = '<p id="x"><script src="//cdn.example/e.js"></script><a href="https://example.org">4</a>'
    (tmp_path/'b.html').write_text(foreign)
    bad = {'a.html: b.html#y', 'a.html: c.html', 'a.html: d.png', 'b.html: //cdn.example/e.js'}
    assert {*broken(tmp_path.resolve())} == bad


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    to = tmp_path_factory.mktemp('site').resolve()/'pages'
    done = subprocess.run(['make', 'site', f'SITE={to}'], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'-d {to}' in done.stdout and 'WARNING' not in done.stderr
    return to


@pytest.mark.slow
def test_no_link_of_the_site_is_broken_and_nothing_is_fetched_from_elsewhere(built):
    found = [*broken(built)]
    assert not found, found[:20]
    styles = [p for p in built.rglob('*.css') if 'url(http' in p.read_text()]
    assert not styles


@pytest.mark.slow
def test_the_site_has_a_page_of_every_method_notebook_module_and_topic(built):
    pages = {str(p.relative_to(built)) for p in built.rglob('*.html')}
    notebooks = [p for folder in FOLDERS for p in folder.glob('*.ipynb')]
    assert {f'notebooks/{p.parent.name}/{p.stem}.html' for p in notebooks} <= pages
    assert {f'methods/{name}.html' for name in CATALOGUE} <= pages
    assert all((built/'methods'/f'{name}.png').stat().st_size > 1000 for name in CATALOGUE)
    assert {f'api/{module}.html' for module in site.MODULES['syms']} <= pages
    assert {f'log/{site.slug(topic)}.html' for topic in site.topics((ROOT/'LOG.md').read_text())} <= pages


@pytest.mark.slow
def test_formulas_are_drawn_without_a_script_and_pages_are_searched(built):
    page = (built/'notebooks'/'2_policies'/'01_remdm.html').read_text()
    assert page.count('<math') > 10 and 'arithmatex' not in page and 'mermaid' not in page
    index = json.loads((built/'search'/'search_index.json').read_text())
    assert any(d['location'] == 'methods/remdm_cap.html' and 'min(eta' in d['text'] for d in index['docs'])
