"""Damaged inputs, kills, full disks and two runs at once; `make faults` runs the long form, with its counts.

What is damaged is in damage.py, what reads it in fault_entries.py, how it is watched in faults.py. Kills of
a training are in test_train.py, of a write in test_files.py, flipped bits of the store, the cache of DVC and
the database in test_doctor.py, of checkpoints and tables in test_files.py, programs in test_programs.py."""
import errno, json, os, random, signal, subprocess, sys, time
from collections import Counter
from contextlib import suppress
from pathlib import Path
import pyarrow as pa, pytest, torch
from pyarrow import parquet
from ruamel.yaml import YAML
from remask.core import files
from remask.core.files import content_digest, open_tensors, read_records, save_tensors
from remask.pipeline.tracking import open_experiment, runs
from faults import CLASSES, campaign, record

ROOT = Path(__file__).parents[1]

# What was found once, and the tests that hold it: file -> names, without `test_`
FOUND = {}
FOUND['a finished training never trains again, and its provenance lies'] = dict(
    train='a_training_asked_for_again a_changed_recipe_trains_and_never_takes_the_old_tensors '
          'provenance_is_what_trained_and_not_what_is_asked_for '
          'changed_code_goes_on_only_for_a_reason_which_is_recorded')
FOUND['a corrupt store is accepted, and weights that are not finite'] = dict(
    doctor='a_corrupt_store_is_not_pulled a_corrupt_store_is_named_and_comes_back',
    files='every_flipped_bit_of_a_checkpoint_is_found '
          'a_file_from_before_there_were_digests_is_read_unless_it_is_not_finite',
    train='a_network_of_nan_is_never_saved')
FOUND['a program under test is not apart'] = dict(
    programs='a_verdict_is_not_forged nothing_outside_is_written_deleted_or_reached '
             'what_a_program_started_ends_with_it output_without_end_does_not_grow_this_process')
FOUND['writers replace links and devices'] = dict(
    files='a_link_is_followed_and_stays_a_link only_a_regular_file_is_replaced')
FOUND['a torn last line of a curve ends resuming'] = dict(
    train='a_torn_last_line_of_a_curve_is_forgiven_and_a_damaged_one_named')
FOUND['a value of params.yaml runs in a shell, a name leads elsewhere'] = dict(
    stages='no_value_of_params_yaml_reaches_a_shell a_value_of_params_yaml_is_read_where_no_shell_runs_it '
           'a_name_in_a_path_leads_nowhere_else', files='a_name_leads_nowhere_else')
FOUND['shared and endless lists of a pickle, corrupt tables, layers without end, bombs'] = dict(
    readers='lists_without_end_in_a_pickle_are_named a_flipped_byte_in_a_plain_mat_never_ends_this_process',
    files='a_flipped_bit_in_a_table_never_ends_the_process layers_without_end_are_refused '
          'more_than_a_reader_takes_in_is_refused_within_a_gigabyte',
    faults='a_table_of_one_long_text_is_refused_by_what_it_stands_for')
FOUND['tracebacks, errors that name no file, inputs read as another one'] = dict(
    faults='no_damaged_input_is_read_as_something_else_or_ends_in_more_than_a_sentence '
           'ten_thousand_damaged_inputs', files='files_that_cannot_be_used',
    cli='bad_input_is_one_sentence_and_exit_code_2 what_a_newcomer_mistypes_is_one_sentence',
    stages='a_section_of_the_wrong_type_is_named a_missing_or_damaged_file_is_one_sentence '
           'a_full_disk_is_one_sentence a_damaged_cell_names_its_notebook')
FOUND['a damaged database is never named, an empty one refilled'] = dict(
    doctor='a_damaged_database_is_named_and_kept a_damaged_database_is_rebuilt_from_what_is_on_disk')
FOUND['a full or read-only folder hides the sentence'] = dict(
    files='a_folder_that_may_not_be_written_is_said_in_one_sentence',
    faults='a_full_disk_keeps_the_file_that_was_there_and_leaves_no_other')
FOUND['retired runs keep their files, a resumed training logs twice'] = dict(
    doctor='the_files_of_a_run_go_with_it', tracking='points_that_a_resumed_training_repeats_are_logged_once')
FOUND['two trainings at once fail at the end'] = dict(
    train='a_second_training_at_once_is_refused_at_the_start')
FOUND['noise of a kernel, a page in the ASCII locale'] = dict(
    stages='a_stage_runs_quietly_and_twice_to_the_same_bytes a_page_is_written_whatever_the_locale')
