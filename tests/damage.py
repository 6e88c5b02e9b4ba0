"""Damage valid inputs: bits, bytes, lengths, numbers, fields, nesting, encodings; all by one generator."""
import copy, gzip, json, re
from typing import Callable

HUGE = 10**9, 2**31, 2**63, 2**70, -1, -2**40, 0, 1e308, 4.5
ODD = None, True, False, '', 'x'*2000, 'a\0b', '\ud800', '✗é', float('nan'), float('inf')
ODD += [], {}, [[]], {'': 1}


def nested(depth):
    out = []
    for _ in range(depth): out = [out]
    return out


# ---- bytes

def place(rng, data): return rng.randrange(len(data) + 1)


def flip_bits(rng, data):
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(rng, data): return data[:place(rng, data)]


def insert(rng, data):
    k = place(rng, data)
    return data[:k] + rng.randbytes(rng.choice((1, 2, 7, 300))) + data[k:]


def cut(rng, data):
    a, b = sorted((place(rng, data), place(rng, data)))
    return data[:a] + data[min(b, a + 64):]


def double(rng, data):
    a, b = sorted((place(rng, data), place(rng, data)))
    return data[:b] + data[a:b]*rng.choice((1, 2, 40)) + data[b:]


def overwrite(rng, data):
    k = place(rng, data)
    size = min(rng.choice((1, 4, 64)), len(data) - k)
    return data[:k] + rng.choice((b'\0', b'\xff', b'\x7f'))*size + data[k + size:]


def empty(rng, data): return rng.choice((b'', b'\n', b' \t\r\n', b'\0'*100))
FOREIGN = b'MATLAB 5.0', b'PK\3\4', b'\x89PNG\r\n', b'PAR1', b'ARROW1\0\0'
def foreign(rng, data): return rng.choice(FOREIGN) + data


BYTES = flip_bits, flip_bits, truncate, insert, cut, double, overwrite, empty, foreign

# ---- text

def encode(rng, data):
    text = data.decode('utf-8', 'replace')
    return text.encode(rng.choice(('utf-16', 'utf-32', 'utf-8-sig', 'cp1252', 'cp500')), 'replace')


def line_ends(rng, data): return data.replace(b'\n', rng.choice((b'\r\n', b'\r', b'\n\n', b'\xe2\x80\xa8')))


def number(rng, data):
    found = [*re.finditer(rb'\d+', data)]
    if not found: return data
    m, new = rng.choice(found), rng.choice((*HUGE, 'NaN', '1e999', '-Infinity', '"1"', '1'*5000))
    return data[:m.start()] + str(new).encode() + data[m.end():]


def deep(rng, data):
    k, n = place(rng, data), rng.choice((90, 200, 5000, 100_000))
    return data[:k] + rng.choice((b'['*n, b'{"a":'*n, b'('*n, b'['*n + b']'*n)) + data[k:]


def swap_lines(rng, data):
    lines = data.split(b'\n')
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b'\n'.join(lines)


TEXT = encode, line_ends, number, number, deep, swap_lines

# ---- values

def places(value, path=()):
    "The paths of all values within one"
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, v in inner: yield from places(v, (*path, key))


def replaced(rng, old): # another value in its place
    odd = rng.choice((*ODD, *HUGE, nested(rng.choice((3, 99, 300)))))
    if type(old) in (int, float) and rng.random() < .4: return old + rng.choice((-1, 1, .5, 100))
    return rng.choice((odd, odd, [old], {'a': old}, str(old), [old]*rng.choice((2, 3000))))


def change(rng, holder, key):
    kind = rng.randrange(5)
    if kind == 0: del holder[key]
    elif kind == 1 and isinstance(holder, dict): holder[str(key) + rng.choice('s_ x')] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list): holder[key:key] = [holder[key]]*rng.choice((1, 2, 500))
    else: holder[key] = replaced(rng, holder[key])


def change_value(rng, value):
    "A copy with one or two of its values changed, removed, renamed or repeated"
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2))):
        paths = [p for p in places(value) if p]
        if not paths: return replaced(rng, value)
        *path, key = rng.choice(paths)
        holder = value
        for k in path: holder = holder[k]
        change(rng, holder, key)
    return value


# ---- forms of files

class Form:
    "How a file is taken apart into values and put together again; without: bytes only"
    def __init__(self, load:Callable|None=None, dump:Callable|None=None, text=False):
        self.load, self.dump, self.text = load, dump, text


def load_lines(data): return [json.loads(line) for line in data.decode().splitlines() if line.strip()]
def dump_lines(values): return ''.join(json.dumps(v) + '\n' for v in values).encode()
def load_json(data): return json.loads(data)
def dump_json(value): return json.dumps(value).encode()
def load_packed(data): return load_lines(gzip.decompress(data))
def dump_packed(values): return gzip.compress(dump_lines(values), mtime=0)


PLAIN, TEXTS = Form(), Form(text=True)
LINES, JSON = Form(load_lines, dump_lines, True), Form(load_json, dump_json, True)
PACKED = Form(load_packed, dump_packed)


def damaged(rng, data, form):
    "Another file of the same kind, or what is left of one"
    if form.load and rng.random() < .5:
        try: return form.dump(change_value(rng, form.load(data)))
        except Exception: pass # this form cannot hold such a value: damage its bytes
    ways = BYTES + TEXT if form.text else BYTES
    return rng.choice(ways)(rng, data)
