"""Every method of the catalogue against a plain rewriting of its published step; every mutation is caught."""
import ast, bisect, inspect, itertools, math, pathlib, types
from itertools import product
import pytest, torch
from helpers import heldout_limit
from remask.methods import catalogue, exact_benchmark
from remask.methods import registry as methods
from remask.policies import correctors, dependence, prism, ranked, remdm, ups
from remask.core import sampler
from remask.core.denoiser import Denoised
from remask.methods.catalogue import CATALOGUE, METHOD_INFO
from remask.core.sampler import CHOOSE, DRAW, KEEP, Noise, Process, categorical, nucleus, sample
from remask.core.schedules import linear
from remask.core.tokens import TokenSpace
from remask.core.exact import markov, sudoku, tv_to_exact

L, K, MASK, PAD, SEEDS = 9, 4, 4, 5, (0, 1, 2)
SPACE = TokenSpace(MASK, PAD, (torch.arange(6) < K).repeat(L, 1))
HEADS = 'prism', 'ups', 'planner', 'critic'
G = torch.Generator().manual_seed(1)
EMB, OUT = (torch.randn(L, 6, generator=G).double() for _ in range(2))


def make_denoiser(scale):
    "A fixed function of the row and the time, confident in places or in most, with four heads"
    def denoise(x, t, real):
        own = EMB[torch.arange(L), x]
        h = torch.sin(2*own.sum(-1, keepdim=True) + own + t)
        logits = scale*torch.sin(2*h[..., None]*OUT + 1)
        return Denoised(logits, None, {name: 2*torch.sin((k + 3)*h) for k, name in enumerate(HEADS)})
    return denoise


DENOISERS, STEPS = [make_denoiser(5), make_denoiser(30), make_denoiser(5)], (7, 23, 3)   # one a seed
PROC = Process(DENOISERS[0], linear, SPACE)
START = torch.full((5, L), MASK)
START[2, :2] = torch.tensor([1, 2])
START[3, 6:] = PAD
START[4, 1], START[4, 3:] = 0, PAD


def sigmoid(v): return 1/(1 + math.exp(-v))
def clip(v): return min(1, max(0, v))


def token(p, u):
    run = 0.
    for i, q in enumerate(p):
        run += q
        if u*sum(p) < run: return i
    return K - 1


def best(score, among, k):
    "The k positions with the highest scores; of equal ones, the first"
    def place(i): return -score[i], i
    return sorted(among, key=place)[:max(0, int(k))]


def lowest(score, among, k): return best([-v for v in score], among, k)


class Row:
    "One row in one step: what a plain rewriting may use"
    def __init__(self, x, psi, ours, t, s, step, b, seed):
        self.x, self.psi, self.ours, self.t, self.s = x, psi, ours, t, s
        self.step, self.b, self.seed = step, b, seed
        self.alpha_t = 1 - .999*t
        self.alpha_s = 1 - .999*s if s else 1.
        self.P, self.heads = self.evaluate(x, t)
        self.masked = [i for i in ours if x[i] == MASK]
        self.decoded = [i for i in ours if x[i] != MASK]
        self.u, u = self.noise(CHOOSE), self.noise(DRAW)
        self.draft = [token(q, v) if own == MASK else own for q, v, own in zip(self.P, u, x)]
        self.p = [self.P[i][v] if v < K else 0. for i, v in enumerate(self.draft)]
        self.n_unmasked = round(self.alpha_s*len(ours))
        self.n_masked = len(ours) - self.n_unmasked
        self.sigma_max = min(1., (1 - self.alpha_s)/self.alpha_t)
        self.rate = (self.alpha_s - self.alpha_t)/(1 - self.alpha_t)

    def noise(self, stream):
        u = Noise(self.seed, torch.tensor([self.b]))
        return u(self.step, stream, L)[0].tolist()

    def evaluate(self, x, t):
        out = DENOISERS[self.seed](torch.tensor([x]), t, None)
        heads = {name: [sigmoid(v) for v in h[0].tolist()] for name, h in out.heads.items()}
        return out.logits[0, :, :K].softmax(-1).tolist(), heads


# ---- steps: a row -> the probability of unmasking each masked position, and of remasking each decoded one

def members(among, chosen): return {i: float(i in chosen) for i in among}


def by_rate(sigma):
    def step(r):
        g = sigma(r) if r.s else 0.
        unmask = clip((r.alpha_s - (1 - g)*r.alpha_t)/(1 - r.alpha_t))
        return dict.fromkeys(r.masked, unmask), dict.fromkeys(r.decoded, g)
    return step


