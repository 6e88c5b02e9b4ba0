"""Try many damaged inputs: `python tests/faults.py 10000 0`. Nobody's process reads, this one watches.

clean: read like the valid input, or as another one where nothing in the format tells, or one sentence that
names the file or parameter; raw: any other error; different: read as something else although a digest or
the format itself tells; hang: over 10 seconds; death: the process ended, or grew by over a gigabyte."""
import contextlib, json, os, resource, select, shutil, subprocess, sys, tempfile, warnings
from collections import Counter
from pathlib import Path
from random import Random

TESTS = Path(__file__).parent
CLASSES = 'clean', 'raw', 'different', 'hang', 'death'
SECONDS, GIGABYTE = 10, 1 << 30


# ---- the process that reads

def names_something(message, words):
    return 0 < len(message) < 1000 and '\n' not in message.strip() and any(w in message for w in words)


def sentence(message): # argparse prints how the command is used before its sentence, transformers a bar
    *_, last = message.strip().split('\n')
    return last if message.startswith(('usage:', 'Loading weights:')) else message


class Reader:
    "One entry in a folder of its own, and what it reads of its valid inputs"
    def __init__(self, entry, folder):
        self.entry, self.folder = entry, folder
        folder.mkdir(parents=True)
        entry.make(folder)
        self.valid = {name: (folder/name).read_bytes() for name in entry.forms}
        self.whole = {name: self.outcome(name)[1] for name in self.valid if entry.told}

    def outcome(self, name): # -> kind or None, what was read or said
        try: return None, repr(self.entry.read(self.folder, name))
        except (ValueError, OSError, RuntimeError) as e:
            said = sentence(str(e))
            words = [name, *self.entry.words]
            return ('clean' if names_something(said, words) else 'raw'), f'{type(e).__name__}: {said}'
        except MemoryError: return 'death', 'MemoryError'
        except BaseException as e: return 'raw', f'{type(e).__name__}: {e}'

    def tried(self, k):
        "Number k of the damaged inputs: the name of the file, the kind of outcome, what was read or said"
        from damage import damaged
        rng = Random(k)
        name = rng.choice([*self.valid])
        data = damaged(rng, self.valid[name], self.entry.forms[name])
        (self.folder/name).write_bytes(data)
        kind, said = self.outcome(name)
        told = self.entry.told and kind is None and said != self.whole[name] and self.entry.told(data)
        kind = kind or ('different' if told else 'clean')
        (self.folder/name).write_bytes(self.valid[name])
        return name, kind, said[:300]


def grown(): # bytes, of this process and those it started
    most = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(most)*1024


def work(root):
    "Read `entry k` lines, answer each with a line of JSON"
    warnings.simplefilter('ignore')
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(os.open('/dev/null', os.O_WRONLY), 1)
    from fault_entries import ENTRIES
    resource.setrlimit(resource.RLIMIT_AS, (16*GIGABYTE, 16*GIGABYTE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (GIGABYTE//4, GIGABYTE//4))
    readers, before = {}, grown()
    for line in sys.stdin:
        name, _, k = line.strip().rpartition(' ')
        if name not in readers:
            readers[name] = Reader(ENTRIES[name], Path(root, f'{name} {os.getpid()}'))
            before = max(before, grown())
        if k == 'ready': answer = 'ready'
        else:
            file, kind, said = readers[name].tried(int(k))
            if grown() - before > GIGABYTE:
                kind, said, before = 'death', f'{grown() - before:,} bytes', grown()
            answer = file, kind, said
        answers.write(json.dumps(answer) + '\n')


# ---- the process that watches

UNPRIVILEGED = '--reuid=65534 --regid=65534 --clear-groups --inh-caps=-all,+dac_read_search ' \
               '--ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search'.split()


def as_nobody(command):
    "A command as the user nobody, who may read what it needs and writes nothing but in its own folder"
    if os.getuid(): return command
    return ['setpriv', *UNPRIVILEGED, *command]


class Worker:
    def __init__(self, root): self.root, self.child = root, None

    def start(self):
        own = dict.fromkeys(('HOME', 'TMPDIR', 'MPLCONFIGDIR'), self.root)
        own |= dict(PYTHONPATH=f'{TESTS}:{TESTS.parent}', PYTHONDONTWRITEBYTECODE='1', HF_HUB_OFFLINE='1')
        env = os.environ | own | dict(OMP_NUM_THREADS='1')
        command = as_nobody([sys.executable, __file__, 'work', self.root])
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        how = dict(cwd=self.root, text=True, bufsize=1, start_new_session=True)
        self.child = subprocess.Popen(command, env=env, **how, **pipes)

    def end(self):
        if self.child is None: return
        with contextlib.suppress(ProcessLookupError): os.killpg(self.child.pid, 9)
        self.child.wait()
        self.child = None

    def ask(self, entry, k, seconds):
        "The answer; 'hang' or 'death' where there is none"
        if self.child is None: self.start()
        self.child.stdin.write(f'{entry} {k}\n')
        ready, _, _ = select.select([self.child.stdout], [], [], seconds)
        line = self.child.stdout.readline() if ready else ''
        if line: return json.loads(line)
        self.end()
        return 'death' if ready else 'hang'

    def tried(self, entry, k):
        if self.child is None or self.ready != entry:
            started = self.ask(entry, 'ready', 120)
            if started != 'ready': raise RuntimeError(f'{entry} cannot read its own valid inputs: {started}')
            self.ready = entry
        answer = self.ask(entry, k, SECONDS)
        return answer if isinstance(answer, list) else ['', answer, '']


def private_folder():
    root = tempfile.mkdtemp(prefix='remask-faults-')
    if not os.getuid(): os.chown(root, 65534, 65534)
    return root


def numbers(entries, n): # of damaged inputs: {entry: how many}
    shares = {name: e.share for name, e in entries.items()}
    return {name: max(1, n*share//sum(shares.values())) for name, share in shares.items()}


def campaign(n, seed=0, names=None, tell=None):
    "Try about n inputs; {entry: Counter of kinds}, and the cases that are not clean"
    from fault_entries import ENTRIES
    root, counts, found = private_folder(), {}, []
    worker = Worker(root)
    try:
        for entry, many in numbers({k: e for k, e in ENTRIES.items() if not names or k in names}, n).items():
            counts[entry] = Counter()
            for k in range(seed, seed + many):
                file, kind, said = worker.tried(entry, k)
                counts[entry][kind] += 1
                if kind != 'clean': found.append((entry, k, file, kind, said))
            if tell: tell(entry, counts[entry])
    finally:
        worker.end()
        shutil.rmtree(root, ignore_errors=True)
    return counts, found


def record(counts): # as it is written
    return {entry: {kind: counts[entry][kind] for kind in CLASSES} for entry in sorted(counts)}


if __name__ == '__main__':
    if sys.argv[1] == 'work': work(sys.argv[2])
    else:
        n, seed, *names = sys.argv[1:]
        counts, found = campaign(int(n), int(seed), names, print)
        for case in found: print(*case)
        print(sum(counts.values(), Counter()))
