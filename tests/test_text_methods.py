"""Methods for text: every score with every reading keeps the law of ranked methods, and the demo shows what they do."""
import re
import pytest, torch

from remask.pipeline import cli
from remask.core.denoiser import Denoiser
from remask.core.files import save_net
from remask.core.fast import NFECounter
from remask.methods.text_checkpoints import READINGS, SCORES, load_text_checkpoints, text_method
from remask.methods.generation import generate_rows
from remask.core.schedules import linear, uniform_grid
from remask.domains.text import Vocabulary, infill
from remask.policies.ups import ScoreHead
from remask.core.tokens import hide

VOCAB, L, B = Vocabulary.of('abc d\n'), 12, 5
NETWORKS = dict(all_positions=1, corrupted_only=1, own_errors=1, mixed=3)     # how many kinds of WRONG each knows


def network(legal, seed):
    torch.manual_seed(seed)
    net = Denoiser(torch.zeros(L, 0), legal, 16, 1, 2, 0., False)
    for p in net.parameters(): torch.nn.init.normal_(p, 0, .4)      # untrained, but with opinions
    return net


@pytest.fixture(scope='module')
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp('here')/'build'/'networks'/'abc'
    about = dict(chars=VOCAB.chars, L=L, revision='abc')
    save_net(folder/'denoiser.safetensors', network(VOCAB.space(L).legal, 0), **about)
    for k, (n, kinds) in enumerate(NETWORKS.items()): save_net(folder/f'{n}.safetensors', network(VOCAB.verdicts(L, kinds).legal, k + 1), **about)
    torch.manual_seed(9); save_net(folder/'critic.safetensors', ScoreHead(16, 8), **about)
    return load_text_checkpoints(folder)


def write(nets, steps=6, x=None, seed=0, callback=lambda *a: None, **choices):
    reads = NFECounter()
    m = text_method(nets, reads, **choices)
    x = hide(VOCAB.space(L), torch.ones(B, L, dtype=torch.bool)) if x is None else x
    got = generate_rows(nets.denoiser(choices.get('score', '')), linear, VOCAB.space(L), m, x, uniform_grid(steps), seed, callback=callback, check=True)
    return got, reads


@pytest.mark.parametrize('reading', READINGS)
@pytest.mark.parametrize('score', SCORES)
def test_every_score_and_reading_keeps_the_schedule_and_writes_characters(nets, score, reading):
    def check(st, x, keep): assert torch.equal((x != VOCAB.mask).sum(1, keepdim=True).double(), st.n_unmasked)
    got, reads = write(nets, score=score, reading=reading, strength=.4, callback=check)
    assert (got.x < VOCAB.mask).all()
    extra = score in ('extra_pass', 'consensus', *NETWORKS)
    assert torch.equal(reads.rows, torch.full((B,), 6)) if extra else reads.rows is None


@pytest.mark.parametrize('score', SCORES)
def test_randomness_strength_goes_from_the_score_to_chance(nets, score):
    ids = lambda **kw: write(nets, **kw)[0].x
    chance, pure = ids(score='chance'), ids(score=score)
    for reading in 'sum', 'share':
        assert torch.equal(ids(score=score, reading=reading, strength=1.), chance)
        assert torch.equal(ids(score=score, reading=reading, strength=0.), pure)
    if score != 'chance': assert not torch.equal(pure, chance)


@pytest.mark.parametrize('score', SCORES)
def test_repair_hides_the_worst_tenth_and_keeps_the_schedule(nets, score):
    def check(st, x, keep):
        assert torch.equal((x != VOCAB.mask).sum(1, keepdim=True).double(), st.n_unmasked)
        lost, seen = st.decoded & (x == VOCAB.mask), st.decoded.sum(1)
        room = L - st.n_unmasked[:, 0]
        assert torch.equal(lost.sum(1).double(), torch.minimum((.1*seen).round(), room)*(st.s > 0))
    write(nets, steps=9, remask='remask_lowest', score=score, callback=check)


def test_never_reveals_once_and_a_complete_row_under_a_threshold_stops_changing(nets):
    lost = []
    write(nets, remask='never', callback=lambda st, x, keep: lost.append((st.decoded & (x != st.draft)).sum().item()))
    assert lost == [0]*6
    done = []
    def stopped(st, x, keep): done.append((st.masked.any(1), (x != st.draft).any(1)))
    write(nets, steps=40, remask='threshold', callback=stopped)
    assert any((~open).any() for open, _ in done[:-1])                     # some row was complete before the end
    assert not any((moved & ~open).any() for open, moved in done)          # and then nothing moved in it


