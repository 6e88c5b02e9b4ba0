"Characters, corpora, rows and the structure of a text, against plain rewritings one character at a time."
import dataclasses, hashlib, platform, re, sys, types, unicodedata
from collections import Counter

import pytest, torch
from hypothesis import given, settings, strategies as st

from remask.domains import text as T
from remask.domains.text import Vocabulary
from remask.core.tokens import is_clean, masked, real, restrict

SETTINGS = settings(max_examples=60, deadline=None)
def two_characters(s): return len(set(s)) > 1
def without_signs(s): return not set(s) & set('░✗')


ANY = st.text(min_size=2, max_size=60).filter(two_characters)        # surrogates and zeros too
PROSE = st.text(alphabet=" \n\t.,;!?'\"-_aAbBzé9²ßक्", min_size=1, max_size=50)
PLAIN = ANY.filter(without_signs) # without the signs that `decode` uses
FULL = Vocabulary.of(" \n\t.,;!?'\"-_aAbBzé9²ßक्")
SMALL = Vocabulary.of('to be, or not to be\n')


def one_line(e): return '\n' not in str(e.value) and len(str(e.value)) < 300


# ---- vocabulary

@SETTINGS
@given(ANY)
def test_ids_follow_the_characters_and_the_reserved_ones_follow_them(text):
    v, chars = Vocabulary.of(text), sorted(set(text))
    n = len(chars)
    assert list(v.chars) == chars
    assert (v.mask, v.pad, v.wrong) == (n, n + 1, n + 2)
    assert v.V == max(v.mask, v.pad, v.wrong) + 1
    assert v.encode(text).tolist() == [chars.index(c) for c in text]
    assert v.encode(text).dtype == torch.int64 and v.encode('').shape == (0,)
    assert v.decode(v.encode(text)) == [text]


@SETTINGS
@given(ANY)
def test_a_vocabulary_is_its_characters(text):
    v = Vocabulary.of(text)
    assert Vocabulary(v.chars) == v == Vocabulary.of(v.chars + text)
    assert hash(Vocabulary(v.chars)) == hash(v)
    assert re.fullmatch('[0-9a-f]{12}', v.revision) and v.revision == Vocabulary.of(text[::-1]).revision
    with pytest.raises(dataclasses.FrozenInstanceError): v.chars = 'ab'


def test_the_revision_is_a_known_hash_and_follows_the_characters():
    assert Vocabulary('ab').revision == hashlib.sha256(b'ab').hexdigest()[:12] == 'fb8e20fc2e4c'
    assert len({Vocabulary(c).revision for c in ('ab', 'abc', 'ac', 'aé')}) == 4


@pytest.mark.parametrize(
    'chars, why',
    [
        ('', 'fewer than two'),
        ('a', 'fewer than two'),
        ('ba', 'Vocabulary.of(text)'),
        ('aab', 'Vocabulary.of(text)'),
    ],
)
def test_characters_that_are_no_vocabulary_are_refused(chars, why):
    with pytest.raises(ValueError) as e: Vocabulary(chars)
    assert why in str(e.value) and one_line(e)


@SETTINGS
@given(st.text(alphabet='to be,ornXé', max_size=40))
def test_the_first_unknown_character_is_named(text):
    unknown = [(k, c) for k, c in enumerate(text) if c not in SMALL.chars]
    if not unknown: return
    with pytest.raises(ValueError) as e: SMALL.encode(text)
    k, c = unknown[0]
    assert f"character {c!r} at position {k} " in str(e.value)
    assert 'replace it' in str(e.value) and one_line(e)


@pytest.mark.parametrize('c', ['\0', '!', '~', '\U0010ffff', '\ud800', '☃'])
def test_characters_below_between_and_above_the_known_ones_are_unknown(c):
    with pytest.raises(ValueError, match='position 1 '): SMALL.encode('t' + c + c)


@SETTINGS
@given(st.lists(st.lists(st.integers(0, FULL.V - 1), min_size=7, max_size=7), min_size=1, max_size=5),
       st.sampled_from(['░', '_', '']), st.sampled_from(['', '·']), st.sampled_from(['✗', '']))
def test_decode_is_the_plain_reading(rows, mask_char, pad, wrong):
    signs = {FULL.mask: mask_char, FULL.pad: pad, FULL.wrong: wrong}
    plain = [''.join(signs[i] if i in signs else FULL.chars[i] for i in row) for row in rows]
    for dtype in torch.int64, torch.uint8:
        assert FULL.decode(torch.tensor(rows, dtype=dtype), mask_char, pad, wrong) == plain