FOUND['mutations that nothing notices'] = dict(
    mutations='every_mutation_is_noticed_or_changes_nothing',
    train='a_token_that_never_occurs_has_no_weight',
    registry='many_tokens_of_little_probability_are_told_apart')
COUNTS = ROOT/'docs'/'faults.json'
SHORT, LONG = 250, 10_000
SLOW = {'model folder', 'database', 'matlab', 'matlab packed', 'pickles that grow', 'training state'}


@pytest.mark.parametrize('fault', FOUND)
def test_what_was_found_once_is_held_by_tests_that_exist(fault):
    for name, tests in FOUND[fault].items():
        text = (ROOT/'tests'/f'test_{name}.py').read_text()
        for test in tests.split(): assert f'def test_{test}(' in text, f'{fault}: no {test} in {name}'


def bad(counts): return {k: n for k, n in sum(counts.values(), Counter()).items() if k != 'clean'}


def test_no_damaged_input_is_read_as_something_else_or_ends_in_more_than_a_sentence():
    from fault_entries import ENTRIES
    counts, found = campaign(SHORT, seed=10**6, names=set(ENTRIES) - SLOW)
    assert not bad(counts), found


@pytest.mark.slow
def test_ten_thousand_damaged_inputs():
    counts, found = campaign(LONG, seed=0)
    files.save_json(ROOT/'reports'/'faults.json', record(counts), indent=1)
    assert not bad(counts), found
    assert sum(map(Counter.total, counts.values())) >= .98*LONG


def test_the_figures_of_the_documentation_are_of_a_long_form_without_faults():
    counts = json.loads(COUNTS.read_text())
    assert all(tuple(of_entry) == CLASSES for of_entry in counts.values())
    assert sum(of_entry['clean'] for of_entry in counts.values()) >= .98*LONG
    assert not any(of_entry[kind] for of_entry in counts.values() for kind in CLASSES[1:])


# ---- tables that are small until they are read

def bomb(): # 20,000 rows that name one text of a megabyte
    rows = pa.array([0]*20_000, pa.int32())
    return pa.table(dict(a=pa.DictionaryArray.from_arrays(rows, ['x'*2**20])))


def as_parquet(path): parquet.write_table(bomb(), path)


def as_arrow(path):
    with pa.ipc.new_file(path, bomb().schema) as writer: writer.write_table(bomb())


def in_lists(path): # the same within a list, which Parquet packs as well
    rows = [['x'*2**20]]*300
    parquet.write_table(pa.table(dict(a=rows)), path)


@pytest.mark.parametrize('write', [as_parquet, as_arrow, in_lists])
def test_a_table_of_one_long_text_is_refused_by_what_it_stands_for(tmp_path, write):
    path = tmp_path/('a.arrow' if write is as_arrow else 'a.parquet')
    write(path)
    assert path.stat().st_size < 3_000_000
    with pytest.raises(files.TooMuch, match='a.(arrow|parquet): has .* bytes unpacked'): read_records(path)


def test_what_dictionaries_stand_for_is_read(tmp_path):
    words = pa.array(['b', None, 'é', 'b']).dictionary_encode()
    numbers = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1, 0]), pa.array([1.5, 2.]))
    table = pa.table(dict(w=words, n=numbers, l=[['a'], [], None, ['a', 'b']]))
    parquet.write_table(table, tmp_path/'a.parquet')
    assert read_records(tmp_path/'a.parquet') == table.to_pylist()


# ---- a disk that is full

@pytest.mark.parametrize('step', ['write', 'fsync', 'replace'])
def test_a_full_disk_keeps_the_file_that_was_there_and_leaves_no_other(tmp_path, monkeypatch, step):
    save_tensors(tmp_path/'a.safetensors', dict(x=torch.ones(3)), {})
    def full(*args): raise OSError(errno.ENOSPC, 'No space left on device')
    if step == 'write': monkeypatch.setattr(files, '_fill', full)
    else: monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match='a.safetensors could not be written .No space left') as e:
        save_tensors(tmp_path/'a.safetensors', dict(x=torch.zeros(3)), {})
    monkeypatch.undo()
    assert '\n' not in str(e.value) and [p.name for p in tmp_path.iterdir()] == ['a.safetensors']
    assert open_tensors(tmp_path/'a.safetensors')[0]['x'].tolist() == [1, 1, 1]


# ---- two runs of a stage at once

def contents(at): return {p.name: p.read_bytes() for p in at.glob('build/prepare/plans/*')}


