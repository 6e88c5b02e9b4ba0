"""The interactive notebook: executed, and clicked in a browser."""
import importlib.util, os, sys, time
from functools import partial
import pytest
from browser import browser, free_port, needs_browser, server, wait_for
from notebooks import ROOT
from remask.pipeline.stages import run_notebook

NOTEBOOK = 'nbs/0_start/04_workbench.ipynb'
STORED = (ROOT/'build/train/plans/unweighted/net.safetensors').is_file()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec('ipywidgets') is None, reason='no ipywidgets: make env'),
    pytest.mark.skipif(not STORED, reason='the stored networks are not here: remask pull'),
]


def test_the_notebook_runs_from_the_stored_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run_notebook(NOTEBOOK, tmp_path/'out.ipynb', {})
    assert 'solved: ' in (tmp_path/'out.ipynb').read_text()


IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
READY = f"!!window.jupyterapp && !!document.querySelector('{IDLE}')"
RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells'), true"
BEGUN = "[...document.querySelectorAll('.jp-InputPrompt')].some(p => /[*\\d]/.test(p.innerText))"
DONE = "![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.innerText.includes('*'))"
BUTTONS = "[...document.querySelectorAll('button')].filter(b => b.innerText.trim() == 'complete')"
HANDLES = "document.querySelectorAll('.noUi-handle')"
EARLIER = "(t => !t.includes('step 48 of 48') && t.includes('of 48'))(document.body.innerText)"
BACK = "new KeyboardEvent('keydown', {key: 'PageDown', bubbles: true})"


def settings(folder):
    "Settings with which JupyterLab draws every cell, on the screen or not"
    to = folder/'settings'/'@jupyterlab'/'notebook-extension'/'tracker.jupyterlab-settings'
    to.parent.mkdir(parents=True)
    to.write_text('{"windowingMode": "none"}')
    places = dict(SETTINGS=folder/'settings', WORKSPACES=folder/'workspaces')
    return dict(JUPYTER_CONFIG_DIR=str(folder)) | {f'JUPYTERLAB_{k}_DIR': str(v) for k, v in places.items()}


def run_all(page):
    "Run all cells, which does nothing before the notebook is connected to its kernel"
    if not page.run(BEGUN): page.run(RUN_ALL)
    time.sleep(3)
    return page.run(BEGUN)


@needs_browser
def test_a_click_completes_a_text_and_the_slider_goes_through_it(tmp_path):
    port = free_port()
    lab = [sys.executable, '-m', 'jupyter', 'lab', 'nbs', '--no-browser', '--allow-root', f'--port={port}',
           '--IdentityProvider.token=', '--LabApp.expose_app_in_browser=True', '--ServerApp.port_retries=0']
    url, env = f'http://127.0.0.1:{port}', os.environ | settings(tmp_path)
    with server(lab, f'{url}/api', cwd=ROOT, env=env), browser(tmp_path) as page:
        page.open(f'{url}/lab/tree/0_start/04_workbench.ipynb')
        page.wait_for(READY, 90, 'the start of the kernel')
        wait_for(partial(run_all, page), 90, 'the run of the cells')
        page.wait_for(f'{BUTTONS}.length == 4 && {DONE}', 180, 'the end of all cells')
        assert 'step 10 of 10' in page.text() and 'of 48' not in page.text()  # of the plan
        page.run(f'{BUTTONS}[1].click()')
        page.wait_for_text('step 48 of 48')
        page.run(f'{HANDLES}[1].dispatchEvent({BACK})')
        page.wait_for(EARLIER, 30, 'an earlier step')
        page.picture(tmp_path/'bench.png')