def shares(r, v, among):
    e = {i: math.exp(-v[i]) for i in among}
    return {i: r.sigma_max*e[i]/sum(e.values()) for i in among}


def conf(r): return dict.fromkeys(r.masked, r.rate), shares(r, r.psi, r.decoded)


def by_row(asked):
    def step(r):
        want, due = asked(r), r.alpha_s*len(r.ours)
        cut = min(1, (len(r.ours) - due)/max(1e-12, sum(want.values())))
        g = {i: w*cut for i, w in want.items()}
        kept = sum(1 - (g[i] if r.s else 0) for i in r.decoded)
        return {i: clip((due - kept)/len(r.masked)) for i in r.masked}, g
    return step


def after(strategy):
    def step(r):
        new = [i for i in r.masked if r.u[i] < r.rate]
        g = strategy(r, r.decoded + new) if r.t < 1 and r.s else {}
        unmask = {i: (i in new)*(1 - g.get(i, 0)) for i in r.masked}
        return unmask, {i: g.get(i, 0) for i in r.decoded}
    return step


def nothing(r): return []


def in_order(score, remask=nothing):
    def step(r):
        remasked = remask(r) if r.s else []
        new = best(score(r), r.masked, r.n_unmasked - len(r.decoded) + len(remasked))
        return members(r.masked, new), members(r.decoded, remasked)
    return step


def spread(r): return {i: -int(f'{k:04b}'[::-1], 2) for k, i in enumerate(r.ours)}
def entropy(p): return -sum(q*math.log(q) for q in p if q)


def lead(P, x):
    def of(p, own):
        other = max(q for v, q in enumerate(p) if v != own)
        return math.log(p[own]) - math.log(other)
    return {i: of(P[i], x[i]) for i in range(L) if x[i] < K}


def worst(score, k):
    def remask(r): return lowest(score(r), r.decoded, min(k(r), r.n_masked))
    return remask


def together(score):
    def step(r):
        keep = best(score(r), r.ours, r.n_unmasked)
        return members(r.masked, keep), {i: float(i not in keep) for i in r.decoded}
    return step


def accepting(accept, score):
    def step(r):
        new = set(accept(r)) | set(best(score(r), r.masked, 1)) if r.s else r.masked
        return members(r.masked, new), members(r.decoded, [])
    return step


def within_bound(r):
    taken, spent = [], 0.
    for i in best(negative_entropy(r), r.masked, L):
        if spent > .1: break
        taken.append(i)
        spent += entropy(r.P[i])
    return taken


def falling(r):
    keep = [i for i in r.ours if not r.masked or r.p[i] >= 1 - r.alpha_s]
    return members(r.masked, keep), {i: float(i not in keep) for i in r.decoded}


def capped(eta):
    def remask(r):
        sigma = min(eta, r.sigma_max)
        drawn = [i for i in r.decoded if r.u[i] < sigma]
        return best([sigma - u for u in r.u], drawn, r.n_masked)
    return remask


def threshold_remask(sure, low):
    def below(r): return sum(r.psi[i] < low for i in r.decoded)
    doubtful = worst(psi, below)
    def step(r):
        unmask, remasked = davis_order(r)[0], doubtful(r) if r.s else []
        unmask = {i: max(unmask[i], float(r.p[i] > sure)) for i in r.masked}
        return unmask, members(r.decoded, remasked)
    return step


def davis_order(r):
    q = torch.tensor(clip((r.alpha_s - r.alpha_t)/(1 - r.alpha_t + 1e-8))).double().float()
    asked = int((q.double()*len(r.masked)).float().round())
    k = max(1, asked) if r.s else len(r.masked)
    return members(r.masked, best(r.p, r.masked, k)), members(r.decoded, [])


def remaining(masked, i, j, decay):
    "What is left of the squared correlation of i and j, given any one of the unmasked positions"
    def near(a, b): return decay**abs(a - b)
    def given(v):
        rest = (near(i, j) - near(v, i)*near(v, j))**2
        rest /= max(1e-6, 1 - near(v, i)**2)
        return rest/max(1e-6, 1 - near(v, j)**2)
    return min([1., near(i, j)**2, *(given(v) for v in range(L) if v not in masked)])


