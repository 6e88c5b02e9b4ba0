"""Small, with the habits of the class published with MDLM: sigma goes in as `timesteps`, no attention mask, MASK is the last column and
no tokenizer knows it, no `post_init`, other names of the configuration, a bare tensor comes out unless a record is asked for."""
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput


class MDLMConfig(PretrainedConfig):
    model_type = 'mdlm'

    def __init__(self, vocab_size=41, model_length=64, hidden_dim=32, cond_dim=16, n_blocks=2, n_heads=2, time_conditioning=False, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.model_length, self.hidden_dim, self.cond_dim = vocab_size, model_length, hidden_dim, cond_dim
        self.n_blocks, self.n_heads, self.time_conditioning = n_blocks, n_heads, time_conditioning


class DDiTBlock(nn.Module):
    def __init__(self, d, heads, cond):
        super().__init__()
        self.heads, self.norm, self.qkv, self.out = heads, nn.LayerNorm(d), nn.Linear(d, 3*d, bias=False), nn.Linear(d, d, bias=False)
        self.mlp, self.steer = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 2*d), nn.GELU(), nn.Linear(2*d, d)), nn.Linear(cond, d)

    def forward(self, x, c, angle):
        B, L, d = x.shape
        q, k, v = self.qkv(self.norm(x) + self.steer(c)[:, None]).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (torch.cat([a*angle.cos() - b*angle.sin(), a*angle.sin() + b*angle.cos()], -1).to(q) for a, b in (z.chunk(2, -1) for z in (q, k)))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, d))
        return x + self.mlp(x)


class DITBackbone(nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config.hidden_dim
        self.config, self.vocab_embed = config, nn.Embedding(config.vocab_size, d)
        self.sigma_map = nn.Sequential(nn.Linear(1, config.cond_dim), nn.SiLU(), nn.Linear(config.cond_dim, config.cond_dim))
        self.register_buffer('inv_freq', 1e4**(-torch.arange(0, d//config.n_heads, 2)/(d//config.n_heads)))
        self.blocks = nn.ModuleList(DDiTBlock(d, config.n_heads, config.cond_dim) for _ in range(config.n_blocks))
        self.output_layer = nn.Linear(d, config.vocab_size)

    def forward(self, indices, sigma, output_hidden_states=False):
        if not self.config.time_conditioning: sigma = torch.zeros_like(sigma)
        x, seen = self.vocab_embed(indices), []
        angle, c = torch.arange(x.shape[1], device=x.device)[:, None]*self.inv_freq, F.silu(self.sigma_map(sigma[:, None].to(x)))
        for block in self.blocks:
            if output_hidden_states: seen.append(x)
            x = block(x, c, angle)
        if output_hidden_states: seen.append(x)
        return self.output_layer(x), seen


class MDLM(PreTrainedModel):
    config_class = MDLMConfig
    base_model_prefix = 'mdlm'

    def __init__(self, config):
        super().__init__(config)
        self.backbone = DITBackbone(config)

    def forward(self, input_ids=None, timesteps=None, output_hidden_states=None, return_dict=None):
        output_hidden_states = output_hidden_states if output_hidden_states is not None else self.config.output_hidden_states
        return_dict = return_dict if return_dict is not None else self.config.use_return_dict
        logits, states = self.backbone(input_ids, timesteps, output_hidden_states)
        if return_dict: return MaskedLMOutput(logits=logits, hidden_states=states if output_hidden_states else None)
        return (logits, states) if output_hidden_states else logits
