"""The front page: everything in it that is computed equals what `make readme` writes from stored results."""
import importlib.util, json, re
import pytest
from notebooks import ROOT

spec = importlib.util.spec_from_file_location('write_readme', ROOT/'docs'/'readme.py')
readme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme)
README = (ROOT/'README.md').read_text()


def test_the_front_page_is_what_the_command_writes():
    assert readme.written(README) == README, 'run make readme'


def test_figures_of_the_log_stand_in_the_finding_they_name():
    log = (ROOT/'LOG.md').read_text()
    start = r'^\*\*(\d{4}-\d\d-\d\d)\. (.*?)\.\*\*'
    parts = re.split(start, log.partition('## Findings')[2], flags=re.M | re.S)
    findings = {f"{date} {' '.join(title.split())}": ' '.join(text.split())
                for date, title, text in zip(parts[1::3], parts[2::3], parts[3::3])}
    for name, (text, finding) in json.loads((ROOT/'docs'/'log_figures.json').read_text()).items():
        assert text in findings[finding], f'{name}: {text} is not in {finding}'


def test_every_figure_of_the_findings_comes_from_a_stored_result():
    templates = ' '.join([*readme.FINDINGS, *(cell for row in readme.SITUATIONS for cell in row)])
    known = readme.figures() | readme.distances() | readme.of_plans(readme.results())
    assert set(re.findall(r'{(\w+)}', templates)) <= set(known)


def test_another_result_gives_another_page_and_a_false_claim_is_refused(tmp_path, monkeypatch):
    found = readme.results()
    mean, spread = found['methods'][readme.PUBLISHED]['validity/inside_validity']
    found['methods'][readme.PUBLISHED]['validity/inside_validity'] = [mean/2, spread]
    monkeypatch.setattr(readme, 'RESULTS', tmp_path/'results.json')
    readme.RESULTS.write_text(json.dumps(found))
    assert f'{50*mean:.1f} %' in readme.written(README)
    found['methods'][readme.REPAIRED]['distribution/edge_js'] = [9., 0.]
    readme.RESULTS.write_text(json.dumps(found))
    with pytest.raises(SystemExit, match='the results no longer say'): readme.written(README)
    readme.RESULTS.unlink()
    with pytest.raises(SystemExit, match='git checkout docs/results.json'): readme.written(README)


def test_the_figure_is_animated_and_small():
    data = readme.FIGURE.read_bytes()
    assert data[:6] == b'GIF89a' and data.count(b'\x21\xf9\x04') > 30 and len(data) < 500_000


def test_the_front_page_fits_a_screen_and_speaks_of_the_pages():
    assert len(README.splitlines()) < 110
    for path in (ROOT/'docs'/'pages').glob('*.md'):
        if path.stem not in ('domains',): assert f'docs/pages/{path.name}' in README, path.name
