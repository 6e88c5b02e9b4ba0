"""Write what is computed in README.md, from stored results.

    python docs/readme.py collect [plans-record]   take results of build/metrics into docs/results.json
    make readme                                    write figure, findings and table of README.md
    make look                                      print and draw the stored comparison

A figure of another domain stands in docs/log_figures.json with the finding of LOG.md that it is from."""
import json, os, pathlib, re, sys
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation, PillowWriter
from remask.core.files import save_json
from remask.evaluate.compare import HELDOUT, METRIC_GROUPS, cell, heat_map, pareto, read_metrics, tidy
from remask.evaluate.graph_metrics import BETTER

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT/'docs'
RESULTS = DOCS/'results.json'
FIGURE = DOCS/'remasking.gif'
COMPARISON = 'plans-main'
KEPT = [metric for group in METRIC_GROUPS.values() for metric in group]
PUBLISHED, REPAIRED = 'llada_topp09_remdm_confidence_tsw10', 'llada_topp09_remdm_confidence_tsw10_consistent'
PLAIN = 'unweighted_random_temp10_no_remask_consistent'


def refuse(why): raise SystemExit(f'docs/readme.py: {why}')


# ---- the stored results

def collect(comparison=COMPARISON):
    "Write docs/results.json: means and spreads of the comparison of plans, and what it was made with"
    paths = sorted((ROOT/'build'/'metrics'/comparison).glob('*.json'))
    if not paths: refuse(f'there is no build/metrics/{comparison}; run make repro or make record first')
    records = read_metrics(paths)
    methods = {}
    for record in records:
        summary = record['summary']
        methods[record['method']] = {k: [round(v, 6) for v in summary[k]] for k in KEPT if k in summary}
    params = records[0]['params']
    size = {k: params[k] for k in ('samples', 'seeds', 'steps')}
    trained = [r['params'] for r in records if 'process' in r['params']]
    steps = {p['process']: p['network_steps'] for p in trained}
    save_json(RESULTS, dict(comparison=comparison, **size, training_steps=steps, methods=methods), indent=1)
    print(f'docs/results.json: {len(methods)} rows; make readme writes README.md from them')


def results():
    if not RESULTS.exists(): refuse('there is no docs/results.json; git checkout docs/results.json')
    return json.loads(RESULTS.read_text())


def rows(found):
    "The results in the form of `tidy`, as stored"
    return tidy([dict(method=name, summary=summary) for name, summary in found['methods'].items()])


# ---- sentences and table

def figures():
    "name -> a figure of LOG.md, as it is written there"
    return {name: text for name, (text, _) in json.loads((DOCS/'log_figures.json').read_text()).items()}


def of_plans(found):
    "'method_metric' -> a figure of the comparison of plans"
    chosen = dict(published=PUBLISHED, repaired=REPAIRED, plain=PLAIN, heldout=HELDOUT)
    named = dict(inside='validity/inside_validity', edge='distribution/edge_js')
    out = {}
    for who, method in chosen.items():
        if method not in found['methods']: refuse(f'docs/results.json has no {method}; make repro, collect')
        for what, metric in named.items():
            mean, _ = found['methods'][method][metric]
            out[f'{who}_{what}'] = f'{100*mean:.1f} %' if what == 'inside' else f'{mean:.4f}'
    return out


