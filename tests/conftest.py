"""One thread per process: two cores that share their threads are slower than one."""
import os

for name, value in dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg', MLFLOW_DISABLE_TELEMETRY='true').items():
    os.environ.setdefault(name, value)
