"""Remasking in masked discrete diffusion: samplers that can mask again what they have unmasked.

>>> import torch, remask
>>> def model(ids): return torch.zeros(*ids.shape, 1000)     # any callable: ids (B,L) -> logits (B,L,V)
>>> out = remask.generate(model, length=64, vocab_size=1000, mask_id=1000, method='remdm_cap', steps=8, num_samples=4)
>>> tuple(out.ids.shape), out.nfe.tolist()
((4, 64), [8, 8, 8, 8])
>>> remask.get_method('llada_topp0.9_remdm_cap_eta0.2').preserves
'nothing'
>>> list(remask.list_methods().columns[:3])
['paper', 'rule', 'what']
"""
__version__ = "0.1.0"

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.denoiser import Denoised, Denoiser, load_denoiser
    from .core.sampler import Noise, Policy, Process, StepState, sample
    from .core.tokens import TokenSpace
    from .core.train import Recipe, fit
    from .evaluate.tune import compare, tune
    from .lm.generate import generate
    from .lm.hub import finetune, load_hub
    from .methods.method import Method
    from .methods.registry import get_method, list_methods

# name -> module: a name is imported when it is first used, so that `import remask` costs next to nothing
_FACE = dict(
    generate='lm.generate', sample='core.sampler', Policy='core.sampler', Process='core.sampler', StepState='core.sampler',
    Noise='core.sampler', TokenSpace='core.tokens', Denoised='core.denoiser', Denoiser='core.denoiser',
    load_denoiser='core.denoiser', Recipe='core.train', fit='core.train', Method='methods.method',
    get_method='methods.registry', list_methods='methods.registry', compare='evaluate.tune', tune='evaluate.tune',
    load_hub='lm.hub', finetune='lm.hub')
__all__ = ['__version__', *_FACE]

# Tools that this package starts report usage unless they are told not to; what the environment says already stays
_QUIET = dict(MLFLOW_DISABLE_TELEMETRY='true', DVC_NO_ANALYTICS='1', HF_HUB_DISABLE_TELEMETRY='1', RAY_USAGE_STATS_ENABLED='0')
for _tool, _value in _QUIET.items(): os.environ.setdefault(_tool, _value)


def __getattr__(name):
    if name not in _FACE: raise AttributeError(f"module 'remask' has no attribute {name!r}; it has {', '.join(_FACE)}")
    value = getattr(importlib.import_module(f'.{_FACE[name]}', __name__), name)
    globals()[name] = value
    return value


def __dir__(): return sorted([*globals(), *_FACE])