def test_decode_refuses_foreign_ids_and_long_signs():
    for bad in -1, SMALL.V:
        with pytest.raises(ValueError, match=f'not all in 0..{SMALL.V - 1}') as e:
            SMALL.decode(torch.tensor([[0, bad]]))
        assert one_line(e)
    for sign in 'mask_char', 'pad', 'wrong':
        with pytest.raises(ValueError, match="'ab' is longer"):
            SMALL.decode(torch.tensor([[0]]), **{sign: 'ab'})
    assert SMALL.decode(torch.zeros(3, 0).long()) == ['']*3
    assert SMALL.decode(torch.zeros(0, 3).long()) == []


def test_another_vocabulary_is_refused_with_the_difference():
    SMALL.agree(Vocabulary(SMALL.chars))
    with pytest.raises(ValueError) as e: SMALL.agree(Vocabulary.of('to be\n!?'), 'remasker.safetensors')
    message = str(e.value)
    assert message.startswith('remasker.safetensors ') and one_line(e)
    assert "has '!?'" in message and "lacks ',nr'" in message
    assert SMALL.revision in message and Vocabulary.of('to be\n!?').revision in message
    with pytest.raises(ValueError) as e: SMALL.agree(Vocabulary.of(map(chr, range(9000))))
    assert one_line(e)


# ---- legal tokens

@SETTINGS
@given(ANY, st.integers(1, 9))
def test_a_denoiser_predicts_characters_only_and_a_detector_also_WRONG(text, L):
    v = Vocabulary.of(text)
    denoiser, detector = v.space(L), v.verdicts(L)
    for s in denoiser, detector:
        assert (s.L, s.V, s.mask, s.pad) == (L, v.V, v.mask, v.pad)
        assert s.legal[:, :v.mask].all()
        assert not s.legal[:, [v.mask, v.pad]].any()
    assert not denoiser.legal[:, v.wrong].any() and detector.legal[:, v.wrong].all()
    p = restrict(denoiser, torch.zeros(1, L, v.V)).softmax(-1)
    assert (p[..., v.mask:] == 0).all() and (p[..., :v.mask] > 0).all()


def test_WRONG_is_clean_for_the_detector_alone():
    rows = torch.tensor([[0, 1], [0, SMALL.wrong], [0, SMALL.mask], [0, SMALL.pad]])
    assert is_clean(SMALL.space(2), rows).tolist() == [True, False, False, True]
    assert is_clean(SMALL.verdicts(2), rows).tolist() == [True, True, False, True]


# ---- sources

def test_the_python_reference_is_the_language_reference_once():
    got = T.python_reference()
    assert got == T.python_reference()
    assert platform.python_version() in got.revision
    assert got.revision.endswith(hashlib.sha256(got.text.encode()).hexdigest()[:12])
    long = [p for p in got.text.rstrip('\n').split('\n\n') if len(p) >= 40]
    assert len(long) == len(set(long)) > 500
    from pydoc_data.topics import topics
    for t in topics.values():
        for paragraph in paragraphs(T.plain(t)): assert paragraph in got.text


def paragraphs(text): return text.strip('\n').split('\n\n')


STRAIGHT = str.maketrans({'“': '"', '”': '"', '‘': "'", '’': "'", '–': '-', '—': '-', 'ß': 'ss'})


def as_ascii(text):
    "The rule by which the reference has always been written"
    normal = unicodedata.normalize('NFKD', text.translate(STRAIGHT))
    return ''.join(c for c in normal if c == '\n' or ' ' <= c <= '~')


def test_the_reference_is_written_in_ascii_by_the_same_rule_as_ever():
    from pydoc_data.topics import topics
    for t in [*topics.values(), 'x² ≤ 5 ﬁ Å\t']: assert T.plain(t) == as_ascii(t)
    assert T.plain('x² ≤ 5 ﬁ Å\t') == 'x2  5 fi A'
    written, out = set(), []
    for name in sorted(topics):
        for p in paragraphs(as_ascii(topics[name])):
            if len(p) < 40 or p not in written: out.append(p)
            written.add(p)
    assert T.python_reference().text == '\n\n'.join(out) + '\n'


