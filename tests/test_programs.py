"""Programs that do harm, or forge a verdict: nothing outside changes, and none of them passes."""
import os, resource, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest
from remask.lm import programs
from remask.lm.programs import can_isolate, run_program

ROOT, LIBRARY = Path(__file__).parents[1], Path(os.__file__).parents[1]
PACKAGES = Path(os.__file__).with_name('site-packages')
TESTS = 'assert f(3) == 6 and f(-1) == -2'
RIGHT = 'def f(x): return 2*x\n'
here = pytest.mark.skipif(not can_isolate(), reason='no user namespaces')


def test_tests_judge_what_the_program_returns():
    assert run_program(RIGHT, TESTS) == (True, '', '')
    assert run_program('def f(x): return x', TESTS).why == 'AssertionError'
    assert run_program('def f(x): raise KeyError(x)', 'try: f(1)\nexcept KeyError: pass').passed
    assert run_program('def f(x): x.append(1)', 'a = [0]\nf(a)\nassert a == [0, 1]').passed
    assert run_program('import math\nR = 2\ndef f(x): return x', 'assert math.isclose(f(R), 2.)').passed
    assert run_program(RIGHT, 'def check(c): assert c(1) == 2\ncheck(f)').passed
    assert not run_program(RIGHT, 'def check(c): assert c(1) == 3\ncheck(f)').passed


FORGED = dict(
    ends='import os; os._exit(0)',
    exits='raise SystemExit(0)',
    prints='print("true"); print("passed")',
    equals='class Same:\n    def __eq__(self, other): return True\ndef f(x): return Same()',
    shadows='def abs(x): return 0\ndef all(x): return True\ndef f(x): return 1',
    imports='from operator import truth as isclose\ndef f(x): return 1',
    frames='import sys\ndef f(x):\n    g = sys._getframe()\n'
           '    while g.f_back: g = g.f_back\n    return g.f_globals',
    answers='import marshal, os\nfor fd in range(3, 32):\n    for value in ({}, ["f"]), True:\n'
            '        data = marshal.dumps(value)\n'
            '        try: os.write(fd, len(data).to_bytes(8, "little") + data)\n        except OSError: pass',
    kills='import os\nfor pid in range(1, 99999):\n    try: os.kill(pid, 9)\n    except OSError: pass')


@here
@pytest.mark.parametrize('how', FORGED)
def test_a_verdict_is_not_forged(how):
    tests = TESTS + '\nassert abs(f(4) - 8) < 1e-6 and all([f(5) == 10])'
    assert run_program(RIGHT, tests).passed
    got = run_program(FORGED[how], tests, seconds=2)
    assert not got.passed and got.why and len(got.why) < 400, got


@here
def test_nothing_outside_is_written_deleted_or_reached(tmp_path):
    kept = tmp_path/'kept'
    kept.write_text('whole')
    sleeper = subprocess.Popen(['sleep', '60'])
    code = f'''
import os, shutil, signal, socket, subprocess
done = []
def attempt(name, f, *args):
    try: f(*args)
    except (OSError, ValueError): return
    done.append(name)
attempt('write', lambda: open({str(kept)!r}, 'w').write('x'))
attempt('delete', os.unlink, {str(kept)!r})
attempt('folder', shutil.rmtree, {str(tmp_path)!r})
attempt('home', lambda: open(os.path.expanduser('~/x'), 'w'))
attempt('etc', lambda: open('/etc/x', 'w'))
attempt('kill', os.kill, {sleeper.pid}, signal.SIGKILL)
attempt('parent', os.kill, {os.getpid()}, 0)
attempt('net', socket.create_connection, ('127.0.0.1', 9), 1)
attempt('device', lambda: open('/dev/kmsg', 'r+'))
attempt('process', lambda: open('/proc/{os.getpid()}/environ').read())
'''
    got = run_program(code, 'assert done == [], done')
    assert got.passed, got
    assert kept.read_text() == 'whole' and sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()


@here
def test_no_file_of_the_machine_is_read(tmp_path):
    "Neither a file that everybody may read, nor what Python itself has no need of"
    secret = tmp_path/'secret'
    secret.write_text('a word')
    secret.chmod(0o644)
    places = [secret, __file__, np.__file__, sys.executable, '/etc/passwd', '/proc/self/environ']
    folders = [str(ROOT), str(tmp_path), '/home', '/var', '/dev', '/sys']
    code = f'''
import os
read = []
for place in {[str(p) for p in places]!r} + ['../'*20 + {str(secret)!r}, '/proc/1/root{secret}']:
    try: read.append((place, open(place, 'rb').read(20)))
    except OSError: pass
folders = [place for place in {folders} if os.path.exists(place)]
top = os.listdir('/tmp'), {{*os.listdir('/')}} - {{'etc', 'lib', 'lib64', 'tmp', 'usr', {LIBRARY.parts[1]!r}}}
'''
    assert all(Path(p).exists() for p in places)
    got = run_program(code, 'assert [read, folders, top] == [[], [], ([], set())], [read, folders, top]')
    assert got.passed, got


@here
def test_the_standard_library_is_there():
    "Also what is loaded from shared libraries of the system"
    code = "import bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib, unittest, json\n" + RIGHT
    code += "open('/tmp/own', 'w').write('a'); kept = open('/tmp/own').read()"
    assert run_program(code, TESTS + "\nassert kept == 'a'").passed
    assert 'numpy' in run_program('import numpy').why


CHANGES = dict(unmount='umount2(b"/usr/lib", 2)', unhide=f'umount2(b"{PACKAGES}", 2)', root='chroot(b"/tmp")',
               write='mount(None, b"/", None, 0x1020, None)', over='mount(b"a", b"/usr", b"tmpfs", 0, None)')


@here
@pytest.mark.parametrize('call', CHANGES)
def test_the_view_of_the_files_cannot_be_changed(call):
    code = f'import ctypes\nlibc = ctypes.CDLL(None)\ndone = libc.{CHANGES[call]}'
    assert run_program(code, 'assert done == -1').passed


@here
@pytest.mark.parametrize('call', ['unmount', 'unhide', 'write'])
def test_namespaces_of_its_own_give_a_program_no_other_files(call):
    "In them it may mount, but not take away what was mounted before, nor write there"
    code = 'import ctypes\nlibc = ctypes.CDLL(None)\ninside = libc.unshare(0x10020000)\n'
    code += f'done = libc.{CHANGES[call]}'
    assert run_program(code, 'assert done == -1').passed


@here
def test_what_a_program_started_ends_with_it():
    name = f'marker-{os.getpid()}'
    command = f"[sys.executable, '-c', 'import time; time.sleep(99)', {name!r}]"
    code = f"import subprocess, sys\nsubprocess.Popen({command})"
    run_program(code, seconds=2)
    time.sleep(.3)
    running = subprocess.run(['ps', '-eo', 'args'], capture_output=True, text=True).stdout
    assert name not in running


@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_output_without_end_does_not_grow_this_process(stream):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = run_program(f'import sys\nwhile True: sys.{stream}.write("x"*(1 << 20))', seconds=2)
    assert not got.passed and len(got.why) < 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_without_namespaces_a_program_is_refused_unless_it_is_allowed(monkeypatch):
    monkeypatch.setattr(programs, 'can_isolate', lambda: False)
    with pytest.raises(ValueError, match='no user namespaces.*apart=False') as e: run_program(RIGHT, TESTS)
    assert '\n' not in str(e.value)
    assert run_program(RIGHT, TESTS, apart=False) == (True, '', 'everything')
