"""A headless Chromium of the distribution, driven over its debugging port; no other package is needed."""
import base64, contextlib, json, os, shutil, socket, subprocess, time, urllib.request
from functools import partial
import pytest, websocket

NAMES = 'chromium', 'chromium-browser', 'google-chrome'
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(FOUND is None, reason='there is no Chromium: apt-get install chromium')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for(try_it, seconds=60, what='it'):
    "The first true value that a function returns"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if value := try_it(): return value
        time.sleep(.25)
    raise AssertionError(f'{what} did not happen within {seconds} seconds')


class Page:
    "One page of a browser"
    def __init__(self, port):
        url = f'http://127.0.0.1:{port}/json'
        with urllib.request.urlopen(url, timeout=5) as reply: tabs = json.load(reply)
        self.address = next(tab['webSocketDebuggerUrl'] for tab in tabs if tab['type'] == 'page')
        self.socket = websocket.create_connection(self.address, timeout=60, suppress_origin=True)
        self.number = 0

    def send(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps(dict(id=self.number, method=method, params=params)))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get('id') == self.number: return answer.get('result', answer)

    def open(self, url): self.send('Page.navigate', url=url)

    def run(self, script):
        "The value of an expression of JavaScript"
        given = dict(expression=script, returnByValue=True, awaitPromise=True)
        return self.send('Runtime.evaluate', **given)['result'].get('value')

    def wait_for(self, script, seconds, what):
        "Wait until an expression of JavaScript is true"
        return wait_for(partial(self.run, script), seconds, what)

    def text(self): return self.run('document.body ? document.body.innerText : ""') or ''

    def wait_for_text(self, *words, seconds=90):
        "The text of the page as soon as it holds all the words"
        def holds():
            text = self.text()
            return text if all(word in text for word in words) else None
        try: return wait_for(holds, seconds)
        except AssertionError:
            missing = [word for word in words if word not in self.text()]
            raise AssertionError(f'not on the page: {missing}\n{self.text()[:3000]}') from None

    def picture(self, path):
        data = self.send('Page.captureScreenshot', format='png')['data']
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser(folder, size='1400,1400'):
    "A page of a fresh browser, whose profile is in a folder"
    port = free_port()
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', f'--window-size={size}',
               f'--user-data-dir={folder}/profile', f'--remote-debugging-port={port}', 'about:blank']
    log = open(folder/'browser.log', 'w')
    process = subprocess.Popen([FOUND, *options], stdout=log, stderr=log)
    try: yield wait_for(partial(Page, port), what='the start of the browser')
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@contextlib.contextmanager
def server(command, url, **more):
    "A server that answers at an address, ended afterwards"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True, **more)
    try:
        wait_for(partial(urllib.request.urlopen, url, timeout=2), 90, f'an answer of {url}')
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