FINDINGS = [
    '**How a step remasks decides, not that it remasks.** On floor plans, the published confidence remasking '
    'leaves the schedule: {published_inside} of its plans have no forbidden containment, and the error of '
    'its relations is {published_edge} (edge JS). The same network and rule, compensated so that the '
    'schedule is kept: {repaired_inside} and {repaired_edge}. Held-out plans: {heldout_inside} and '
    '{heldout_edge}.',
    '**A better network needs less repair.** Trained without class weights and sampled without any '
    'remasking, it reaches {plain_inside} and {plain_edge}.',
    '**At temperature 1, evaluations are well spent on repairing what a trained score finds wrong.** Sums '
    'answered right in 8 evaluations: {answers_stream} when six write and two repair what a dual stream '
    'doubts, {answers_stream_none} without remasking, {answers_stream_compete} when tokens compete by their '
    'probability. At temperature 0, where fewer tokens are wrong, the comparison has not been made.',
]
SITUATIONS = [
    ('Samples must keep the distribution (plans, molecules)',
     '`remdm_cap`, small eta, or `fixed_count`',
     'exact; in {distance_steps} steps at most {distance_cap} from the truth (total variation), '
     'exact samples {distance_exact}'),
    ('One right answer, few evaluations (puzzles)', '`threshold_remask`',
     '{sudoku_threshold_remask} of 9x9 Sudoku in {sudoku_threshold_remask_nfe} evaluations; confidence order '
     '{sudoku_confidence} % {sudoku_confidence_nfe}'),
    ('Answers, and a score can be trained', '`remedi` with a head; a dual stream with `remask_below`',
     '{answers_stream} of sums right, {answers_stream_none} without'),
    ('Answers, and nothing can be trained', '`self_masking_free`',
     '{answers_frozen_probability} of sums right, {answers_frozen_none} without'),
    ('Free text', '`remask_lowest`, not an order by confidence',
     '{text_gain} a character better than none at equal entropy ({text_gain_interval}); '
     'confidence order writes blanks'),
]


def distances():
    "What the page of methods says of distances: of a method, of exact samples, in how many steps"
    table = (DOCS/'pages'/'methods.md').read_text()
    found = dict(re.findall(r'^\| `(\w+)` \|.*\| ([\d.]+) \|$', table, re.M))
    said = re.search(r'in (\d+) steps to the true.*?exact samples score about\s+([\d.]+\d)', table, re.S)
    if said is None: refuse('docs/pages/methods.md no longer says what exact samples score')
    at_most = max(found['remdm_cap'], found['fixed_count'])
    return dict(distance_cap=at_most, distance_steps=said[1], distance_exact=said[2])


def findings(found):
    known = figures() | of_plans(found)
    size = f"{len(found['seeds'])} seeds x {found['samples']} plans, {found['steps']} steps"
    networks = ', '.join(f'{name} {steps:,}' for name, steps in sorted(found['training_steps'].items()))
    lines = [f'{k}. {text.format(**known)}' for k, text in enumerate(FINDINGS, 1)]
    note = f'({size}; training steps: {networks}. `make look` prints the comparison.)'
    return '\n'.join([*lines, '', note])


def situations():
    known = figures() | distances()
    lines = ['| situation | remasker | measured |', '|---|---|---|']
    return '\n'.join([*lines, *(f"| {' | '.join(row).format(**known)} |" for row in SITUATIONS)])


def check_claims(found):
    "Refuse to write a sentence that the results no longer bear out"
    def value(method, metric): return found['methods'][method][metric][0]
    def edge(method): return value(method, 'distribution/edge_js')
    claims = {'the schedule-keeping form repairs the relations': edge(REPAIRED) < edge(PUBLISHED)/2,
              'the network without class weights needs no repair': edge(PLAIN) <= edge(REPAIRED)}
    for claim, holds in claims.items():
        if not holds: refuse(f'the results no longer say that {claim}: mend FINDINGS')


def between(page, name, text):
    "A page with a text between its marks"
    first, last = f'<!-- {name} -->', f'<!-- end of {name} -->'
    if {page.count(first), page.count(last)} != {1}: refuse(f'README.md needs {first} and {last}, once each')
    before, rest = page.split(first)
    return f'{before}{first}\n{text}\n{last}{rest.split(last)[1]}'


def written(page):
    "README.md with everything that is computed"
    found = results()
    check_claims(found)
    page = between(page, 'findings', findings(found))
    return between(page, 'situations', situations())


# ---- the figure

FRAMES, SEED, SCALE = 40, 3, 80


