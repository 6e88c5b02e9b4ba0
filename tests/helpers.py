"""What several test files use."""
from functools import partial
from typing import Callable, NamedTuple
import torch
from remask.core.exact import tv_to_exact


def heldout_limit(model, n, times=25, deviations=5):
    "Bound the total variation of n exact samples: the mean of several draws plus some standard deviations"
    g = torch.Generator().manual_seed(0)
    scores = torch.tensor([tv_to_exact(model, model.sample_exact(n, g)) for _ in range(times)])
    return float(scores.mean() + deviations*scores.std())


class Refusal(NamedTuple):
    "A call that must raise, and what its message must match"
    message: str
    call: Callable


def refusal(message, f, *args, **kwargs): return Refusal(message, partial(f, *args, **kwargs))
