"""What `import remask` gives, the examples of README.md, and the map of chapters."""
import ast, doctest, importlib, os, re, subprocess, sys
import pytest
import remask
from chapters import BEGIN, END, arrows, page
from notebooks import FOLDERS, ROOT

README = '\n'.join(p.read_text() for p in [ROOT/'README.md', *sorted((ROOT/'docs'/'pages').glob('*.md'))])


def test_importing_it_imports_no_torch():
    heavy = {'torch', 'pandas', 'transformers', 'mlflow'}
    code = f"import sys, remask; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == '[]\n'


ASKED = dict(
    MLFLOW_DISABLE_TELEMETRY=('true', 'false', 'remask.pipeline.tracking, mlflow.environment_variables as m',
                              'm.MLFLOW_DISABLE_TELEMETRY.get()'),
    HF_HUB_DISABLE_TELEMETRY=('1', '0', 'remask.lm.hub, huggingface_hub.constants as m',
                              'm.HF_HUB_DISABLE_TELEMETRY'),
    DVC_NO_ANALYTICS=('1', '', 'remask.pipeline.store, dvc.analytics as m', 'not m.is_enabled()'))


@pytest.mark.parametrize('variable', ASKED)
@pytest.mark.parametrize('chosen', [False, True])
def test_the_telemetry_of_the_tools_is_off_unless_the_user_turned_it_on(tmp_path, variable, chosen):
    "As each tool sees it, in a folder without a configuration of its own"
    _, on, modules, is_off = ASKED[variable]
    kept = {k: v for k, v in os.environ.items() if k not in ASKED}
    env = kept | dict(PYTHONPATH=str(ROOT), HOME=str(tmp_path)) | ({variable: on} if chosen else {})
    code = f'import {modules}; print({is_off})'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.stdout == f'{not chosen}\n', done.stderr


def test_the_makefile_and_the_settings_of_dvc_say_the_same():
    make, settings = (ROOT/'Makefile').read_text(), (ROOT/'.dvc'/'config').read_text()
    for name, (off, *_) in ASKED.items():
        if not name.startswith('HF'): assert f'export {name} ?= {off}\n' in make
    assert 'analytics = false' in settings and 'check_update = false' in settings
    assert all(name in README for name in remask._QUIET) and {*ASKED} < {*remask._QUIET}


@pytest.mark.parametrize('name', remask._FACE)
def test_every_public_name_of_the_package_exists_and_is_documented(name):
    assert getattr(remask, name).__doc__ and name in dir(remask)


def test_type_checkers_see_the_same_names():
    tree, seen = ast.parse((ROOT/'remask'/'__init__.py').read_text()), {}
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and n.level == 1: seen |= {a.name: n.module for a in n.names}
    assert seen == remask._FACE and (ROOT/'remask'/'py.typed').exists()


def test_the_error_of_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'sampel'; it has generate, sample"): remask.sampel


def test_the_example_of_the_docstring_is_true():
    assert doctest.testmod(remask) == (0, len(re.findall('^>>>', remask.__doc__, re.M)))


BLOCKS = re.findall(r'```python\n(.*?)```', README, re.S)


@pytest.mark.parametrize('block', [b for b in BLOCKS if 'write_shards' in b])
def test_the_shards_of_the_pages_hold_all_rows(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block, names)
    assert names['written'] == 100 and len([*tmp_path.glob('many/*.safetensors')]) == 3


@pytest.mark.parametrize('block', [b for b in BLOCKS if 'write_shards' not in b])
def test_the_python_of_the_readme_runs(block):
    names = {}
    exec(block, names)
    assert names['out'].ids.shape == (16, 64)
    nfe = names['out'].nfe
    assert (nfe <= 64).all() and (nfe >= 32).all()     # steps in which nothing is unmasked need no evaluation


def test_the_map_of_the_readme_is_up_to_date():
    assert README.split(BEGIN)[1].split(END)[0] == page(), 'run python tests/chapters.py'


def test_no_chapter_imports_a_later_one():
    order = [f.name[2:] for f in FOLDERS]
    assert all(order.index(b) < order.index(a) for a, b in arrows())


GLOSSARY = next((ROOT/'nbs').glob('*/*_glossary.ipynb')).read_text()


@pytest.mark.parametrize('link', sorted(set(re.findall(r'`remask\.([\w.]+)`', GLOSSARY))))
def test_every_term_of_the_glossary_is_in_the_module_it_names(link):
    module, _, name = link.rpartition('.')
    assert hasattr(importlib.import_module(f'remask.{module}'), name)
