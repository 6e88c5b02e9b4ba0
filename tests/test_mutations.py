"""Every mutation of a module that is tried is noticed, or changes nothing for a reason."""
import json, subprocess, sys
import pytest
from mutations import GUARDS, REASON, mutated, mutations, sample
from notebooks import ROOT

PAGE = ROOT/'docs'/'mutations.json'
COUNTS = json.loads(PAGE.read_text())


def text_of(name): return (ROOT/'remask'/f'{name}.py').read_text()


@pytest.mark.parametrize('name', GUARDS)
def test_the_figures_of_the_documentation_are_of_this_code_and_leave_nothing_unexplained(name):
    "`make mutations` writes them"
    counts, text = COUNTS[name], text_of(name)
    tried = {mutated(text, m)[0] for m in sample(mutations(text))}
    left = counts['left']
    noticed = [counts[by] for by in ('notebook', 'tests', 'time')]
    assert counts['tried'] == len(tried) == len(left) + sum(noticed)
    for what, reason in left.items(): assert what in tried and reason == REASON[what]


def test_every_reason_is_of_a_mutation_that_was_tried():
    assert set(REASON) == {what for counts in COUNTS.values() for what in counts['left']}


@pytest.mark.parametrize('name', GUARDS)
def test_a_sample_holds_every_kind_and_each_mutation_is_another_program(name):
    text = text_of(name)
    every, some = mutations(text), sample(mutations(text))
    kinds = {m.kind for m in every}
    assert {m.kind for m in some} == kinds
    programs = {mutated(text, m)[1] for m in some}
    assert len(programs) == len(some) == 10


@pytest.mark.slow
@pytest.mark.parametrize('name', GUARDS)
def test_every_mutation_is_noticed_or_changes_nothing(name, tmp_path):
    command = [sys.executable, ROOT/'tests'/'mutations.py', tmp_path/'counts.json', name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads((tmp_path/'counts.json').read_text())[name]
    assert counts['tried'] == 10 and not [what for what in counts['left'] if what not in REASON], counts
