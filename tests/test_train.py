"""Training: killed runs, the published loss, the likelihood bound, the average, and what is refused."""
import math, os, signal, subprocess, sys
from collections import Counter
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple
import numpy as np, pytest, torch
from remask.core.denoiser import Denoised, Denoiser, load_denoiser, trimmed
from remask.core.files import open_tensors, save_net, save_tensors
from remask.domains.graphs import (
    MASK, NO_EDGE, N_ROOMS, PAD, V, Graph, encode_graphs, graph_position_features,
    graph_rate_network, graph_space)
from remask.core.loss import token_weights
from remask.core.schedules import elbo_weight, linear, log_uniform_times, poly, uniform_times
from remask.core.tokens import real
from remask.core.train import (
    Recipe, batch_rows, finish, fit, forecast, provenance, published, published_v2, rate, resume, row_losses)
from remask.core.training_state import Curve, accept_code, claim, code_digests, definition

SPACE, EDGES = graph_space(4), torch.arange(N_ROOMS, NO_EDGE + 1)


def graph(k):
    types = 0, k % 3 + 1, 2, 9
    return Graph(types[:3 + k % 2], ((0, 1, k % 3), (1, 2, 3)))


ROWS = encode_graphs([graph(k) for k in range(64)], 4)
RECIPE = published(token_weights(ROWS, EDGES, V, 13), lr=1e-2, warmup=5, decay=.5, batch=16, ema=.9)


def fresh(n_max=4, d=16, layers=1, seed=0):
    torch.manual_seed(seed)
    return Denoiser(graph_position_features(n_max), graph_space(n_max).legal, d=d, layers=layers, dropout=.1)


def fixed(): return RECIPE


def learned():
    "The recipe of v2 with a fresh schedule"
    torch.manual_seed(1)
    how = dict(lr=1e-2, warmup=5, batch=16, ema=.9)
    return published_v2(RECIPE.token_weight, (~SPACE.legal[:, 0]).long(), alpha=graph_rate_network(4), **how)


def constant():
    "The recipe of v1 at a constant rate: the number of steps does not matter"
    return RECIPE._replace(decay=0.)


RECIPES = dict(v1=fixed, v2=learned, constant=constant)
FALLING = ['v1', 'v2']


def train(folder, steps=40, recipe='v1', **options):
    "Forty small steps with dropout, saved every ten"
    options = dict(save_every=10, log_every=1) | options
    return fit(fresh(), SPACE, ROWS, RECIPES[recipe](), steps, folder, **options)


def weights(net): return [p.detach().clone() for p in net.parameters()]
def parts(trained): return torch.nn.ModuleList(m for m in trained if isinstance(m, torch.nn.Module))
def same(a, b): return all(torch.equal(p, q) for p, q in zip(weights(a), weights(b), strict=True))
def die(): os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(folder, where, recipe):
    "Run in a process of its own: killed in the middle of step 33, or while it writes the state of step 20"
    curve, replace, writes = Curve(folder), os.replace, []

    def dying(a, b):
        writes.append(b)
        if len(writes) == 2: die()
        replace(a, b)

    def log(k, m):
        if where == 'step' and k == 33: die()
        curve.log(k, m)

    if where == 'writing': os.replace = dying
    train(folder, recipe=recipe, log=log)


@pytest.fixture(scope='module', params=FALLING)
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    trained = train(folder, recipe=request.param, log=Curve(folder).log)
    return parts(trained), Curve(folder).of('loss'), request.param


@pytest.mark.parametrize('where, last', [('step', 30), ('writing', 10)])
def test_a_killed_run_ends_like_one_that_was_not(tmp_path, whole, where, last):
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" \
           f"import test_train; test_train.train_and_die({str(tmp_path)!r}, {where!r}, {whole[2]!r})"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert open_tensors(tmp_path/'state.safetensors')[1]['step'] == last
    unfinished = [*tmp_path.glob('.state.safetensors.*.part')]
    assert len(unfinished) == (where == 'writing')
    curve = Curve(tmp_path)
    assert same(parts(train(tmp_path, recipe=whole[2], log=curve.log)), whole[0])
    assert Curve(tmp_path).of('loss') == whole[1] and whole[1][0] == tuple(range(1, 41))
    assert provenance(tmp_path, ROWS)['steps'] == 40


