"""What several test files use."""
import torch
from remask.core.exact import tv_to_exact


def heldout_limit(model, n, times=25, deviations=5):
    "Bound the total variation of n exact samples: the mean of several draws plus some standard deviations"
    g = torch.Generator().manual_seed(0)
    scores = torch.tensor([tv_to_exact(model, model.sample_exact(n, g)) for _ in range(times)])
    return float(scores.mean() + deviations*scores.std())
