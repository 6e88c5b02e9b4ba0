"""Small, with the habits of the class published with SDAR: block attention by a mask of ones and zeros that the caller makes, a cache
switch of its own in `forward`, tied embeddings, `AutoModelForCausalLM` alone in `auto_map`, MASK named by the tokenizer only."""
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class SDARConfig(PretrainedConfig):
    model_type = 'sdar'

    def __init__(self, vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
                 block_size=4, use_cache=True, tie_word_embeddings=True, **kwargs):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.max_position_embeddings = num_attention_heads, max_position_embeddings
        self.block_size, self.use_cache = block_size, use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class SDARDecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config.hidden_size
        self.heads, self.norm1, self.norm2 = config.num_attention_heads, nn.RMSNorm(d), nn.RMSNorm(d)
        self.qkv, self.o_proj = nn.Linear(d, 3*d, bias=False), nn.Linear(d, d, bias=False)
        self.mlp = nn.Sequential(nn.Linear(d, 2*d), nn.SiLU(), nn.Linear(2*d, d))

    def forward(self, hidden_states, attention_mask=None, position_ids=None, store_kv=False):
        B, L, d = hidden_states.shape
        q, k, v = self.qkv(self.norm1(hidden_states)).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        angle = position_ids[:, None, :, None]*1e4**(-torch.arange(0, q.shape[-1], 2)/q.shape[-1])
        q, k = (torch.cat([a*angle.cos() - b*angle.sin(), a*angle.sin() + b*angle.cos()], -1).to(q) for a, b in (z.chunk(2, -1) for z in (q, k)))
        mask = attention_mask.bool() if attention_mask is not None else None
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=False)
        h = hidden_states + self.o_proj(o.transpose(1, 2).reshape(B, L, d))
        return (h + self.mlp(self.norm2(h)),)


class SDARForCausalLM(PreTrainedModel):
    config_class = SDARConfig
    base_model_prefix = 'model'
    _no_split_modules = ['SDARDecoderLayer']
    _tied_weights_keys = ['lm_head.weight']

    def __init__(self, config):
        super().__init__(config)
        self.model = nn.ModuleDict(dict(embed_tokens=nn.Embedding(config.vocab_size, config.hidden_size),
                                        norm=nn.RMSNorm(config.hidden_size)))
        self.model.update(dict(layers=nn.ModuleList(SDARDecoderLayer(config) for _ in range(config.num_hidden_layers))))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self): return self.model['embed_tokens']
    def get_output_embeddings(self): return self.lm_head

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, labels=None,
                use_cache=None, store_kv=None, output_attentions=None, output_hidden_states=None, cache_position=None, **kwargs):
        h, seen = self.model['embed_tokens'](input_ids), ()
        if position_ids is None: position_ids = torch.arange(input_ids.shape[1], device=h.device)[None]
        for layer in self.model['layers']:
            seen, h = (*seen, h), layer(h, attention_mask, position_ids, store_kv)[0]
        h = self.model['norm'](h)
        return CausalLMOutputWithPast(logits=self.lm_head(h), hidden_states=(*seen, h) if output_hidden_states else None)
