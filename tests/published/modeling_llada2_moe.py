"""Small, with the habits of the class published with LLaDA2.x: blocks attend to themselves and to earlier ones by an additive mask of
four dimensions that the caller makes; a mask of two dimensions becomes a causal one; `AutoModelForCausalLM` alone in `auto_map`."""
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MoeCausalLMOutputWithPast


class LLaDA2MoeConfig(PretrainedConfig):
    model_type = 'llada2_moe'

    def __init__(self, vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
                 num_experts=2, use_cache=True, tie_word_embeddings=False, **kwargs):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.max_position_embeddings = num_attention_heads, max_position_embeddings
        self.num_experts, self.use_cache = num_experts, use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class LLaDA2MoeDecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config.hidden_size
        self.heads, self.norm1, self.norm2 = config.num_attention_heads, nn.RMSNorm(d), nn.RMSNorm(d)
        self.query_key_value, self.dense, self.gate = nn.Linear(d, 3*d), nn.Linear(d, d), nn.Linear(d, config.num_experts)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d)) for _ in range(config.num_experts))

    def forward(self, hidden_states, attention_mask=None, position_ids=None, use_cache=False):
        B, L, d = hidden_states.shape
        q, k, v = self.query_key_value(self.norm1(hidden_states)).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        angle = position_ids[:, None, :, None]*1e4**(-torch.arange(0, q.shape[-1], 2)/q.shape[-1])
        q, k = (torch.cat([a*angle.cos() - b*angle.sin(), a*angle.sin() + b*angle.cos()], -1).to(q) for a, b in (z.chunk(2, -1) for z in (q, k)))
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        h = hidden_states + self.dense(o.transpose(1, 2).reshape(B, L, d))
        z = self.norm2(h)
        return (h + sum(w[..., None]*e(z) for w, e in zip(self.gate(z).softmax(-1).unbind(-1), self.experts)),)


class LLaDA2MoeModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LLaDA2MoeDecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size)


class LLaDA2MoeModelLM(PreTrainedModel):
    config_class = LLaDA2MoeConfig
    base_model_prefix = 'model'
    _no_split_modules = ['LLaDA2MoeDecoderLayer']
    _tied_weights_keys = ['lm_head.weight']

    def __init__(self, config):
        super().__init__(config)
        self.model = LLaDA2MoeModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self): return self.model.word_embeddings
    def get_output_embeddings(self): return self.lm_head

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, labels=None,
                use_cache=None, output_attentions=None, output_hidden_states=None, output_router_logits=None, return_dict=None, **kwargs):
        h, seen, L = self.model.word_embeddings(input_ids), (), input_ids.shape[1]
        if position_ids is None: position_ids = torch.arange(L, device=h.device)[None]
        if attention_mask is None or attention_mask.ndim == 2:
            ok = torch.ones(L, L, dtype=torch.bool, device=h.device).tril()[None]
            if attention_mask is not None: ok = ok & attention_mask[:, None].bool()
            attention_mask = torch.zeros(*ok.shape, dtype=h.dtype, device=h.device).masked_fill(~ok, torch.finfo(h.dtype).min)[:, None]
        if attention_mask.dtype == torch.bool: raise ValueError('attention_mask must be a float tensor')
        for layer in self.model.layers:
            seen, h = (*seen, h), layer(h, attention_mask, position_ids)[0]
        h = self.model.norm(h)
        return MoeCausalLMOutputWithPast(logits=self.lm_head(h).float(), hidden_states=(*seen, h) if output_hidden_states else None)