def film():
    "A plan that a stored network samples, by ReMDM with cap 0.1: scene and film"
    from remask.pipeline.demo import demonstrate
    scene, made, _ = demonstrate('plans', 'remdm_cap', .1, FRAMES, tell=False, seed=SEED)
    return scene, made


def rings(ax, z, marks):
    "Mark the rooms that the step unmasked or remasked"
    from remask.pipeline.demo import REMASKED, UNMASKED
    for place, mark in zip(z, marks.tolist()):
        tone = {UNMASKED: '#2a9d4a', REMASKED: '#d1242f'}.get(mark)
        if tone: ax.add_patch(plt.Circle(place, .47, fill=False, ec=tone, lw=3, zorder=4))


def counts(marks):
    from remask.pipeline.demo import REMASKED, UNMASKED
    unmasked, remasked = ((marks == mark).sum().item() for mark in (UNMASKED, REMASKED))
    return f'{unmasked} unmasked, {remasked} remasked'


def draw_figure(path=FIGURE):
    "Write the animated figure: rooms and relations unmasked and remasked over the steps"
    from remask.domains.graph_plot import layout, show_graph
    from remask.domains.graphs import decode_graphs
    scene, made = film()
    z = layout(decode_graphs(made.states[-1:])[0])
    fig, ax = plt.subplots(figsize=(4.4, 4.4), dpi=SCALE)
    def draw(k):
        k = min(k, len(made.states) - 1)
        ax.clear()
        show_graph(made.states[k], ax, z)
        rings(ax, z, made.marks[k])
        ax.set_title(f'step {k + 1} of {FRAMES}: {counts(made.marks[k])}', fontsize=11)
    animation = FuncAnimation(fig, draw, FRAMES + 12)
    animation.save(path, PillowWriter(fps=4), dpi=SCALE)
    plt.close(fig)


# ---- make look

COLUMNS = ['coverage/diversity', 'validity/inside_validity', 'distribution/edge_js',
           'coverage/unique_archetypes', 'structure/mmd_degree', 'cost/nfe']


def table(found):
    "The comparison as lines, the most faithful relations first"
    def order(item): return item[1]['distribution/edge_js'][0]
    wide = max(map(len, found['methods'])) + 2
    lines = [' '*wide + ' '.join(f'{name.split("/")[1][:16]:>16}' for name in COLUMNS)]
    for name, summary in sorted(found['methods'].items(), key=order):
        cells = [cell(summary[m][0], 0., m) if m in summary else '--' for m in COLUMNS]
        lines.append(f'{name:<{wide}}' + ' '.join(f'{text:>16}' for text in cells))
    return '\n'.join(lines)


def look():
    "Print the stored comparison, and draw it into reports/look"
    found, to = results(), ROOT/'reports'/'look'
    to.mkdir(parents=True, exist_ok=True)
    size = f"{len(found['seeds'])} seeds x {found['samples']} samples, {found['steps']} steps"
    print(f"{found['comparison']}: {size}\n")
    print(table(found))
    long = rows(found)
    better = {k: v for k, v in BETTER.items() if k in set(long.metric)}
    heat_map(long, better).figure.savefig(to/'heat_map.png', dpi=80, bbox_inches='tight')
    pareto(long).figure.savefig(to/'pareto.png', dpi=80, bbox_inches='tight')
    print('\nremask: the pictures are reports/look/pareto.png and heat_map.png')


def main(command='readme', *names):
    os.chdir(ROOT)
    if command == 'collect': return collect(*names)
    if command == 'look': return look()
    if command != 'readme': refuse(f'{command} is none of collect, readme, look')
    draw_figure()
    readme = ROOT/'README.md'
    readme.write_text(written(readme.read_text()))
    print(f'README.md and docs/{FIGURE.name} ({FIGURE.stat().st_size/1e3:.0f} KB) are written')


if __name__ == '__main__': main(*sys.argv[1:])
