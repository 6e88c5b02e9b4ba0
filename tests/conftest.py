"""One thread per process: two cores that share their threads are slower than one."""
import os
import pytest

for name, value in dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg', MLFLOW_DISABLE_TELEMETRY='true').items():
    os.environ.setdefault(name, value)


def pytest_collection_modifyitems(items):
    "The file whose tests wait for whole stages goes first, so that both processes end together"
    def not_recipes(item): return item.path.name != 'test_recipes.py'
    items.sort(key=not_recipes)


@pytest.fixture
def no_figures_left():
    "Close the figures of a test"
    import matplotlib.pyplot as plt
    plt.close('all')
    yield
    plt.close('all')