def test_a_run_that_is_done_is_done(tmp_path, whole):
    train(tmp_path, recipe=whole[2])
    before = (tmp_path/'state.safetensors').read_bytes()
    def log(k, m): pytest.fail('it went on')
    again = train(tmp_path, recipe=whole[2], log=log)
    assert same(parts(again), whole[0])
    assert (tmp_path/'state.safetensors').read_bytes() == before


# ---- a training started again: the state on disk, the number of steps, the result

def begun_at(folder, made, finished=None, asked=None):
    "A folder in which a run has made some steps, and perhaps was finished after fewer"
    if finished:
        train(folder, finished, 'constant')
        finish(folder)
    if asked: train_until(folder, made, asked)
    else: train(folder, made, 'constant')


def train_until(folder, made, asked):
    def stop(k, m):
        if k == made: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): train(folder, asked, 'constant', log=stop)


class Case(NamedTuple):
    made: int       # steps of the run before
    asked: int      # steps asked for now
    first: int      # step at which the training begins
    message: str
    finished: int|None = None   # steps at which a run before that was finished
    of: int|None = None         # steps asked for by the run before, if it was stopped


CASES = {}
CASES['nothing is there'] = Case(0, 8, 0, 'a new training of 8 steps')
CASES['it was stopped'] = Case(5, 8, 5, 'goes on at step 5 of 8', of=8)
CASES['killed before the outputs were written'] = Case(8, 8, 8, 'all 8 steps are made')
CASES['a longer one, the shorter finished'] = Case(5, 8, 5, 'goes on at step 5 of 8', finished=5)
CASES['a longer one that was stopped'] = Case(6, 8, 6, 'goes on at step 6 of 8', finished=5, of=8)
CASES['a longer one, not yet written'] = Case(8, 8, 8, 'all 8 steps are made', finished=5)
CASES['a shorter one'] = Case(8, 5, 0, 'starts afresh, of 5 steps')
CASES['a shorter one of a finished one'] = Case(8, 5, 0, 'starts afresh, of 5 steps', finished=8)
AGAIN = '8 steps were made before; the training starts afresh, of 8 steps'
CASES['the finished one'] = Case(8, 8, 0, AGAIN, finished=8)


@pytest.mark.parametrize('case', CASES)
def test_a_training_asked_for_again(tmp_path, case):
    made, asked, first, message, finished, of = CASES[case]
    if made: begun_at(tmp_path, made, finished, of)
    state = tmp_path/'state.safetensors'
    was = state.read_bytes() if made else b''
    assert message in resume(tmp_path, asked)
    # nothing made is lost: the state is kept, or moved to another name
    assert state.exists() == (first > 0)
    if first: assert state.read_bytes() == was
    elif made: assert (tmp_path/'before.safetensors').read_bytes() == was
    steps, curve = [], Curve(tmp_path)
    assert curve.start == first
    def log(k, m): steps.append(k)
    got = train(tmp_path, asked, 'constant', log=log)
    assert steps == [*range(first + 1, asked + 1)]
    if finished in (None, asked) and made in (0, asked):
        assert same(parts(got), parts(train(tmp_path/'other', asked, 'constant')))
    finish(tmp_path)
    assert 'starts afresh' in resume(tmp_path, asked)


def test_fewer_steps_than_were_made_are_no_silent_longer_training(tmp_path):
    train(tmp_path, 8, 'constant')
    with pytest.raises(ValueError, match='has made 8 steps, and 5 are asked for: call `resume` first'):
        train(tmp_path, 5, 'constant')


@pytest.mark.parametrize('recipe', FALLING)
def test_a_forecast_counts_and_leaves_everything_as_it_is(tmp_path, recipe):
    "Also of a schedule that is learnt: the same training with and without it"
    net, how = fresh(), RECIPES[recipe]()
    before, drawn = weights(parts((net, how.alpha))), torch.get_rng_state()
    message = forecast(net, SPACE, ROWS, how, 8, tmp_path)
    n = sum(p.numel() for p in before)
    assert message.startswith(f'{n:,} parameters to learn, 64 rows, 8 of 8 steps to go, about 2 seconds')
    assert all(map(torch.equal, before, weights(parts((net, how.alpha)))))
    assert torch.equal(drawn, torch.get_rng_state())
    assert not [*tmp_path.iterdir()]
    options = dict(save_every=10, log_every=1)
    got = fit(net, SPACE, ROWS, how, 8, tmp_path/'a', **options)
    assert same(parts(got), parts(train(tmp_path/'b', 8, recipe)))