def by_dependence(decay):
    def step(r):
        H = {i: entropy(r.P[i]) for i in r.masked}
        c = {(i, j): remaining(r.masked, i, j, decay)*(i != j) for i, j in product(r.masked, repeat=2)}
        left, new = dict(H), []
        def explained(i, j): return c[i, j]*min(H[i], left[j])
        def gain(i):
            of_others = sum(explained(i, j) for j in r.masked if j not in new)
            return of_others - 5*(H[i] - left[i])
        while len(new) < min(len(r.masked), r.n_unmasked - len(r.decoded)):
            gains = {i: round(gain(i), 12) for i in r.masked if i not in new}
            [i] = best(gains, gains, 1)
            left = {j: v - explained(i, j) for j, v in left.items()}
            new.append(i)
        return members(r.masked, new), members(r.decoded, [])
    return step


def twice_as_fast(r):
    n = round(min(1, 2*(1 - r.s))*len(r.ours))
    new = best(r.u, r.masked, n - len(r.decoded))
    return members(r.masked, new), members(r.decoded, [])


def without(r, x, i, t):
    row = [MASK if j == i else v for j, v in enumerate(x)]
    return r.evaluate(row, t)[0][i]


def wino(sure, low):
    def step(r):
        q = [1.]*L
        for i in r.decoded: q[i] = without(r, r.x, i, r.s)[r.x[i]]
        most = min(20, max(5, math.floor(.7*len(r.masked))))
        confident = max(1, sum(r.p[i] > sure for i in r.masked))
        new = best(r.p, r.masked, min(most, confident))
        doubtful = min(sum(q[i] < low for i in r.decoded), len(new) - 1)
        remasked = lowest(q, r.decoded, doubtful) if r.s else []
        return members(r.masked, new if r.s else r.masked), members(r.decoded, remasked)
    return step


# ---- edits: the row after the step -> the row

def rewrite(r, x, sites):
    P = r.evaluate([MASK if i in sites else v for i, v in enumerate(x)], r.s)[0]
    u = r.noise(4 + DRAW)
    return [token(P[i], u[i]) if i in sites else v for i, v in enumerate(x)]


def unmasked(r, x): return [i for i in r.ours if x[i] != MASK]
def gibbs(r, x): return rewrite(r, x, best(r.noise(8 + CHOOSE), unmasked(r, x), 1))


def correct(k, tau=0., alone=False):
    def edit(r, x):
        P = [without(r, x, i, r.s) for i in range(L)] if alone else r.evaluate(x, r.s)[0]
        gumbel = [-math.log(-math.log(v)) for v in r.noise(8 + CHOOSE)]
        u = r.noise(12 + CHOOSE)
        ahead, at = lead(P, x), unmasked(r, x)
        sites = best({i: tau*gumbel[i] - ahead[i] for i in at}, at, k(r))
        return [token(P[i], u[i]) if i in sites else v for i, v in enumerate(x)]
    return edit


def draw_again(r, x):
    if not 0 < r.s < .5: return x
    u = r.noise(8 + CHOOSE)
    return rewrite(r, x, [i for i in unmasked(r, x) if u[i] < r.s])


def overwrite(above):
    def edit(r, x):
        likeliest = [P.index(max(P)) for P in r.P]
        sites = [i for i in r.decoded if x[i] != MASK and max(r.P[i]) > above]
        return [likeliest[i] if i in sites else v for i, v in enumerate(x)]
    return edit


# ---- scores

def second(r, score):
    P, heads = r.evaluate(r.draft, 0.)
    if score != 'p': return heads[score]
    return [P[i][v] if v < K else 0 for i, v in enumerate(r.draft)]


def mixed(new, old):
    def score(r):
        of_new, of_old = new(r), old(r)
        return [of_new[i] if i in r.masked else of_old[i] for i in range(L)]
    return score


def log(v): return math.log(max(v, 1e-300))
def chance(r): return r.u
def p(r): return r.p
def psi(r): return r.psi
def prism_head(r): return r.heads['prism']
def ups_head(r): return r.heads['ups']
def planner_head(r): return [log(v) for v in r.heads['planner']]
def critic_pass(r): return second(r, 'critic')
def log_p(r): return [log(v) for v in r.p]
def negative_entropy(r): return [-entropy(q) for q in r.P]
def margin(r): return [sorted(q)[-1] - sorted(q)[-2] for q in r.P]
def half_random(r): return [.2*u + .8*q for u, q in zip(r.u, second(r, 'p'))]


# ---- remasking probabilities (sigma) of a row

def never(r): return 0.
def rescaled(r): return .1*r.sigma_max
def switched(r): return min(.04, r.sigma_max)*(r.t < .5)
def looped(r): return min(.02, r.sigma_max)*(r.t == r.s)
def psi_rate(r): return min(r.sigma_max, .1*(1 - r.alpha_s))
def star_rate(r): return 1 - r.alpha_s
def forward_backward_rate(r): return min(r.sigma_max, (r.alpha_s - r.alpha_t)/r.alpha_t)
def psi_shares(r): return shares(r, r.psi, r.decoded)
def confidence_after(r, among): return {i: min(1, g*len(among)) for i, g in shares(r, r.p, among).items()}


