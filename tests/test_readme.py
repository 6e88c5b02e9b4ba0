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


NAMES = r'`[^`]*`|{\w+}|9x9|temperature [01]|in 8 evaluations'  # no results


def test_no_figure_of_the_findings_is_written_by_hand():
    for text in [*readme.FINDINGS, *(cell for row in readme.SITUATIONS for cell in row)]:
        assert not re.search(r'\d', re.sub(NAMES, '', text)), text


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


def test_results_are_collected_with_their_size_and_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, 'ROOT', tmp_path)
    monkeypatch.setattr(readme, 'RESULTS', tmp_path/'results.json')
    with pytest.raises(SystemExit, match='no build/metrics/plans-record; run make repro or make record'):
        readme.collect('plans-record')
    params = dict(samples=7, seeds=[1, 2], steps=3, process='v1', network_steps=9)
    summary = {'validity/validity': [.51234567, .1], 'other': [1, 0]}
    record = dict(method='cap', params=params, per_seed=[], summary=summary)
    folder = tmp_path/'build'/'metrics'/'plans-record'
    folder.mkdir(parents=True)
    (folder/'cap.json').write_text(json.dumps(record))
    readme.collect('plans-record')
    found = readme.results()
    assert found['methods'] == dict(cap={'validity/validity': [.512346, .1]})
    assert found['training_steps'] == dict(v1=9) and (found['samples'], found['seeds']) == (7, [1, 2])
