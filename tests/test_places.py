"""The project in folders with unusual names: each has a store of its own, and nothing lies beside it."""
import pytest
from remask.pipeline.tracking import log_run, open_experiment, runs

PLACES = [
    'a b',
    '50%2F, what?',
    "Maße–été #1 & it's; +",
    '/'.join(['long' * 25] * 3),
]


@pytest.mark.parametrize('name', PLACES)
def test_what_is_recorded_is_read_again_and_no_other_folder_appears(tmp_path, name):
    root = tmp_path/name
    root.mkdir(parents=True)
    before = {*tmp_path.rglob('*')}
    log_run(open_experiment(root, 'plans'), 'cap', {'validity/validity': (.5, .1)})
    run, = runs(open_experiment(root, 'plans'))
    assert run.data.metrics['validity/validity'] == .5
    assert (root/'mlruns'/'mlflow.db').is_file()
    made = {*tmp_path.rglob('*')} - before
    assert all(p.is_relative_to(root/'mlruns') for p in made)


def test_neighbours_whose_names_differ_by_quoting_share_nothing(tmp_path):
    names = 'a b', 'a%20b'
    for name in names: log_run(open_experiment(tmp_path/name, 'plans'), name, {'v': (0., 0.)})
    for name in names:
        run, = runs(open_experiment(tmp_path/name, 'plans'))
        assert run.info.run_name == name