def topics_of(monkeypatch, **topics):
    made = types.ModuleType('pydoc_data.topics')
    made.topics = topics
    monkeypatch.setitem(sys.modules, 'pydoc_data.topics', made)


def test_topics_come_in_order_whatever_order_they_are_kept_in(monkeypatch):
    same = 'This sentence is so long that it is kept only once'
    topics_of(monkeypatch, b=f'B\n\n{same}\n\nNote:\n\nb', a=f'\nA\n\n{same}\n\nNote:\n\na\n')
    want = f'A\n\n{same}\n\nNote:\n\na\n\nB\n\nNote:\n\nb\n'
    assert T.python_reference().text == want
    assert T.python_reference(shortest=1000).text == want.replace('B\n\n', f'B\n\n{same}\n\n')
    assert T.python_reference(shortest=0).text == want.replace('B\n\nNote:\n\n', 'B\n\n')


def test_the_remedy_for_a_python_without_its_reference_is_named(monkeypatch):
    def not_installed(name): return None
    monkeypatch.setattr(T, 'find_spec', not_installed)
    with pytest.raises(ValueError, match='name a UTF-8 file instead'): T.python_reference()


@pytest.mark.parametrize(
    'data, why',
    [
        (b'', 'is empty'),
        (b' \n\n', 'is empty'),
        (b'abc\ndef\0', 'zero byte at byte 7'),
        ('a\nb'.encode('utf-16'), 'zero byte at byte 3'),
        (b'a\nb\n\xffc', r'not UTF-8 \(byte 4, line 3\)'),
        ('né'.encode('latin-1'), r'not UTF-8 \(byte 1, line 1\)'),
        ('é'.encode()[:1], 'not UTF-8'),
        (b'\x89PNG\r\n\x1a\n', r'not UTF-8 \(byte 0, line 1\)'),
        (b'aaaa', 'fewer than two'),
        ('\ufeffa'.encode(), 'fewer than two'),
        (b'\xef\xbb\xbf', 'fewer than two'),
    ],
)
def test_what_is_no_text_is_refused_with_the_place(tmp_path, data, why):
    f = tmp_path/'corpus.txt'
    f.write_bytes(data)
    with pytest.raises(ValueError, match=why) as e: T.read_text(f)
    assert 'corpus.txt' in str(e.value) and one_line(e)


def test_missing_files_and_folders_are_named(tmp_path):
    for f in tmp_path/'none.txt', tmp_path:
        with pytest.raises(OSError, match='could not be read') as e: T.read_text(f)
        assert f.name in str(e.value) and one_line(e)


@SETTINGS
@given(st.text(alphabet='ab é☃\n', min_size=2).filter(str.strip).filter(two_characters))
def test_reading_gives_the_text_back_whatever_its_line_ends(tmp_path_factory, text):
    f = tmp_path_factory.getbasetemp()/'some.txt'
    seen = set()
    for end in '\n', '\r\n', '\r':
        for mark in '', '\ufeff':
            f.write_bytes((mark + text.replace('\n', end)).encode())
            seen.add(T.read_text(f))
    assert seen == {T.corpus(text, 'some.txt')} and seen.pop().text == text


# signs, marks, joiners, other planes, odd line ends
ODD = 'x² ≤ 5 and θ ≥ π/2\u2028e\u0301 é 👩\u200d🚀 𝔸 \u0085\u00a0–−\t\x7f'


