"""Methods for text: scores preserve the count of unmasked positions; the demo prints each step."""
import pathlib, re
import pytest, torch

from remask.pipeline import cli
from remask.pipeline.demo import REMASKED, REPLACED, UNMASKED, coloured, marks_of
from remask.core.denoiser import Denoiser
from remask.core.files import save_net
from remask.core.fast import NFECounter
from remask.methods.text_checkpoints import READINGS, SCORES, load_text_checkpoints, text_method
from remask.methods.generation import generate_rows
from remask.core.schedules import linear, uniform_grid
from remask.domains.text import Vocabulary, infill
from remask.policies.ups import ScoreHead
from remask.core.tokens import fully_masked

VOCAB, L, B = Vocabulary.of('abc d\n'), 12, 5
NETWORKS = dict(all_positions=1, corrupted_only=1, own_errors=1, mixed=3)     # kinds of WRONG of each


def network(legal, seed):
    torch.manual_seed(seed)
    net = Denoiser(torch.zeros(L, 0), legal, 16, 1, 2, 0., False)
    for p in net.parameters(): torch.nn.init.normal_(p, 0, .4)      # untrained, with distinct probabilities
    return net


@pytest.fixture(scope='module')
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp('here')/'build'/'networks'/'abc'
    about = dict(chars=VOCAB.chars, L=L, revision='abc')
    save_net(folder/'denoiser.safetensors', network(VOCAB.space(L).legal, 0), **about)
    for k, (n, kinds) in enumerate(NETWORKS.items()):
        detector = network(VOCAB.verdicts(L, kinds).legal, k + 1)
        save_net(folder/f'{n}.safetensors', detector, **about)
    torch.manual_seed(9)
    save_net(folder/'critic.safetensors', ScoreHead(16, 8), **about)
    return load_text_checkpoints(folder)


def quiet(st, x, keep): pass


def write(nets, steps=6, x=None, seed=0, callback=quiet, **choices):
    reads = NFECounter()
    m = text_method(nets, reads, **choices)
    space, times = VOCAB.space(L), uniform_grid(steps)
    if x is None: x = fully_masked(space, torch.ones(B, L, dtype=torch.bool))
    denoiser = nets.denoiser(choices.get('score', ''))
    got = generate_rows(denoiser, linear, space, m, x, times, seed, callback=callback, check=True)
    return got, reads


def n_unmasked(x): return (x != VOCAB.mask).sum(1, keepdim=True).double()


@pytest.mark.parametrize('reading', READINGS)
@pytest.mark.parametrize('score', SCORES)
def test_every_score_and_reading_preserves_the_count_and_leaves_no_mask(nets, score, reading):
    def check(st, x, keep): assert torch.equal(n_unmasked(x), st.n_unmasked)
    got, reads = write(nets, score=score, reading=reading, strength=.4, callback=check)
    assert (got.x < VOCAB.mask).all()
    extra = score in ('extra_pass', 'consensus', *NETWORKS)
    assert torch.equal(reads.rows, torch.full((B,), 6)) if extra else reads.rows is None


@pytest.mark.parametrize('score', SCORES)
def test_randomness_strength_interpolates_from_the_score_to_random(nets, score):
    def ids(**choices): return write(nets, **choices)[0].x
    chance, pure = ids(score='chance'), ids(score=score)
    for reading in 'sum', 'share':
        assert torch.equal(ids(score=score, reading=reading, strength=1.), chance)
        assert torch.equal(ids(score=score, reading=reading, strength=0.), pure)
    if score != 'chance': assert not torch.equal(pure, chance)


@pytest.mark.parametrize('score', SCORES)
def test_remask_lowest_remasks_the_worst_tenth_and_preserves_the_count(nets, score):
    def check(st, x, keep):
        assert torch.equal(n_unmasked(x), st.n_unmasked)
        remasked, decoded = st.decoded & (x == VOCAB.mask), st.decoded.sum(1)
        room = L - st.n_unmasked[:, 0]
        expected = torch.minimum((.1*decoded).round(), room)*(st.s > 0)
        assert torch.equal(remasked.sum(1).double(), expected)
    write(nets, steps=9, remask='remask_lowest', score=score, callback=check)


def test_never_remasks_nothing(nets):
    changed = []
    def count(st, x, keep): changed.append((st.decoded & (x != st.draft)).sum().item())
    write(nets, remask='never', callback=count)
    assert changed == [0]*6