def test_what_is_given_stays(nets):
    prompt = infill(VOCAB, 'ab░░░c░░', L)[None].repeat(B, 1)
    got, _ = write(nets, x=prompt, score='own_errors')
    given = prompt != VOCAB.mask
    assert torch.equal(got.x[given], prompt[given]) and (got.x != VOCAB.mask).all()


@pytest.mark.parametrize('choices, why', [
    (dict(strength=1.5), 'must lie in'), (dict(strength=-.1), 'must lie in'), (dict(strength=float('nan')), 'must lie in'),
    (dict(score='confidense'), 'did you mean confidence'), (dict(reading='some'), 'did you mean'), (dict(remask='ever'), 'did you mean never')])
def test_what_does_not_exist_is_refused(nets, choices, why):
    with pytest.raises(ValueError, match=why): text_method(nets, NFECounter(), **choices)


def test_a_desk_names_what_is_missing_or_foreign(nets, tmp_path):
    with pytest.raises(ValueError, match='denoiser.safetensors: no such file'): load_text_checkpoints(tmp_path)
    with pytest.raises(ValueError, match='second.safetensors: no such file'): nets.network('second')
    with pytest.raises(ValueError, match='critic.safetensors: holds no Denoiser'): nets.network('critic')
    other = Vocabulary.of('abz')
    save_net(tmp_path/'denoiser.safetensors', network(VOCAB.space(L).legal, 0), chars=VOCAB.chars, L=L, revision='abc')
    save_net(tmp_path/'own_errors.safetensors', network(other.verdicts(L).legal, 0), chars=other.chars, L=L, revision='abz')
    with pytest.raises(ValueError, match="own_errors.safetensors has vocabulary .* it has 'z'"): text_method(load_text_checkpoints(tmp_path), NFECounter(), score='own_errors')
    save_net(tmp_path/'denoiser.safetensors', network(VOCAB.space(L).legal, 0))
    with pytest.raises(ValueError, match='says nothing of its L, chars, revision'): load_text_checkpoints(tmp_path)


# ---- the live view

def plain(shown): return re.sub('\x1b\\[[0-9]+[mA]', '', shown)


def test_the_demo_shows_every_step_and_ends_with_the_text(nets, capsys, monkeypatch):
    monkeypatch.chdir(nets.folder.parents[2])
    cli.main(['demo', 'text', '--text', 'abc', '--prompt', 'a░░░b░', '--steps', '5', '--pause', '0', '--score', 'own_errors'])
    *steps, _, end = plain(capsys.readouterr().out).split('\n')[:7]
    assert len(steps) == 5 and all(s[0] == 'a' and s[4] == 'b' for s in steps)
    assert '░' in steps[0] and '░' not in steps[4]
    with pytest.raises(SystemExit): cli.main(['demo', 'text', '--text', 'abc', '--prompt', 'a#'])
    assert "character '#' at position 1" in capsys.readouterr().err
    with pytest.raises(SystemExit): cli.main(['demo', 'text', '--text', 'abc', '--strength', '2'])
    assert 'randomness_strength=2.0' in capsys.readouterr().err


def test_watching_counts_what_was_revealed_and_what_was_lost(nets):
    watch, steps = cli.Watch(VOCAB), []
    def both(st, x, keep):
        watch(st, x, keep); steps.append((int(st.masked[0].sum()), (x[0] != VOCAB.mask).sum().item()))
    write(nets, score='chance', callback=both)
    for (text, marks), (hidden, visible) in zip(watch.frames, steps):
        assert len(text) == len(marks) == L and L - text.count('░') == visible
        assert visible == L - hidden + marks.count(1) - marks.count(3)
    assert any(3 in marks for _, marks in watch.frames)


def test_a_painted_text_is_the_text():
    text, new, lost = 'to be\nor not', [1, 0]*6, [0, 1]*6
    shown = cli.painted(text, new, lost, width=5)
    assert plain(shown).replace('\n', '') == text.replace('\n', '↵')
    assert shown.count('\x1b[42m') == 6 and shown.count('\x1b[41m') == 6