def dfm_rate(r):
    rate = 10*(r.t*(1 - r.t))**.25*(r.alpha_s - r.alpha_t)/r.alpha_t
    return min(r.sigma_max, rate)


def cap(eta):
    def sigma(r): return min(eta, r.sigma_max)
    return sigma


def cap_of(eta):
    def sigma(r): return {i: min(eta, r.sigma_max) for i in r.decoded}
    return sigma


def cap_after(eta):
    def sigma(r, among): return {i: min(eta, r.sigma_max) for i in among}
    return sigma


# ---- how many positions, and which

def one(r): return 1
def quarter(r): return round(.25*len(r.decoded))
def fading(r): return round(2*r.s)
def unlikely(r): return sum(r.p[i] < .1 for i in r.decoded)
def confident(r): return [i for i in r.masked if r.p[i] > .9]


random_order, PLAIN = in_order(chance), {}
PLAIN['ancestral'] = by_rate(never)
PLAIN['remdm_cap'] = by_rate(cap(.04))
PLAIN['remdm_rescale'] = by_rate(rescaled)
PLAIN['remdm_switch'] = by_rate(switched)
PLAIN['remdm_loop'] = by_rate(looped)
PLAIN['remdm_conf'] = conf
PLAIN['remdm_conf_balanced'] = by_row(psi_shares)
PLAIN['psi'] = by_rate(psi_rate)
PLAIN['star'] = by_rate(star_rate)
PLAIN['forward_backward'] = by_rate(forward_backward_rate)
PLAIN['dfm'] = by_rate(dfm_rate)
PLAIN['balanced'] = by_row(cap_of(.04))
PLAIN['davis_rate'] = after(cap_after(.04))
PLAIN['davis_confidence'] = after(confidence_after)
PLAIN['fixed_count'] = random_order
PLAIN['confidence_order'] = in_order(p)
PLAIN['margin_order'] = in_order(margin)
PLAIN['entropy_order'] = in_order(negative_entropy)
PLAIN['dilated_order'] = in_order(spread)
PLAIN['dependence_order'] = by_dependence(.5)
PLAIN['threshold'] = accepting(confident, p)
PLAIN['entropy_bound'] = accepting(within_bound, negative_entropy)
PLAIN['p2'] = together(log_p)
PLAIN['rcr'] = together(mixed(p, psi))
PLAIN['self_masking'] = together(half_random)
PLAIN['self_masking_free'] = together(p)
PLAIN['random_competition'] = together(chance)
PLAIN['remask_lowest'] = in_order(chance, worst(p, quarter))
PLAIN['falling_threshold'] = falling
PLAIN['confidence_cap'] = in_order(p, capped(.04))
PLAIN['davis_order'] = davis_order
PLAIN['gibbs'] = random_order, gibbs
PLAIN['informed'] = random_order, correct(one)
PLAIN['informed_fading'] = random_order, correct(fading)
PLAIN['informed_any'] = random_order, correct(one, .5, True)
PLAIN['tolerator'] = twice_as_fast, draw_again
PLAIN['token_to_token'] = in_order(p), overwrite(.9)
PLAIN['threshold_remask'] = threshold_remask(.9999, .99)
PLAIN['token_to_mask'] = in_order(p, worst(p, unlikely))
PLAIN['wino'] = wino(.6, .9)
PLAIN['prism'] = in_order(p, worst(prism_head, one))
PLAIN['remedi'] = together(mixed(p, ups_head))
PLAIN['p2_planner'] = together(mixed(log_p, planner_head))
PLAIN['critic'] = together(critic_pass)


# where parameters of the catalogue make a part of a method act hardly ever: the same with other parameters
def bold_decay(L): return .95**(torch.arange(L)[:, None] - torch.arange(L)).abs().double()
def bold_balanced(): return remdm.balanced(remdm.strategy_sigma(remdm.cap(.5)))
def bold_confidence_cap(): return ranked.confidence_cap(sampler.confidence, remdm.cap(.5))
def bold_davis_rate(): return remdm.post_hoc(remdm.unmask_random, remdm.cap(.5))
def bold_threshold_remask(): return ranked.threshold_remask(.4, .6)
def bold_token_to_token(): return ranked.llada()._replace(edit=correctors.overwrite(.4))
def bold_dependence_order(): return dependence.dependence_order(bold_decay)
def bold_wino(): return correctors.wino(.3, .5)