def test_no_character_of_a_text_changes_unless_asked(tmp_path):
    f = tmp_path/'odd.txt'
    for mark in b'', b'\xef\xbb\xbf':
        f.write_bytes(mark + ODD.encode())
        assert T.read_text(f) == T.corpus(ODD, 'odd.txt')
    v = Vocabulary.of(ODD)
    assert v.chars == ''.join(sorted(set(ODD))) and v.decode(v.encode(ODD)) == [ODD]
    assert T.windows(v.encode(ODD), 5).shape == (len(ODD)//5, 5)
    assert T.line_of(v, v.encode(ODD)[None]).max() == 0                     # lines end at \n alone


@SETTINGS
@given(st.text(max_size=40), st.sampled_from(T.FORMS))
def test_a_normal_form_lists_the_characters_it_changed(text, form):
    got = T.normalised(text, form)
    if form == 'ASCII': assert got.text == T.plain(text) and set(got.text) <= set(T.ASCII)
    else: assert got.text == unicodedata.normalize(form, text)
    assert Counter(text) - got.lost + got.gained == Counter(got.text)
    assert not set(got.lost) & set(got.gained)
    assert T.normalised(got.text, form) == (got.text, Counter(), Counter())


def test_the_origin_of_a_normalised_text_names_the_form(tmp_path):
    f = tmp_path/'a.txt'
    f.write_text('x² ≤ 5 and θ ≥ π/2', encoding='utf-8')
    ascii = T.corpus('x2  5 and   /2', 'a.txt in ASCII (characters lost: 5, gained: 1)')
    assert T.read_text(f, 'ASCII') == ascii
    nfc = T.corpus('x² ≤ 5 and θ ≥ π/2', 'a.txt in NFC (characters lost: 0, gained: 0)')
    assert T.read_text(f, 'NFC') == nfc
    with pytest.raises(ValueError, match='choose one of NFC, NFD, NFKC, NFKD, ASCII') as e:
        T.read_text(f, 'utf-8')
    assert one_line(e)


def test_a_revision_names_no_folder(tmp_path):
    f = tmp_path/'a.txt'
    f.write_text('ab')
    for path in f, str(f): assert T.read_text(path).revision == 'a.txt, sha256 fb8e20fc2e4c'


# ---- rows

@SETTINGS
@given(st.integers(0, 200), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_parts_are_disjoint_cover_and_have_their_shares(n, a, b, c):
    if not (total := a + b + c): return
    shares = a/total, b/total, c/total
    parts = T.split_text(torch.arange(n), shares)
    assert torch.cat(parts).tolist() == list(range(n))           # in order: no id in two parts, none lost
    assert all(abs(len(p) - n*s) <= 1 for p, s in zip(parts, shares))


@pytest.mark.parametrize(
    'shares',
    [(0.9, 0.1), (0.8, 0.1, 0.2), (1.1, 0.0, -0.1), (0.25,) * 4, (float('nan'), 0.5, 0.5), (0, 0, 0)],
)
def test_shares_that_do_not_sum_to_1_are_refused(shares):
    with pytest.raises(ValueError, match='sum to 1') as e: T.split_text(torch.arange(9), shares)
    assert one_line(e)


@SETTINGS
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 15) | st.none())
def test_windows_are_slices(n, L, stride):
    ids = torch.arange(n).to(torch.uint8)
    if n < L:
        with pytest.raises(ValueError, match=f'{n} characters has no window of {L}'):
            T.windows(ids, L, stride)
        return
    starts = range(0, n - L + 1, stride or L)
    got = T.windows(ids, L, stride)
    assert got.tolist() == [ids[k:k+L].tolist() for k in starts]
    assert got.dtype == ids.dtype and got.data_ptr() == ids.data_ptr()


@pytest.mark.parametrize('L, stride', [(0, None), (4, 0), (4, -1), (-3, 2)])
def test_windows_without_length_or_stride_are_refused(L, stride):
    with pytest.raises(ValueError, match='at least 1'): T.windows(torch.arange(9), L, stride)


def test_no_window_of_one_part_reaches_into_another():
    parts = T.split_text(torch.arange(100), (.7, .2, .1))
    seen = [set(T.windows(p, 5, 1).flatten().tolist()) for p in parts]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 100


# ---- prompts

@SETTINGS
@given(PLAIN, st.data())
def test_a_prompt_has_the_given_characters_masks_at_its_holes_and_pad_at_its_end(text, data):
    v, n = Vocabulary.of(text), len(text)
    holes = data.draw(st.sets(st.integers(0, n - 1)))
    given_text = ''.join('░' if k in holes else c for k, c in enumerate(text))
    L = n + data.draw(st.integers(0, 5))
    x, space = T.infill(v, given_text, L), v.space(L)
    plain = [v.chars.index(c) for c in text] + [v.pad]*(L - n)
    for k in holes: plain[k] = v.mask
    assert x.tolist() == plain and x.dtype == torch.int64
    assert masked(space, x).nonzero().flatten().tolist() == sorted(holes)
    assert real(space, x).sum() == n
    assert v.decode(x) == [given_text]  # read, edit, give back
    assert torch.equal(T.infill(v, v.decode(x)[0], L), x)
    assert torch.equal(T.infill(v, given_text), x[:n])