def test_under_a_threshold_a_complete_row_stops_changing(nets):
    done = []
    def stopped(st, x, keep): done.append((st.masked.any(1), (x != st.draft).any(1)))
    write(nets, steps=40, remask='threshold', callback=stopped)
    assert any((~incomplete).any() for incomplete, _ in done[:-1])     # some row was complete early
    assert not any((changed & ~incomplete).any() for incomplete, changed in done)


def test_the_prompt_stays(nets):
    prompt = infill(VOCAB, 'ab░░░c░░', L)[None].repeat(B, 1)
    got, _ = write(nets, x=prompt, score='own_errors')
    given = prompt != VOCAB.mask
    assert torch.equal(got.x[given], prompt[given]) and (got.x != VOCAB.mask).all()


@pytest.mark.parametrize('choices, why', [
    (dict(strength=1.5), 'must lie in'), (dict(strength=-.1), 'must lie in'),
    (dict(strength=float('nan')), 'must lie in'), (dict(score='confidense'), 'did you mean confidence'),
    (dict(reading='some'), 'did you mean'), (dict(remask='ever'), 'did you mean never')])
def test_unknown_words_and_strengths_are_refused(nets, choices, why):
    with pytest.raises(ValueError, match=why): text_method(nets, NFECounter(), **choices)


def test_checkpoints_that_are_missing_or_of_another_text_are_named(nets, tmp_path):
    with pytest.raises(ValueError, match='denoiser.safetensors: no such file'):
        load_text_checkpoints(tmp_path)
    with pytest.raises(ValueError, match='second.safetensors: no such file'): nets.network('second')
    with pytest.raises(ValueError, match='critic.safetensors: holds no Denoiser'): nets.network('critic')
    other = Vocabulary.of('abz')
    denoiser = network(VOCAB.space(L).legal, 0)
    save_net(tmp_path/'denoiser.safetensors', denoiser, chars=VOCAB.chars, L=L, revision='abc')
    detector = network(other.verdicts(L).legal, 0)
    save_net(tmp_path/'own_errors.safetensors', detector, chars=other.chars, L=L, revision='abz')
    foreign = load_text_checkpoints(tmp_path)
    with pytest.raises(ValueError, match="own_errors.safetensors has vocabulary .* it has 'z'"):
        text_method(foreign, NFECounter(), score='own_errors')
    save_net(tmp_path/'denoiser.safetensors', denoiser)
    with pytest.raises(ValueError, match='says nothing of its L, chars, revision'):
        load_text_checkpoints(tmp_path)


# ---- the live view

def plain(shown): return re.sub('\x1b\\[[0-9]+[mA]', '', shown)


def test_the_demo_ends_with_the_text_and_keeps_the_prompt(nets, capsys, monkeypatch):
    monkeypatch.chdir(nets.folder.parents[2])
    pathlib.Path('params.yaml').write_text('{}')        # it is the folder of a project
    cli.main(['demo', 'text', '--text', 'abc', '--prompt', 'a░░░b░', '--steps', '5'])
    shown = capsys.readouterr()
    row, rest = shown.out.split('\n', 1)
    assert row[0] == 'a' and row[4] == 'b' and '░' not in row
    assert '5 steps' in rest and 'step 5: ' in shown.err and ' 0 masked' in shown.err
    with pytest.raises(SystemExit): cli.main(['demo', 'text', '--text', 'abc', '--prompt', 'a#'])
    assert "character '#' at position 1" in capsys.readouterr().err


def test_marks_count_what_each_step_unmasked_and_remasked(nets):
    steps = []
    def note(st, x, keep):
        marks = marks_of(st, x, VOCAB.mask).tolist()
        before, after = int(st.masked[0].sum()), int((x[0] == VOCAB.mask).sum())
        assert after == before - marks.count(UNMASKED) + marks.count(REMASKED)
        changed = (x != st.x)[0] & ~st.masked[0] & (x != VOCAB.mask)[0]
        assert marks.count(REPLACED) == int(changed.sum())
        steps.append(marks)
    write(nets, score='chance', callback=note)
    assert any(REMASKED in marks or REPLACED in marks for marks in steps)


def test_a_coloured_text_has_the_same_characters():
    lines = [[(c, k) for k, c in enumerate('to be')], [(c, k + 5) for k, c in enumerate(' or not')]]
    marks = [UNMASKED, REMASKED]*6
    shown = coloured(lines, marks)
    assert plain(shown) == 'to be\n or not'
    assert shown.count('\x1b[42m') == 6 and shown.count('\x1b[41m') == 6