BOLD = {}
BOLD['balanced'] = bold_balanced, by_row(cap_of(.5))
BOLD['confidence_cap'] = bold_confidence_cap, in_order(p, capped(.5))
BOLD['davis_rate'] = bold_davis_rate, after(cap_after(.5))
BOLD['threshold_remask'] = bold_threshold_remask, threshold_remask(.4, .6)
BOLD['token_to_token'] = bold_token_to_token, (in_order(p), overwrite(.4))
BOLD['dependence_order'] = bold_dependence_order, by_dependence(.95)
BOLD['wino'] = bold_wino, wino(.3, .5)


def cases(name):
    "Pairs of a function that makes the policy and the plain rewriting of it"
    pairs = [(catalogue.CONSTRUCTORS[name].make, PLAIN[name])]
    if name in BOLD: pairs.append(BOLD[name])
    return pairs


def times(name, seed=0): return CATALOGUE[name].times(STEPS[seed], linear, torch.ones(1, L, dtype=torch.bool))


def plain_step(r, step, edit):
    "One step of a row: the new row, its psi, and the probability of being unmasked at our positions"
    unmask, remask = step(r)
    x, psi, keep, u = list(r.x), list(r.psi), [-1.]*L, r.noise(KEEP)
    for i in r.ours:
        keep[i] = unmask[i] if i in r.masked else 1 - remask[i]*(r.s > 0)
        kept = u[i] < keep[i]
        x[i] = r.draft[i] if kept else MASK
        if kept and i in r.masked: psi[i] = r.p[i]
    return edit(r, x), psi, keep


def as_it_is(r, x): return x


def run_plainly(name, step, seed):
    "All steps of all rows by the plain rewriting: ids, and the probability of being unmasked"
    step, edit = step if isinstance(step, tuple) else (step, as_it_is)
    ts, out = times(name, seed).tolist(), []
    for b, x in enumerate(START.tolist()):
        psi, ours = [1.]*L, [i for i in range(L) if x[i] == MASK]
        for k, (t, s) in enumerate(zip(ts, ts[1:])):
            x, psi, keep = plain_step(Row(x, psi, ours, t, s, k, b, seed), step, edit)
            out.append((x, keep))
    return out


def run_library(name, policy, seed):
    log, ours = [], START == MASK
    def record(st, x, keep): log.append((x, torch.where(ours, keep, -1.)))
    proc, noise = PROC._replace(denoise=DENOISERS[seed]), Noise(seed, torch.arange(len(START)))
    sample(proc, START, times(name, seed), policy, CATALOGUE[name].draw, noise, callback=record, check=False)
    ids, keep = (torch.stack(v, 1).flatten(0, 1) for v in zip(*log))
    return ids, keep


WANT = {}


def wanted(name, k, plain, seed):
    if (name, k, seed) not in WANT:
        x, keep = zip(*run_plainly(name, plain, seed))
        WANT[name, k, seed] = torch.tensor(x), torch.tensor(keep, dtype=torch.float64)
    return WANT[name, k, seed]


def agrees(name):
    for k, (make, plain) in enumerate(cases(name)):
        for seed in SEEDS:
            want_ids, want_keep = wanted(name, k, plain, seed)
            ids, keep = run_library(name, make(), seed)
            if not (ids.equal(want_ids) and (keep - want_keep).abs().max() < 1e-9): return False
    return True


def test_every_method_has_a_plain_rewriting():
    assert set(CATALOGUE) == set(METHOD_INFO)
    missing, left_over = set(CATALOGUE) - set(PLAIN), set(PLAIN) - set(CATALOGUE)
    assert not missing and not left_over, f"PLAIN lacks {missing}, and has {left_over} of no method"


@pytest.mark.parametrize('name', CATALOGUE)
def test_same_decisions_as_the_plain_rewriting(name): assert agrees(name)


# ---- mutations: one comparison, sign, term, factor, time or side at a time

MODULES = {m.__name__: m for m in (sampler, remdm, ranked, ups, prism, correctors, dependence)}
SWAPS = dict(alpha_s='alpha_t', alpha_t='alpha_s', masked='decoded', decoded='masked', draft='x', s='t',
             t='s', psi='p', p='u', minimum='maximum', ours='decoded')
COMPARISONS = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}
COMPARISONS |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult}
OPERATORS |= {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}