def start(at, *words):
    "Start a command in a process group of its own"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | dict(PATH=path, PYTHONPATH=str(at))
    how = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    return subprocess.Popen(words, cwd=at, env=env, **how)


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
    "The project at the sizes of `smoke`"
    from test_places import place, run
    at = place(tmp_path_factory.mktemp('killed'))
    run(at, 'git', 'init', '-q')
    pull = 'from remask.pipeline.store import pull; pull()'
    for words in ['remask', 'profile', 'smoke', '--force'], [sys.executable, '-c', pull]:
        code, printed = run(at, *words, PYTHONPATH=str(at))
        assert code == 0, printed
    return at


@pytest.mark.slow
def test_two_runs_of_a_stage_at_once_leave_what_one_leaves(smoke):
    words = 'remask-stage', 'prepare', 'data=plans'
    start(smoke, *words).communicate()
    whole = contents(smoke)
    both = [start(smoke, *words) for _ in range(2)]
    for stage in both: stage.communicate()
    assert whole and contents(smoke) == whole and 0 in [stage.returncode for stage in both]


# ---- kills of `dvc repro` while each kind of stage runs

KILLS = 50
FORCED = 'dvc', 'repro', '--single-item', '--force'


def seconds_of_stages(at):
    "Run every stage; return how long each ran"
    began, run = {}, start(at, 'dvc', 'repro')
    lines = []
    for line in run.stdout:
        lines.append(line)
        if line.startswith('Running stage'): began[line.split("'")[1]] = time.monotonic()
    assert run.wait() == 0, ''.join(lines[-20:])
    ends = [*began.values()][1:] + [time.monotonic()]
    return {stage: end - start for (stage, start), end in zip(began.items(), ends)}


def killed_within(at, stage, seconds):
    "Kill `dvc repro` and what it runs some seconds after a stage has begun; return whether it was running"
    run = start(at, *FORCED, stage)
    while not run.stdout.readline().startswith('Running stage'): assert run.poll() is None
    with suppress(subprocess.TimeoutExpired): run.communicate(timeout=seconds)
    running = run.poll() is None
    if running: os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    return running


def outputs_of(at, stage):
    lock = YAML(typ='safe').load((at/'dvc.lock').read_text())
    return [at/out['path'] for out in lock['stages'][stage]['outs']]


def timeless(value):
    "A record without how long its trainings took, also that of each part of a training"
    if isinstance(value, list): return [timeless(v) for v in value]
    if not isinstance(value, dict): return value
    return {k: timeless(v) for k, v in value.items() if k != 'seconds'}


def result(path):
    "What a file holds, but for how long a training took"
    if path.suffix != '.safetensors': return path.read_bytes()
    tensors, about = open_tensors(path)
    return content_digest(tensors, timeless(about))


def results(at, stage):
    "What lies in the outputs of a stage"
    found = [p for out in outputs_of(at, stage) for p in [out, *out.rglob('*')] if p.is_file()]
    return {p: result(p) for p in found if not p.name.startswith('.')}


def grows(path): return path.suffix == '.jsonl'


@pytest.fixture(scope='module')
def complete(smoke):
    "The project with everything that `dvc repro` makes at the sizes of `smoke`, and the time of each stage"
    (smoke/'dvc.lock').unlink()
    return smoke, seconds_of_stages(smoke)


@pytest.mark.slow
def test_fifty_kills_over_every_kind_of_stage_end_in_the_same_outputs(complete):
    at, took = complete
    rng = random.Random(0)
    by_kind = {}
    for stage in took: by_kind.setdefault(stage.split('@')[0], []).append(stage)
    kinds = [*by_kind, *rng.sample([*by_kind], KILLS - len(by_kind))]
    chosen, order = [rng.choice(by_kind[kind]) for kind in kinds], [*took]
    for stage in sorted(chosen, key=order.index, reverse=True): # a network trained again is another file
        whole = results(at, stage)
        seconds = rng.uniform(0, took[stage])
        while not killed_within(at, stage, seconds): seconds /= 2 # it had ended before
        left = results(at, stage)
        assert all(grows(p) or whole[p] == left[p] for p in left), stage
        again = start(at, *FORCED, stage)
        said = again.communicate()[0]
        assert again.returncode == 0, f'{stage}: {said[-2000:]}'
        assert whole and results(at, stage) == whole, stage
    assert not [*at.glob('reports/**/*.part')]
    plans = open_experiment(at, 'plans')
    for of in plans.client.search_experiments():
        methods = [run.info.run_name for run in runs(open_experiment(at, of.name))]
        assert len(methods) == len({*methods}), of.name
