"""Small, with the habits of the class published with LLaDA in 2024: no `post_init`, a `tie_weights` of its own, `use_cache` and
`use_return_dict` read from the configuration, an attention mask that is taken and not read, and widths under other names."""
import math
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class LLaDAConfig(PretrainedConfig):
    model_type = 'llada'
    keys_to_ignore_at_inference = ['past_key_values']

    def __init__(self, use_cache=False, **kwargs):
        plain = dict(d_model=32, n_heads=2, n_layers=2, vocab_size=40, max_sequence_length=64, weight_tying=False,
                     rope_theta=1e4, mask_token_id=1)
        plain.update(kwargs)
        plain.update(use_cache=use_cache, architectures=plain.get('architectures', ['LLaDAModelLM']))
        super().__init__(**plain)

    @property
    def num_attention_heads(self): return self.n_heads
    @property
    def num_hidden_layers(self): return self.n_layers
    @property
    def hidden_size(self): return self.d_model


def turned(q, theta):
    "Rotary positions, counted from the first column"
    at = torch.arange(q.shape[-2], device=q.device)[:, None]
    angle = at*theta**(-torch.arange(0, q.shape[-1], 2, device=q.device)/q.shape[-1])
    a, b = q.chunk(2, -1)
    return torch.cat([a*angle.cos() - b*angle.sin(), a*angle.sin() + b*angle.cos()], -1).to(q)


class LLaDALlamaBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.config, self.attn_norm, self.ff_norm = config, nn.RMSNorm(d), nn.RMSNorm(d)
        self.q_proj, self.k_proj, self.v_proj, self.attn_out = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.ff_proj, self.up_proj, self.ff_out = nn.Linear(d, 2*d), nn.Linear(d, 2*d), nn.Linear(2*d, d)

    def forward(self, x, attention_bias=None, layer_past=None, use_cache=False):
        B, L, d = x.shape
        h = self.attn_norm(x)
        q, k, v = (f(h).view(B, L, self.config.n_heads, -1).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        o = F.scaled_dot_product_attention(turned(q, self.config.rope_theta), turned(k, self.config.rope_theta), v)
        x = x + self.attn_out(o.transpose(1, 2).reshape(B, L, d))
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h))*self.up_proj(h)), None


class LLaDAModel(nn.Module):
    def __init__(self, config, init_params=True):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(config.vocab_size, config.d_model), ln_f=nn.RMSNorm(config.d_model)))
        self.transformer.update(dict(blocks=nn.ModuleList(LLaDALlamaBlock(config) for _ in range(config.n_layers))))
        if not config.weight_tying:
            self.transformer.update(dict(ff_out=nn.Linear(config.d_model, config.vocab_size, bias=False)))

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, output_hidden_states=False):
        assert past_key_values is None and not use_cache, 'no cache for a masked diffusion model'
        x, seen = self.transformer.wte(input_ids), []
        for block in self.transformer.blocks:
            if output_hidden_states: seen.append(x)
            x, _ = block(x, attention_bias=None, layer_past=None, use_cache=use_cache)
        x = self.transformer.ln_f(x)
        if output_hidden_states: seen.append(x)
        logits = F.linear(x, self.transformer.wte.weight) if self.config.weight_tying else self.transformer.ff_out(x)
        return logits, tuple(seen) or None


class LLaDAModelLM(PreTrainedModel):
    config_class = LLaDAConfig
    base_model_prefix = 'model'
    _no_split_modules = ['LLaDALlamaBlock']

    def __init__(self, config, model=None, init_params=False):
        super().__init__(config)
        self.model = model or LLaDAModel(config, init_params=init_params)

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None, attention_bias=None, past_key_values=None,
                labels=None, use_cache=None, output_attentions=None, output_hidden_states=None, return_dict=None,
                cache_position=None):
        if use_cache is None: use_cache = self.config.use_cache
        if output_attentions: raise ValueError('output_attentions is not yet supported in LLaDA')
        return_dict = return_dict if return_dict is not None else self.config.use_return_dict
        logits, states = self.model(input_ids, attention_mask, past_key_values, use_cache, output_hidden_states)
        return CausalLMOutputWithPast(logits=logits, hidden_states=states) if return_dict else (logits,)

    def can_generate(self): return True
    def get_input_embeddings(self): return self.model.transformer.wte

    def get_output_embeddings(self):
        return self.model.transformer.wte if self.config.weight_tying else self.model.transformer.ff_out

    def tie_weights(self):
        if self.config.weight_tying: self.model.transformer.ff_out = self.model.transformer.wte
