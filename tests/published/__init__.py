"""Small models with random weights, written and saved as the published ones are: code of their own and an `auto_map` in config.json."""
import importlib.util, json, pathlib, shutil, sys
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer
from remask.lm.families import bridge, default_rope
from remask.lm.hub import load_hub
from remask.lm.hub_model import save_small

HERE = pathlib.Path(__file__).parent
CLASSES = dict(  # name -> configuration, model, the loaders its `auto_map` names
    llada=('LLaDAConfig', 'LLaDAModelLM', ('AutoModelForCausalLM', 'AutoModel')),
    dream=('DreamConfig', 'DreamModel', ('AutoModel',)),
    llada2_moe=('LLaDA2MoeConfig', 'LLaDA2MoeModelLM', ('AutoModelForCausalLM',)),
    sdar=('SDARConfig', 'SDARForCausalLM', ('AutoModelForCausalLM',)),
    mdlm=('MDLMConfig', 'MDLM', ('AutoModelForMaskedLM',)))


def module(name):
    "The published code of a family"
    spec = importlib.util.spec_from_file_location(f'published_{name}', HERE/f'modeling_{name}.py')
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    return code


def network(name, seed=0, **config):
    "A network with random weights, made directly"
    config_class, model_class, _ = CLASSES[name]
    code = module(name)
    with torch.random.fork_rng(devices=[]), default_rope():
        torch.manual_seed(seed)
        net = bridge(getattr(code, model_class))(getattr(code, config_class)(**config))
        for p in net.parameters(): torch.nn.init.normal_(p, std=.3) if p.ndim > 1 else None
    return net.eval()


def save(folder, name, net, tokenizer=None, **config):
    "Save a network as it is published; `config` is what config.json says beyond the class's defaults"
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config_class, model_class, loaders = CLASSES[name]
    file = f'modeling_{name}'
    shutil.copy(HERE/f'{file}.py', folder)
    kept = {k: v.contiguous().clone() for k, v in net.state_dict().items()}
    first = {}
    for k, v in net.state_dict().items(): first.setdefault(v.data_ptr(), k)
    kept = {k: v for k, v in kept.items() if k in first.values()}              # tied weights are written once
    save_file(kept, folder/'model.safetensors', dict(format='pt'))
    auto = dict(AutoConfig=f'{file}.{config_class}') | {loader: f'{file}.{model_class}' for loader in loaders}
    told = dict(model_type=net.config.model_type, architectures=[model_class], auto_map=auto) | config
    (folder/'config.json').write_text(json.dumps(told))
    if tokenizer is None: tokenizer = small_tokenizer(folder)
    tokenizer.save_pretrained(folder)


def small_tokenizer(folder, **special):
    "The tokenizer of arithmetic, with other special tokens than its own"
    save_small(folder/'tokenizer')
    tok = AutoTokenizer.from_pretrained(folder/'tokenizer')
    shutil.rmtree(folder/'tokenizer')
    for name, token in special.items(): setattr(tok, name, token)
    return tok


def sharpen(folder):
    "Save a model again with larger random weights, so that a token depends on all the others"
    hub = load_hub(folder)
    with torch.no_grad():
        for p in hub.net.parameters():
            if p.ndim == 2: p.mul_(6.)
    hub.net.save_pretrained(folder)
    return hub