def test_any_sign_can_be_the_hole_even_a_known_character():
    want = [*SMALL.encode('t'), SMALL.mask, *SMALL.encode(' be')]
    assert T.infill(SMALL, 't_ be', hole='_').tolist() == want
    assert T.infill(SMALL, 'to be', hole='o').tolist() == want
    assert T.infill(SMALL, '', 3).tolist() == [SMALL.pad]*3


@pytest.mark.parametrize(
    'text, kw, why',
    [
        ('to ░ Be', {}, "'B' at position 5 "),
        ('to be', dict(L=4), '5 characters is longer than L=4'),
        ('t_', {}, "'_' at position 1 "),
        ('to', dict(hole=''), "hole sign ''"),
        ('to', dict(hole='__'), "hole sign '__'"),
    ],
)
def test_prompts_that_cannot_be_encoded_are_refused(text, kw, why):
    with pytest.raises(ValueError) as e: T.infill(SMALL, text, **kw)
    assert why in str(e.value) and one_line(e)


# ---- words and lines

def plain_structure(text):
    "Boundary, word and line of every character, one after the other"
    words, lines, word, line, before = [], [], 0, 0, False
    apart = [not (c in '░✗·_' or c.isalnum() or c == '्') for c in text]
    for c, sep in zip(text, apart):
        if before and not sep: word += 1
        words.append(word)
        lines.append(line)
        line, before = line + (c == '\n'), sep
    return apart, words, lines


@SETTINGS
@given(st.lists(PROSE, min_size=1, max_size=4), st.data())
def test_structure_is_the_plain_reading(texts, data):
    L = max(map(len, texts))
    x = torch.stack([T.infill(FULL, t, L) for t in texts])
    at = data.draw(st.lists(st.integers(0, x.numel() - 1), max_size=4))
    x.view(-1)[at] = torch.tensor([FULL.mask, FULL.wrong]*2)[:len(at)]
    want = [plain_structure(t) for t in FULL.decode(x, pad='·')]
    for ids in x, x.to(torch.uint8):
        got = [f(FULL, ids) for f in (T.boundaries, T.word_of, T.line_of)]
        assert [g.dtype for g in got] == [torch.bool, torch.int64, torch.int64]
        assert all(g.shape == x.shape for g in got)
        for k, g in enumerate(got): assert g.tolist() == [w[k] for w in want]


@SETTINGS
@given(PROSE)
def test_numbers_begin_at_zero_and_never_jump(text):
    x = FULL.encode(text)[None]
    for f in T.word_of, T.line_of:
        n = f(FULL, x)[0]
        assert n[0] == 0 and set(n.diff().tolist()) <= {0, 1}
    assert T.line_of(FULL, x)[0, -1] == text[:-1].count('\n')


@pytest.mark.parametrize(
    'c, apart',
    [
        (' ', True),
        ('\n', True),
        ('.', True),
        ("'", True),
        ('-', True),
        ('a', False),
        ('_', False),
        ('9', False),
        ('ß', False),
        ('²', False),
        ('्', False),
    ],
)
def test_which_characters_separate(c, apart):
    assert T.boundaries(FULL, FULL.encode(c)[None]).item() is apart


def test_reserved_tokens_separate_nothing_and_a_text_without_line_ends_is_one_line():
    v = Vocabulary.of('ab c')
    x = T.infill(v, 'ab░c░ b', 9)[None]
    assert not T.boundaries(v, torch.tensor([[v.mask, v.pad, v.wrong]])).any()
    assert T.word_of(v, x)[0, :7].tolist() == [0]*6 + [1]
    assert not T.line_of(v, x).any()


def test_two_vocabularies_do_not_share_a_table():
    x = torch.tensor([[0, 1, 0]])
    assert T.boundaries(Vocabulary('\na'), x).tolist() == [[True, False, True]]
    assert T.boundaries(Vocabulary('ab'), x).tolist() == [[False]*3]


# ---- from the corpus to rows

def test_from_the_reference_to_rows_and_back():
    ref = T.python_reference()
    v = Vocabulary.of(ref.text)
    assert v.V <= 256
    parts = T.split_text(v.encode(ref.text).to(torch.uint8))
    x = T.windows(parts.train, 128, 32)
    assert is_clean(v.space(128), x[::50].long()).all()
    assert v.decode(x[:1]) == [ref.text[:128]]
    assert v.decode(x[7:8]) == [ref.text[7*32:][:128]]
    assert T.line_of(v, x[:1])[0, -1] == ref.text[:127].count('\n')
