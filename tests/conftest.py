"""One thread per process: two cores that share their threads are slower than one."""
import os

for name, value in dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg', MLFLOW_DISABLE_TELEMETRY='true').items():
    os.environ.setdefault(name, value)


def pytest_collection_modifyitems(items):
    "The file whose tests wait for whole stages goes first, so that both processes end together"
    def not_recipes(item): return item.path.name != 'test_recipes.py'
    items.sort(key=not_recipes)