def without_annotations(source):
    "A function without the annotations of its parameters and results: they decide nothing"
    tree = ast.parse(source)
    for n in ast.walk(tree):
        if isinstance(n, ast.arg): n.annotation = None
        if isinstance(n, ast.FunctionDef): n.returns = None
    return ast.unparse(tree)


def mutate(n):
    "Change a node in place; return whether there was anything to change"
    if isinstance(n, ast.Compare) and type(n.ops[0]) in COMPARISONS: n.ops[0] = COMPARISONS[type(n.ops[0])]()
    elif isinstance(n, ast.BinOp) and type(n.op) in OPERATORS: n.op = OPERATORS[type(n.op)]()
    elif isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.USub): n.op = ast.UAdd()
    elif isinstance(n, ast.Attribute) and n.attr in SWAPS: n.attr = SWAPS[n.attr]
    else: return False
    return True


def mutants(source):
    "Every mutation of one place of a function: (the expression around it when mutated, the mutated function)"
    source = without_annotations(source)
    for k in range(len([*ast.walk(ast.parse(source))])):
        tree = ast.parse(source)
        n = [*ast.walk(tree)][k]
        if not mutate(n): continue
        around = next(parent for parent in ast.walk(tree) if n in ast.iter_child_nodes(parent))
        yield ast.unparse(ast.fix_missing_locations(around)), tree


def calls(f):
    "What a function may call: the names of its code and of the functions within it, and what it encloses"
    codes, found = [f.__code__], [c.cell_contents for c in f.__closure__ or ()]
    while codes:
        c = codes.pop()
        codes += [k for k in c.co_consts if isinstance(k, types.CodeType)]
        found += [f.__globals__.get(n) for n in c.co_names]
    return found


# no method of the catalogue evaluates another network: what only this function calls is not run either
NEVER_RUN = {'_evaluate_draft'}


def functions(policy):
    "The named functions of the library a policy is made of: those it holds, and those they call"
    seen, named, todo = set(), set(), [*policy[:4]]
    while todo:
        f = todo.pop()
        if not isinstance(f, types.FunctionType) or f.__module__ not in MODULES: continue
        if f in seen or f.__name__ in NEVER_RUN: continue
        seen.add(f)
        root = getattr(MODULES[f.__module__], f.__qualname__.split('.')[0], None)
        if isinstance(root, types.FunctionType):
            named.add(root)
            todo.append(root)
        todo += calls(f)
    def place(f): return f.__module__, f.__name__
    return sorted(named, key=place)


def survives(name, f, tree, monkeypatch):
    "Does the method, made anew with one function mutated, still agree with its plain rewriting?"
    space = dict(vars(MODULES[f.__module__]))
    exec(compile(tree, '<mutated>', 'exec'), space)
    with monkeypatch.context() as patch:
        patch.setattr(f, '__code__', space[f.__name__].__code__)
        try: return agrees(name)
        except Exception: return False


def mutations(name):
    every = functions(CATALOGUE[name].policy)
    return [(f, what, tree) for f in every for what, tree in mutants(inspect.getsource(f))]


# Mutations that change nothing, and why: (function, the expression when mutated)
HARMLESS = {}
HARMLESS['only the shape is read'] = [
    'ancestral .expand_as(st.u)', 'balanced_unmask .expand_as(st.u)', 'psi_sampler .expand_as(st.u)',
    'never zeros_like(st.u)', 'loo_one_pass zeros_like(st.decoded)', 'extra_pass zeros_like(st.decoded)',
    'dilated zeros_like(st.u)', 'dilated st.u.shape', 'dependence_order known_at(L).to(st.u)',
    'dependence_order st.u.shape']
HARMLESS['more bits than needed keep the order'] = ['dilated shape[1] + 1']
HARMLESS['the last step unmasks everything, whatever the policy returns'] = [
    'davis_count st.t == 0',
    'davis_count row_sum(st.decoded)',
    'unmask_above st.t > 0',
    'unmask_above st.t == 0',
    'wino st.t == 0',
    'wino st.decoded & (st.s == 0)',
]
HARMLESS['nothing is remasked here'] = ['ancestral (1 + st.sigma)', 'unmask_top (1 + st.sigma)']
HARMLESS['the score is not read'] = ['confidence return st.u']
HARMLESS['only the order is read'] = ['certainty entropy(st) * math.log', 'certainty st.logits.shape[+1]']
HARMLESS['masked positions are not judged'] = ['loo_probability where(st.masked, st.u']
HARMLESS['the first in order is within every bound'] = ['unmask_above top(score(st), st.decoded, 1)']
HARMLESS['without temperature there is no noise'] = ['informed gumbel = +(']
HARMLESS['the planner of P2 itself is the probability'] = ['p2 where(st.decoded, drafted, unmasked)']
HARMLESS['kappa is 0'] = ['psi_sampler (1 + share(st))']
HARMLESS['an unmasked token has no entropy'] = ['conditional_dependence masked[:, :, None] | masked[:, None]']
HARMLESS['what is left of a chosen position is not read'] = ['select_independent chosen & ~more']
HARMLESS['a function is not compared'] = ['psi_sampler not 0 > kappa', 'remask_bottom count >= 0']
HARMLESS['cap and rescale ignore positions and confidence'] = [
    'remdm st.decoded, st.p)', 'remdm st.masked, st.psi)', 'strategy_sigma st.decoded, st.p)',
    'strategy_sigma st.masked, st.psi)', 'post_hoc st.decoded | (pick(st) | (not protect))']