def test_seed_and_order_matter(tmp_path, whole):
    assert not same(parts(train(tmp_path, recipe=whole[2], seed=1)), whole[0])


def test_a_learned_schedule_moves(tmp_path):
    net, alpha = train(tmp_path, recipe='v2')
    begun, ok = learned().alpha, real(SPACE, ROWS[:1])
    assert (alpha(.9, ok) - begun(.9, ok)).abs().max() > 1e-3 and not net.training
    assert open_tensors(tmp_path/'state.safetensors')[0].keys() >= {'net.alpha.slots', 'ema.alpha.slots'}


def train_shared(folder):
    "Twelve steps without dropout, by however many processes this is run in"
    torch.manual_seed(0)
    net, curve = Denoiser(graph_position_features(4), SPACE.legal, d=16, layers=1, dropout=0.), Curve(folder)
    recipe = learned()._replace(times=log_uniform_times)
    fit(net, SPACE, ROWS, recipe, 12, folder, log=curve.log, log_every=4)


def test_two_processes_train_as_one(tmp_path):
    train_shared(tmp_path/'one')
    script = tmp_path/'script.py'
    here = str(Path(__file__).parent)
    script.write_text(f"import sys; sys.path.insert(0, {here!r})\nfrom pathlib import Path\n"
                      f"import test_train; test_train.train_shared(Path({str(tmp_path/'two')!r}))")
    launch = ('accelerate.commands.launch', '--cpu', '--num_processes', '2', '--num_machines', '1',
              '--main_process_port', '0')
    done = subprocess.run([sys.executable, '-m', *launch, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (open_tensors(tmp_path/n/'state.safetensors')[0] for n in ('one', 'two'))
    assert one.keys() == two.keys()
    for k in one: torch.testing.assert_close(one[k], two[k], rtol=2e-3, atol=2e-5)
    assert Curve(tmp_path/'two').of('loss')[0] == (4, 8, 12)


# ---- what makes a training another one

def asked(steps=8, **changes):
    "What a training with a changed recipe is asked to be"
    return definition(fresh(), SPACE, ROWS, constant()._replace(**changes), steps)


def fit_changed(folder, steps=8, **changes):
    return fit(fresh(), SPACE, ROWS, constant()._replace(**changes), steps, folder)


CHANGES = [dict(lr=2e-2), dict(decay=.9), dict(ema=.5), dict(weight=None), dict(per=partial(max, 1)),
           dict(token_weight=RECIPE.token_weight*2), dict(alpha=poly), dict(batch=8), dict(streams=2)]


@pytest.mark.parametrize('change', CHANGES, ids=[*map(str, range(len(CHANGES)))])
def test_a_changed_recipe_trains_and_never_takes_the_old_tensors(tmp_path, change):
    fit_changed(tmp_path, 5)
    name, = change
    refuses(('another training', name, 'call `resume` first'), fit_changed, tmp_path, **change)
    message = resume(tmp_path, 8, asked(**change))
    assert name in message and 'starts afresh, of 8 steps' in message
    assert not (tmp_path/'state.safetensors').exists()


def test_a_longer_training_whose_rate_falls_is_another_one(tmp_path):
    fit_changed(tmp_path, 5, decay=.5)
    refuses(('another training', 'steps'), fit_changed, tmp_path, 8, decay=.5)
    assert 'they differ in steps; the training starts afresh' in resume(tmp_path, 8, asked(8, decay=.5))


def scaled_weight(by):
    def weight(alpha, t, real): return by*elbo_weight(alpha, t, real)
    return weight


def test_other_first_values_are_another_training_and_an_older_state_goes_on(tmp_path):
    def begun(seed): return fit(fresh(seed=seed), SPACE, ROWS, constant(), 6, tmp_path, save_every=3)
    fit(fresh(), SPACE, ROWS, constant(), 3, tmp_path, save_every=3)
    with pytest.raises(ValueError, match='another training .different: start.'): begun(1)
    tensors, about = open_tensors(tmp_path/'state.safetensors')
    del about['definition']['start']
    save_tensors(tmp_path/'state.safetensors', tensors, about)
    begun(0)
    assert open_tensors(tmp_path/'state.safetensors')[1]['step'] == 6


def test_a_token_that_never_occurs_has_no_weight():
    weights = token_weights(torch.tensor([[0, 0, 1]]), torch.arange(3), 5, 3)
    assert weights.tolist() == [.5, 1., 0., 1., 1.]


def test_functions_that_differ_in_what_they_closed_over_differ():
    one, two, again = (asked(weight=scaled_weight(by)) for by in (1, 2, 1))
    assert one == again and one['weight'] != two['weight']
    assert asked() != definition(fresh(layers=2), SPACE, ROWS, constant(), 8)
    assert asked()['data'] != definition(fresh(), SPACE, ROWS[1:], constant(), 8)['data']
    assert asked()['net'] == definition(fresh(seed=5), SPACE, ROWS, constant(), 8)['net']


def other_code(folder):
    "Pretend that the state in a folder was made by other code"
    tensors, about = open_tensors(folder/'state.safetensors')
    about['definition']['code']['remask.core.loss'] = '0'
    save_tensors(folder/'state.safetensors', tensors, about)


def before_definitions(folder):
    "Pretend that the state in a folder was made before states recorded a definition"
    tensors, about = open_tensors(folder/'state.safetensors')
    save_tensors(folder/'state.safetensors', tensors, {k: about[k] for k in ('step', 'seconds')})


AGEING = [(other_code, 'remask.core.loss differ'), (before_definitions, 'before states')]


@pytest.mark.parametrize('ageing, words', AGEING)
def test_changed_code_goes_on_only_for_a_reason_which_is_recorded(tmp_path, ageing, words):
    fit_changed(tmp_path, 5)
    ageing(tmp_path)
    for ask in partial(fit_changed, tmp_path), partial(resume, tmp_path, 8, asked()):
        refuses((words, "accept_code='...'"), ask)
    accept_code(tmp_path, asked(), 'a comment was changed')
    accept_code(tmp_path, asked(), 'said twice')
    assert 'goes on at step 5 of 8' in resume(tmp_path, 8, asked())
    got, whole = fit_changed(tmp_path), fit_changed(tmp_path/'whole')
    assert same(parts(got), parts(whole))
    origin = provenance(tmp_path, ROWS)
    assert [(e['step'], e['reason']) for e in origin['accepted_code']] == [(5, 'a comment was changed')]
    assert 'accepted_code' not in provenance(tmp_path/'whole', ROWS)


def test_provenance_is_what_trained_and_not_what_is_asked_for(tmp_path):
    fit_changed(tmp_path, ema=.5)
    trained = provenance(tmp_path, ROWS)['definition']
    assert (trained['ema'], trained['lr']) == (.5, 1e-2)
    refuses((str(tmp_path), 'other data'), provenance, tmp_path, ROWS[1:])


def test_the_digest_of_code_ignores_comments_and_docstrings(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = 'def f(x):\n    "Double"\n    return 2*x\n', '# twice\ndef f(x):\n    "Twice"\n    return 2*x\n'
    digests = []
    for text in *texts, texts[0].replace('2*x', '3*x'):
        (tmp_path/'doubling.py').write_text(text)
        sys.modules.pop('doubling', None)
        __import__('doubling')
        digests.append(code_digests(['doubling']))
    sys.modules.pop('doubling')
    assert digests[0] == digests[1] != digests[2]


# ---- the curve, and one training at a time

def test_a_torn_last_line_of_a_curve_is_forgiven_and_a_damaged_one_named(tmp_path):
    train(tmp_path, 3, log=Curve(tmp_path).log)
    whole = (tmp_path/'curve.jsonl').read_text()
    (tmp_path/'curve.jsonl').write_text(whole + '{"step": 3, "lo')
    assert Curve(tmp_path).of('loss')[0] == (1, 2, 3)
    assert (tmp_path/'curve.jsonl').read_text() == whole
    (tmp_path/'curve.jsonl').write_text(whole.replace('"step": 2', '"st', 1))
    refuses((str(tmp_path/'curve.jsonl'), 'line 2'), Curve, tmp_path)


def test_a_second_training_at_once_is_refused_at_the_start(tmp_path):
    code = f"from remask.core.training_state import claim\nlock = claim({str(tmp_path)!r})\n" \
           "print('claimed', flush=True)\ninput()"
    both = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other = subprocess.Popen([sys.executable, '-c', code], **both)
    assert other.stdout.readline() == 'claimed\n'
    def log(k, m): pytest.fail('it trained')
    for ask in partial(train, tmp_path, 3, log=log), partial(claim, tmp_path):
        refuses((str(tmp_path), 'another process trains here'), ask)
    other.kill()
    other.wait()
    train(tmp_path, 3)


# ---- the published loss, written again in plain Python over single tokens ----

def published_t(u, eps=1e-3):
    "Importance-sampled time of Davis's log-linear schedule, through total noise"
    clean, noise = -math.log(1 - eps), -math.log(eps)
    f0 = math.log(1 - math.exp(-clean))
    f1 = math.log(1 - math.exp(-noise))
    sigma = -math.log(1 - math.exp(u*f1 + (1-u)*f0))
    return min(max((1 - math.exp(-sigma))/(1 - eps), 0.), 1.)


def published_row(denoise, x, t, u, class_weight, eps=1e-3):
    "Loss of one row: weighted edges, over N_active, times min(1000, -alpha'/(1-alpha))"
    t = min(max(t, 1e-5), 1.)
    alpha = 1 - (1 - eps)*t
    active = [l for l in range(len(x)) if x[l] != PAD and u[l] >= alpha]
    x_t = torch.tensor([[MASK if l in active else x[l] for l in range(len(x))]])
    logits = denoise(x_t, t, torch.tensor([x]) != PAD).logits[0].tolist()
    total = 0.
    for l in active:
        top = max(logits[l])
        norm = math.log(sum(math.exp(z - top) for z in logits[l]))
        ce = top + norm - logits[l][x[l]]
        total += ce*(1. if x[l] < N_ROOMS else class_weight[x[l]])
    return min(1000., (1 - eps)/(1 - alpha + 1e-8))*total/max(1, len(active))


def class_weights(rows):
    "total/(13 count) of each relation and of no-edge, by counting"
    count = Counter(v for row in rows for v in row if N_ROOMS <= v <= NO_EDGE)
    return {v: count.total()/(13*c) for v, c in count.items()}


@pytest.fixture(scope='module')
def net():
    net = fresh(layers=2, seed=5).eval()
    for p in net.parameters(): torch.nn.init.normal_(p, std=.2)
    return net.requires_grad_(False)


def test_the_published_loss(net):
    g = torch.Generator().manual_seed(1)
    u_t, u = torch.rand(64, generator=g), torch.rand(64, SPACE.L, generator=g)
    u_t[:4], u[0] = torch.tensor([0., .9999, .9, .8]), 1.
    got = row_losses(net, SPACE, ROWS, RECIPE, u_t, u)
    w = class_weights(ROWS.tolist())
    each = zip(ROWS.tolist(), u_t.tolist(), u.tolist())
    want = [published_row(net, x, published_t(a), b, w) for x, a, b in each]
    torch.testing.assert_close(got, torch.tensor(want), rtol=2e-4, atol=1e-5)
    assert (got > 0).sum() >= 16 and (got == 0).any()   # the loss of rows with nothing masked is 0
    trim = row_losses(trimmed(net), SPACE, ROWS, RECIPE, u_t, u)
    torch.testing.assert_close(got, trim, rtol=2e-4, atol=1e-5)


def test_its_weight_is_capped(net):
    recipe = RECIPE._replace(times=uniform_times)
    u_t = torch.tensor([2e-5, 5e-4, .0009, .0011, .5, .9, 1., .1])
    u = torch.rand(8, SPACE.L, generator=torch.Generator().manual_seed(3))
    u[:, [1, 5]] = 1.
    w = class_weights(ROWS.tolist())
    each = zip(ROWS.tolist(), u_t.tolist(), u.tolist())
    want = [published_row(net, x, a, b, w) for x, a, b in each]
    got = row_losses(net, SPACE, ROWS[:8], recipe, u_t, u)
    torch.testing.assert_close(got, torch.tensor(want), rtol=2e-4, atol=1e-5)
    weight = elbo_weight(linear, u_t, real(SPACE, ROWS[:8]))[:5, 0]
    assert weight.tolist()[:3] == [1000.]*3 and weight[3] < 1000


def test_published_times_are_log_uniform():
    u, one = torch.linspace(0, .999, 50), torch.ones(50, SPACE.L).bool()
    t = RECIPE.times(u, RECIPE.alpha, one)
    np.testing.assert_allclose(t, [published_t(v) for v in u.tolist()], rtol=1e-6)
    np.testing.assert_allclose(np.diff(np.log(t)), np.diff(np.log(t))[0], rtol=1e-3)


# ---- with t uniform and no weight, the loss is the order-agnostic bound ----

BOUND_SPACE = graph_space(3)
BOUND_ROWS = encode_graphs([Graph((7, 1, 0), ((0, 1, 3), (1, 2, 9))), Graph((0, 2), ())], 3)


def guess(x, t, real):
    "A fixed denoiser whose output depends on every unmasked token, and not on t"
    def draw(*shape, seed): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    L = x.shape[1]
    h = draw(L, V, 16, seed=1)[torch.arange(L), x].sum(1).tanh()
    logits = (h @ draw(16, L*V, seed=2)).view(len(x), L, V)
    return Denoised(logits.masked_fill(~BOUND_SPACE.legal, -torch.inf))


def maskings(x):
    "Every way to mask some real positions of a row, as uniforms of 0 (unmasked) and 1 (masked)"
    at = (x != PAD).nonzero()[:, 0]
    u = torch.zeros(2**len(at), len(x))
    u[:, at] = torch.tensor(list(product([0., 1.], repeat=len(at))))
    return u


def order_agnostic(x):
    "Mean over all orders of -log p of the row: sum over masked sets S of CE(S)/(|S| C(L,|S|))"
    n, total = int((x != PAD).sum()), 0.
    for u in maskings(x).bool()[1:]:
        logits, size = guess(torch.where(u, MASK, x)[None], None, None).logits[0], int(u.sum())
        logp = logits.double().log_softmax(-1)
        total -= logp[u, x[u]].sum().item()/(size*math.comb(n, size))
    return total


def expected(x, recipe):
    "Exact mean of the loss of a row over t and all masks: Gauss' rule is exact for polynomials in t"
    nodes, mass = np.polynomial.legendre.leggauss(8)
    u, n, total = maskings(x), int((x != PAD).sum()), 0.
    for t, w in zip((nodes + 1)/2, mass/2):
        same_t, rows = torch.full((len(u),), t), x.expand(len(u), -1)
        loss = row_losses(guess, BOUND_SPACE, rows, recipe, same_t, u).double()
        masking, k = 1 - float(recipe.alpha(t, x[None] != PAD).mean()), u.sum(1)
        total += w*(loss*masking**k*(1 - masking)**(n - k)).sum().item()
    return total


@pytest.mark.parametrize('x', BOUND_ROWS, ids=['6 tokens', '3 tokens'])
def test_without_weights_the_loss_is_the_order_agnostic_bound(x):
    n, bound = int((x != PAD).sum()), order_agnostic(x)
    assert expected(x, Recipe(alpha=partial(poly, power=1.)))*(n + 1) == pytest.approx(bound, rel=1e-5)
    assert expected(x, Recipe())*(n + 1) == pytest.approx(bound, rel=5e-3)   # alpha ends at .001, not at 0
    other = expected(x, Recipe(alpha=partial(poly, power=1.), weight=elbo_weight))*(n + 1)
    assert other > 1.2*bound   # 1/t as well as 1/N_active counts small t twice


def test_sampled_losses_have_that_mean():
    x, N, g = BOUND_ROWS[0], 100_000, torch.Generator().manual_seed(0)
    u_t, u = torch.rand(N, generator=g), torch.rand(N, 6, generator=g)
    loss = 7*row_losses(guess, BOUND_SPACE, x.expand(N, -1), Recipe(), u_t, u)
    tolerance = 5*loss.std()/N**.5 + 5e-3*loss.mean()
    assert abs(loss.mean() - order_agnostic(x)) < tolerance


# ---- the average, the rate, the order of the rows ----

@pytest.mark.parametrize('ema', [0., .5, .999])
def test_the_trained_network_is_the_exponential_moving_average(tmp_path, ema):
    net, after, measured = fresh(), [], []
    average = [p.double() for p in weights(net)]
    def log(k, m):
        if m: after.append(weights(net))
    def measure(trained):
        measured.append(trained.net)
        return {}
    options = dict(log=log, log_every=1, measure=measure, measure_every=4)
    got = fit(net, SPACE, ROWS, RECIPE._replace(ema=ema), 12, tmp_path, **options).net
    assert len(after) == 12 and len(measured) == 3
    for k, now in enumerate(after):
        d = min(ema, (k + 1)/(k + 10))
        average = [d*a + (1 - d)*p for a, p in zip(average, now)]
    for a, p in zip(average, weights(got)): torch.testing.assert_close(p, a.float(), rtol=1e-4, atol=1e-6)
    ok = real(SPACE, ROWS)
    def logits(net): return trimmed(net)(ROWS, .5, ok).logits
    assert torch.equal(logits(measured[-1]), logits(got)) and not got.training
    if not ema: assert all(map(torch.equal, after[-1], weights(got)))


@pytest.mark.parametrize('n, size', [(64, 16), (10, 3), (7, 7), (5, 8)])
def test_an_epoch_visits_each_row_once(n, size):
    per = max(1, n//size)
    def rows_of(steps, seed): return torch.cat([batch_rows(n, size, k, seed=seed) for k in steps])
    def epoch(e, seed=3): return rows_of(range(e*per, (e + 1)*per), seed)
    for rows in map(epoch, range(4)):
        assert len(rows) == (n if n < size else per*size)
        assert len(set(rows.tolist())) == len(rows)
        assert 0 <= rows.min() and rows.max() < n
    assert any(not torch.equal(epoch(0), epoch(e)) for e in (1, 2, 3))
    assert not torch.equal(epoch(0), epoch(0, seed=4))
    assert set(rows_of(range(50*per), 3).tolist()) == set(range(n))


def test_the_noise_of_every_step_is_new_and_its_times_are_spread(tmp_path):
    net, uniforms, times, shares = fresh(), [], [], []
    def record_uniforms(u, alpha, real):
        uniforms.append(u)
        return uniform_times(u, alpha, real)
    def record_masked(net, args):
        x, t = args[:2]
        times.append(t)
        shares.append((x == MASK).double().mean(1))
    net.register_forward_pre_hook(record_masked)
    same_row = ROWS[1:2].expand(64, -1)
    fit(net, SPACE, same_row, Recipe(times=record_uniforms, batch=16), 30, tmp_path)
    assert len({tuple(u.tolist()) for u in uniforms}) == 30
    assert len({share.numpy().tobytes() for share in shares}) == 30
    for u in uniforms: assert (u*16).long().tolist() == list(range(16))   # one time in each sixteenth
    # rows with nothing masked are not evaluated
    sixteenth = (torch.cat(times)*16).long()
    # of the row with a time in each sixteenth
    share = torch.zeros(16).double().index_add(0, sixteenth, torch.cat(shares))/30
    expected_share = (torch.arange(16) + .5)/16
    assert (share - expected_share).abs().max() < 5*(.25/300)**.5


def test_the_published_rate_rises_and_stays():
    recipe = published(torch.ones(V))
    got = [rate(recipe, k, 126_000) for k in (0, 499, 999, 1000, 125_999)]
    assert got == pytest.approx([3e-7, 1.5e-4, 3e-4, 3e-4, 3e-4])


# ---- what is refused, in one sentence ----

def refuses(words, f, *args, **kwargs):
    with pytest.raises(ValueError) as e: f(*args, **kwargs)
    text = str(e.value)
    assert all(w in text for w in words) and '\n' not in text, text


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp('begun')
    save_net(folder/'net.safetensors', train(folder, steps=3).net, steps=3)
    return folder


def half(b): return b[:len(b)//2]
def empty(b): return b''
def overwritten(b): return b'\xff'*len(b)
def one_byte_short(b): return b[:-1]


@pytest.mark.parametrize('damage', [half, empty, overwritten, one_byte_short])
@pytest.mark.parametrize('name', ['state', 'net'])
def test_a_damaged_file_is_named(begun, tmp_path, name, damage):
    path = tmp_path/f'{name}.safetensors'
    path.write_bytes(damage((begun/path.name).read_bytes()))
    damaged, words = path.read_bytes(), (str(path), 'not a whole safetensors file', 'delete it')
    if name == 'state': refuses(words, train, tmp_path)
    else: refuses(words, load_denoiser, path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize('other', [dict(d=32), dict(layers=2), dict(n_max=5)], ids=str)
def test_the_state_of_another_network_is_refused_and_kept(begun, other):
    path, net = begun/'state.safetensors', fresh(**other)
    kept, before = path.read_bytes(), weights(net)
    n_max = other.get('n_max', 4)
    rows, space = encode_graphs([Graph((0, 1), ())]*16, n_max), graph_space(n_max)
    refuses((str(path), 'another network', 'delete it'), fit, net, space, rows, RECIPE, 9, begun)
    assert path.read_bytes() == kept and all(map(torch.equal, before, weights(net)))


def test_a_checkpoint_of_another_kind_or_length_is_refused(begun, tmp_path):
    path = begun/'net.safetensors'
    net, origin = load_denoiser(path, L=10)
    assert origin == dict(steps=3) and not net.training
    refuses((str(path), '10 positions', '36'), load_denoiser, path, L=36)
    refuses(('no such file', 'dvc pull'), load_denoiser, tmp_path/'none')
    refuses(('holds no Denoiser',), load_denoiser, begun/'state.safetensors')
    (tmp_path/'state.safetensors').write_bytes(path.read_bytes())
    refuses(('another network',), train, tmp_path)


def nan_weight(alpha, t, real): return torch.full((len(t), 1), torch.nan)


BROKEN = Counter()
def weight_until_broken(alpha, t, real): return torch.full((len(t), 1), torch.nan if BROKEN['now'] else 1.)


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state(tmp_path):
    recipe = constant()._replace(weight=weight_until_broken)
    words = 'not a number', 'state of step 3', 'lower'
    fit(fresh(), SPACE, ROWS, recipe, 3, tmp_path)
    good = (tmp_path/'state.safetensors').read_bytes()
    BROKEN['now'] = 1
    refuses(words, fit, fresh(), SPACE, ROWS, recipe, 9, tmp_path, log_every=2)
    assert (tmp_path/'state.safetensors').read_bytes() == good


def test_a_network_of_nan_is_never_saved(tmp_path):
    "NaN between two log entries stops the run at the next save, even at the end, and leaves no state"
    space = graph_space(4)
    x0 = encode_graphs([Graph((0, 1, 2), ((0, 1, 3),))]*16, 4)
    net = Denoiser(graph_position_features(4), space.legal, d=16, layers=1)
    recipe = Recipe(batch=8, weight=nan_weight)
    with pytest.raises(ValueError, match='not a number'): fit(net, space, x0, recipe, 9, tmp_path)
    assert not (tmp_path/'state.safetensors').exists()


def test_the_same_content_is_the_same_bytes(tmp_path):
    "Or a pipeline would take every rewritten file for a new one"
    tensors, about = {k: torch.arange(3) for k in 'dbca'}, {k: k for k in 'gfedcba'}
    contents = set()
    for _ in range(8):
        save_tensors(tmp_path/'t', tensors, about)
        contents.add((tmp_path/'t').read_bytes())
    assert len(contents) == 1 and open_tensors(tmp_path/'t')[1] == about


def test_times_of_a_batch_are_spread_unless_the_recipe_draws_each_alone(tmp_path):
    def times(stratified, folder):
        drawn = []
        def record(u, alpha, ok):
            drawn.append(u.clone())
            return uniform_times(u, alpha, ok)
        recipe = Recipe(times=record, batch=16, lr=0., stratified=stratified)
        fit(fresh(), SPACE, ROWS, recipe, 40, tmp_path/folder, save_every=1000)
        return torch.stack(drawn)
    spread, alone = times(True, 'a'), times(False, 'b')
    assert (spread*16).floor().equal(torch.arange(16.).expand(40, -1))
    torch.testing.assert_close(spread*16 % 1, alone, rtol=0, atol=1e-5)
    assert alone.min() < .02 and alone.max() > .98 and abs(alone.mean() - .5) < .05
    assert (alone.argsort(1) != torch.arange(16)).any(1).all()
