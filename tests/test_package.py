"""The package: what is built installs, imports and runs where no clone is."""
import os, pathlib, re, shutil, subprocess, sys, sysconfig, tarfile
import pytest
import remask
from notebooks import ROOT

OWN = '''import torch
def model(ids): return torch.zeros(*ids.shape, 1000)
def score(ids): return (ids == ids[:, :1]).double().mean()
'''
SDIST = "from setuptools.build_meta import build_sdist; print(build_sdist('../dist'))"


def shell(*command, at, **env):
    words = [*map(str, command)]
    done = subprocess.run(words, cwd=at, capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    "The wheel in an environment that borrows the packages of this one, and an empty folder"
    at = tmp_path_factory.mktemp('package')
    left_out = shutil.ignore_patterns('.git', '.venv*', '.dvc*', *'build data reports mlruns _site'.split())
    shutil.copytree(ROOT, at/'source', ignore=left_out)
    options = "--no-deps --no-build-isolation -q -w ../dist".split()
    shell(sys.executable, '-m', 'pip', 'wheel', '.', *options, at=at/'source')
    shell(sys.executable, '-c', SDIST, at=at/'source')
    shell(sys.executable, '-m', 'venv', at/'clean', at=at)
    wheel, = (at/'dist').glob('*.whl')
    shell(at/'clean/bin/python', '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', wheel, at=at)
    packages, = (at/'clean').glob('lib/python*/site-packages')
    (packages/'borrowed.pth').write_text(sysconfig.get_paths()['purelib'])
    (at/'elsewhere').mkdir()
    return at


def run(installed, name, *words):
    return shell(installed/'clean'/'bin'/name, *words, at=installed/'elsewhere', PYTHONPATH='')


@pytest.mark.slow
def test_the_installed_package_is_imported_and_is_this_version(installed):
    printed = run(installed, 'python', '-c', 'import remask; print(remask.__file__, remask.__version__)')
    where, version = printed.split()
    assert pathlib.Path(where).is_relative_to(installed/'clean') and version == remask.__version__
    wheel, = (installed/'dist').glob('*.whl')
    assert wheel.name == f'remask-{version}-py3-none-any.whl'


@pytest.mark.slow
def test_commands_that_need_no_clone_work_without_one(installed):
    (installed/'elsewhere'/'mine.py').write_text(OWN)
    line = re.search(r'`(remask tune mine.py:model .*?)`', (ROOT/'README.md').read_text(), re.S)[1]
    _, *words = line.split()
    assert 'best: remdm_cap eta=' in run(installed, 'remask', *words, '--steps', '4', '--num-samples', '4')
    assert '2503.00307' in run(installed, 'remask', 'explain', 'remdm_cap')
    assert run(installed, 'remask', 'methods').count('\n| `') > 40


@pytest.mark.slow
def test_the_source_archive_holds_the_notebooks_and_no_results(installed):
    archive, = (installed/'dist').glob('*.tar.gz')
    names = {name.partition('/')[2] for name in tarfile.open(archive).getnames()}
    expected = 'README.md', 'CHANGELOG.md', 'LICENSE', 'nbs/4_methods/03_catalogue.ipynb', 'remask/py.typed'
    assert {*expected} <= names
    assert not [name for name in names if name.startswith(('build/', 'data/', 'mlruns/'))]


def test_the_version_is_the_same_everywhere():
    settings = re.search(r'^version = (.*)$', (ROOT/'settings.ini').read_text(), re.M)[1]
    cited = re.search(r'^version: (.*)$', (ROOT/'CITATION.cff').read_text(), re.M)[1]
    assert settings == cited == remask.__version__ and f'## {settings}\n' in (ROOT/'CHANGELOG.md').read_text()