HARMLESS['the budget is the bound'] = ['remdm maximum']
HARMLESS['a constant rate has no time'] = ['corrector_rate b(st.s)']
HARMLESS['in the first step there is nothing to remask'] = ['strategy_sigma st.s >= t_switch']
LISTED = [tuple(w.split(' ', 1)) for listed in HARMLESS.values() for w in listed]


def listed(name, what): return any(name == f and part in what for f, part in LISTED)


@pytest.mark.parametrize('name', CATALOGUE)
def test_every_mutation_of_a_method_is_detected(name, monkeypatch):
    "Every place of every function it is made of: only listed mutations survive"
    left = [(f.__name__, what) for f, what, tree in mutations(name) if survives(name, f, tree, monkeypatch)]
    missed = [(f, what) for f, what in left if not listed(f, what)]
    assert not missed


def test_every_harmless_mutation_of_the_list_exists():
    every = {(f.__name__, what) for name in CATALOGUE for f, what, _ in mutations(name)}
    for name, part in LISTED: assert any(name == f and part in what for f, what in every), (name, part)
    for name in NEVER_RUN: assert isinstance(getattr(ranked, name), types.FunctionType)


# ---- bad input is named, with the method and the step

def run_with(name, **parts): return sample(PROC, START, times(name), CATALOGUE[name].policy._replace(**parts))


@pytest.mark.parametrize('name', ['remdm_cap', 'gibbs', 'wino'])
def test_what_a_policy_returns_is_checked_and_the_method_and_step_are_named(name):
    step = 'in the step from t=.* to s='
    def nan(st): return st.u*torch.nan
    def short(st): return st.u[:, :3]
    def large(st): return st.u*0 + 1.5
    def negative(st): return st.u*0 - 1
    def masks(st): return torch.full_like(st.x, MASK)
    def refused(part, f, why):
        message = f'{name}: policy.{part}: {why} {step}'
        with pytest.raises(ValueError, match=message): run_with(name, **{part: f})
    reads = CATALOGUE[name].policy.reads_network
    refused('unmask', nan, 'value nan.*' if reads else 'reads what the network gives,')
    refused('unmask', short, 'shape.*')
    refused('unmask', large, 'value 1.5.*')
    refused('remask', negative, 'value -1')
    if reads: refused('score', nan, 'value nan')
    refused('edit', masks, 'id 4 .*')


@pytest.mark.parametrize('name', [k for k, r in METHOD_INFO.items() if r.needs])
def test_a_missing_head_is_named(name):
    def headless(x, t, real): return DENOISERS[0](x, t, real)._replace(heads={})
    proc = PROC._replace(denoise=headless)
    with pytest.raises(ValueError, match=f"no head '{METHOD_INFO[name].needs}'"):
        sample(proc, START, times(name), CATALOGUE[name].policy)


def test_a_policy_that_reads_the_network_and_denies_it_is_refused():
    def by_p(st): return st.p
    def half(st): return st.p.nan_to_num(.5)
    for lie in (by_p, half):
        with pytest.raises(ValueError, match='remdm_cap: policy.unmask: reads .*reads_network=False'):
            run_with('remdm_cap', unmask=lie)


def test_errors_of_a_foreign_denoiser_are_named():
    none_legal = torch.zeros(len(START), L, 6)
    none_legal[2, 5, :K] = -torch.inf
    def refused(logits, why):
        def denoise(x, t, real): return Denoised(logits)
        proc = PROC._replace(denoise=denoise)
        with pytest.raises(ValueError, match=why):
            sample(proc, START, times('gibbs'), CATALOGUE['gibbs'].policy)
    refused(torch.zeros(2, 3), 'logits of shape')
    refused(none_legal, 'row 2, position 5')
    refused(none_legal*torch.nan, 'no legal token')


