"""Tasks give the same bytes wherever they run, and what fails, is lost or is interrupted says so."""
import importlib.util, os, pathlib, signal, socket, subprocess, sys, time
import pytest, torch, yaml
from remask.core import engine as engines
from remask.core.denoiser import Denoiser
from remask.core.engine import Engine, TaskError, check_engine, completed, run_tasks
from remask.core.schedules import linear
from remask.core.tokens import fully_masked
from remask.domains.graphs import graph_position_features, graph_space, slots
from remask.methods.generation import draw_sizes, generate_rows
from remask.methods.published import compared, make_method, parse_name

ROOT = pathlib.Path(__file__).parents[1]
N_MAX, SAMPLES, PART = 4, 12, 6
needs_ray = pytest.mark.skipif(importlib.util.find_spec('ray') is None,
                               reason="ray is not installed: pip install 'remask[ray]'")


def names(comparison='main'):
    "The methods of a comparison"
    params = yaml.safe_load((ROOT/'params.yaml').read_text())
    lists = params['comparisons'][comparison]['lists']
    return [name for key in lists for name in params['lists'][key]]


def speeds(t, real):
    "A schedule with an alpha for every position, as a learned one has"
    a = linear(t, real)**torch.linspace(.5, 3, real.shape[1], dtype=torch.float64)
    return torch.where(real, a, 1.)


def sampled(name, seed, first):
    "Some rows of one method, by a network with random weights; the bytes of ids and evaluations"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    row, space = compared(name), graph_space(N_MAX)
    net = Denoiser(graph_position_features(N_MAX), space.legal, d=16, layers=1, dropout=0.).eval()
    alpha = speeds if row.process == 'v2' else linear
    method = make_method(**parse_name(row.id)._asdict())
    sizes = draw_sizes([1, 2, 3, 4], SAMPLES, seed)
    x = fully_masked(space, slots(sizes, N_MAX))[first:first + PART]
    ts = method.times(6, alpha, torch.ones(1, space.L, dtype=torch.bool))
    with torch.no_grad(): got = generate_rows(net, alpha, space, method, x, ts, seed, first)
    return got.x.numpy().tobytes(), got.nfe.numpy().tobytes()


def parts(methods, seeds=(1, 2)):
    "The tasks that sample them: a range of rows each"
    return [(m, s, first) for m in methods for s in seeds for first in range(0, SAMPLES, PART)]


@pytest.mark.parametrize('prefer', ['threads', 'processes'])
def test_tasks_side_by_side_give_the_bytes_of_one_after_the_other(prefer):
    few = names()[::9] + names('remedies')[1:2] + names('remedies')[-1:]
    assert {compared(name).process for name in few} == {'v1', 'v2', 'unweighted'}
    serial = run_tasks(sampled, parts(few), Engine('serial'))
    assert run_tasks(sampled, parts(few), prefer=prefer, workers=2) == serial
    assert len(set(serial)) > len(serial)//2


def test_an_error_names_its_task_and_what_was_finished_before_is_there():
    done = []
    def work(k):
        if k == 3: raise ValueError('no good')
        return k
    running = completed(work, [(k,) for k in range(6)], Engine('serial'), name='job {}'.format)
    with pytest.raises(TaskError, match=r'job \(3,\): ValueError: no good'):
        for number, _ in running: done.append(number)
    assert done == [0, 1, 2]


def end(k):
    if k == 1: os.kill(os.getpid(), signal.SIGKILL)
    return k


def test_a_killed_process_of_this_machine_is_said():
    with pytest.raises(TaskError, match='a worker process was killed'):
        run_tasks(end, [(k,) for k in range(4)], workers=2)


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
from remask.core.engine import completed
signal.signal(signal.SIGINT, signal.default_int_handler)     # a shell ignores it for what it starts behind
def work(k):
    if k == 3: time.sleep(60)
    return k
for number, _ in completed(work, [(k,) for k in range(6)], prefer='threads', workers=2):
    Path(sys.argv[1], str(number)).touch()
"""


def test_ctrl_c_keeps_what_was_finished(tmp_path):
    work = subprocess.Popen([sys.executable, '-c', INTERRUPTED, tmp_path], stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 5 and time.monotonic() < until: time.sleep(.1)
    work.send_signal(signal.SIGINT)
    time.sleep(.5)
    work.kill()                  # a thread that sleeps cannot be interrupted
    assert b'KeyboardInterrupt' in work.communicate()[1]
    assert {p.name for p in tmp_path.iterdir()} == set('01245')


# ---- Ray

def test_ray_that_is_not_installed_is_said_at_once(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match=r"engine=ray needs the package ray: pip install 'remask\[ray\]'"):
        run_tasks(end, [(0,)], Engine('ray'))


@needs_ray
def test_an_address_that_does_not_answer_is_said_at_once():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))             # a port that nobody listens at
        port = s.getsockname()[1]
        with pytest.raises(ValueError, match=f'address=127.0.0.1:{port}: no Ray cluster answers'):
            check_engine(Engine('ray', f'127.0.0.1:{port}'))


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_was_stopped_is_not_waited_for(cluster, monkeypatch):
    "Ray remembers the last cluster of a machine in a file, also when it was killed"
    monkeypatch.setattr(engines, '_found_address', lambda: '127.0.0.1:1')
    with pytest.raises(ValueError, match='address=auto: no Ray cluster answers'):
        run_tasks(end, [(0,)], Engine('ray', 'auto'))


@pytest.fixture(scope='module')
def cluster():
    "Two nodes of one processor each, on this machine"
    from ray import cloudpickle
    from ray.cluster_utils import Cluster
    cloudpickle.register_pickle_by_value(sys.modules[__name__])   # workers do not import tests
    node = dict(num_cpus=1, object_store_memory=80*2**20)
    c = Cluster(initialize_head=True, head_node_args=dict(node, include_dashboard=False))
    c.add_node(**node)
    c.wait_for_nodes()
    yield Engine('ray', c.address)
    c.shutdown()


def killed_once(flag, *task):
    "Sample, but the first process that comes here is killed in the middle"
    import ray
    try: os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError: return sampled(*task), ray.get_runtime_context().get_node_id()
    os.kill(os.getpid(), signal.SIGKILL)


@needs_ray
@pytest.mark.slow
def test_two_nodes_give_the_bytes_of_one_process_also_where_a_worker_is_killed(cluster, tmp_path):
    tasks = parts(names())
    flags = [tmp_path/('killed' if k == len(tasks)//2 else 'none') for k in range(len(tasks))]
    (tmp_path/'none').touch()
    done = run_tasks(killed_once, [(flag, *task) for flag, task in zip(flags, tasks)], cluster)
    assert flags[len(tasks)//2].exists()
    assert [rows for rows, _ in done] == run_tasks(sampled, tasks, Engine('serial'))
    assert len({node for _, node in done}) == 2


@needs_ray
@pytest.mark.slow
def test_a_task_that_fails_on_a_cluster_is_named(cluster):
    def divide(a, b): return a/b
    with pytest.raises(TaskError, match=r'task \(1, 0\): ZeroDivisionError'):
        run_tasks(divide, [(1, 1), (1, 0), (2, 1)], cluster)


@needs_ray
@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_not_tried_for_ever(cluster):
    with pytest.raises(TaskError, match=r'task \(1\): its worker was lost every time'):
        run_tasks(end, [(1,)], cluster)