# ---- exactness, and the table

def cells(table):
    "The cells of a markdown table by the name in their first column"
    rows = [[c.strip() for c in line.split('|')[1:-1]] for line in table.splitlines()[2:]]
    return {row[0].strip('`'): row for row in rows}


@pytest.fixture(scope='module')
def measured(): return cells(exact_benchmark.method_table())


def test_the_table_of_the_pages_is_what_is_measured(measured):
    page = (pathlib.Path(__file__).parents[1]/'docs'/'pages'/'methods.md').read_text()
    have = cells(page.split('<!-- methods -->\n')[1].split('\n<!-- end')[0])
    def words(table): return {k: row[:-1] for k, row in table.items()}
    assert words(have) == words(measured), 'run remask methods --to docs/pages/methods.md'
    assert {m.family for m in methods.METHODS.values()} <= set(have)
    for k, row in have.items(): assert float(row[-1]) == pytest.approx(float(measured[k][-1]), abs=.004), k


CHAIN, GRIDS, N_GRIDS = markov(3, 4, .5, seed=1), sudoku(), 600
EXACT = [k for k, r in METHOD_INFO.items() if r.exact]


@pytest.fixture(scope='module')
def chain_limit(): return heldout_limit(CHAIN, 6000)


@pytest.fixture(scope='module')
def grid_limit(): return heldout_limit(GRIDS, N_GRIDS)


@pytest.mark.parametrize('name', EXACT)
def test_methods_called_exact_reach_the_exact_distribution(name, measured, chain_limit):
    "At once where one position is unmasked per step, else as steps grow"
    if CATALOGUE[name].preserves == 'count': assert float(measured[name][-1]) < chain_limit
    else: assert exact_benchmark.total_variation_of(CATALOGUE[name], CHAIN, 160) < chain_limit


@pytest.mark.parametrize('name', EXACT)
def test_methods_called_exact_reach_the_exact_distribution_of_sudoku(name, grid_limit):
    "Ten steps a cell, or four where the count is exact"
    m = CATALOGUE[name]
    def exact_denoiser(x, t, real): return Denoised(GRIDS.logits(x))
    proc = Process(exact_denoiser, linear, GRIDS.space)
    ts = m.times(64 if m.preserves == 'count' else 160, linear, torch.ones(1, 16, dtype=torch.bool))
    x = torch.full((N_GRIDS, 16), GRIDS.space.mask)
    x = sample(proc, x, ts, m.policy, m.draw, Noise(0, torch.arange(N_GRIDS)), check=False)
    assert tv_to_exact(GRIDS, x) < grid_limit
    assert GRIDS.log_prob(x).isfinite().double().mean() > .9


# ---- precision

def drawn(logits, u, top_p): # the place of the token, from exact sums
    order = sorted(range(len(logits)), key=lambda k: -logits[k])
    p = [math.exp(logits[k]) for k in order]
    total, sums = math.fsum(p), [0., *itertools.accumulate(p)]
    kept = sum(below < top_p*total for below in sums[:-1])
    return order[bisect.bisect_right(sums, u*sums[kept]) - 1]


@pytest.mark.parametrize('kept', range(1, 9))
def test_a_nucleus_is_the_smallest_set_that_holds_its_share(kept):
    u = torch.linspace(0, .999, 50, dtype=torch.float64)
    equal = torch.zeros(50, 8)                               # of eight equal tokens, kept/8 is exactly `kept`
    assert nucleus(kept/8)(equal, u).unique().tolist() == [*range(kept)]


def test_many_tokens_of_little_probability_are_told_apart():
    logits = torch.tensor([0., *([-20.]*20_000)])            # float32 would hold one in thirty of their sums
    u = 1 - torch.linspace(2e-6, 4e-5, 7, dtype=torch.float64)
    got = nucleus(.99999)(logits.expand(7, -1), u)
    assert got.tolist() == [drawn(logits.tolist(), float(x), .99999) for x in u]


@pytest.mark.parametrize('temperature', [1., .5])
def test_a_token_of_little_probability_is_drawn_where_its_interval_lies(temperature):
    logits = temperature*torch.tensor([0., -20.])   # the second has 2e-9: float32 rounds the first to 1
    u = torch.tensor([1 - 3e-9, 1 - 1e-9], dtype=torch.float64)
    got = categorical(temperature)(logits.expand(2, -1), u)
    assert got.tolist() == [0, 1]
