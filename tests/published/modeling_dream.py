"""Small, with the habits of the class published with Dream: the next position is predicted, a rope table of type 'default' looked up
in transformers, a buffer that is in no file, tied weights as a list, an attention mask of four dimensions handed to the kernel as it is."""
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


class DreamConfig(PretrainedConfig):
    model_type = 'Dream'
    keys_to_ignore_at_inference = ['past_key_values']

    def __init__(self, vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
                 rope_theta=1e4, rope_scaling=None, use_cache=False, mask_token_id=1, tie_word_embeddings=False, **kwargs):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.max_position_embeddings = num_attention_heads, max_position_embeddings
        self.rope_theta, self.rope_scaling, self.use_cache, self.mask_token_id = rope_theta, rope_scaling, use_cache, mask_token_id
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class DreamRotaryEmbedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.rope_type, self.config = 'default', config
        inv_freq, self.attention_scaling = ROPE_INIT_FUNCTIONS[self.rope_type](config, None)
        self.register_buffer('inv_freq', inv_freq, persistent=False)
        self.original_inv_freq = self.inv_freq

    def forward(self, q):
        angle = torch.arange(q.shape[-2], device=q.device)[:, None]*self.inv_freq
        a, b = q.chunk(2, -1)
        return torch.cat([a*angle.cos() - b*angle.sin(), a*angle.sin() + b*angle.cos()], -1).to(q)


class DreamDecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config.hidden_size
        self.heads, self.norm1, self.norm2 = config.num_attention_heads, nn.RMSNorm(d), nn.RMSNorm(d)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(d, d) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(d, 2*d), nn.SiLU(), nn.Linear(2*d, d))
        self.rotary_emb = DreamRotaryEmbedding(config)

    def forward(self, hidden_states, attention_mask=None, position_ids=None):
        B, L, d = hidden_states.shape
        h = self.norm1(hidden_states)
        q, k, v = (f(h).view(B, L, self.heads, -1).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        mask = attention_mask if isinstance(attention_mask, torch.Tensor) else None
        o = F.scaled_dot_product_attention(self.rotary_emb(q), self.rotary_emb(k), v, attn_mask=mask)
        h = hidden_states + self.o_proj(o.transpose(1, 2).reshape(B, L, d))
        return (h + self.mlp(self.norm2(h)),)


class DreamModel(PreTrainedModel):
    config_class = DreamConfig
    base_model_prefix = 'model'
    _no_split_modules = ['DreamDecoderLayer']
    _tied_weights_keys = ['lm_head.weight']

    def __init__(self, config):
        super().__init__(config)
        self.model = nn.ModuleDict(dict(embed_tokens=nn.Embedding(config.vocab_size, config.hidden_size),
                                        norm=nn.RMSNorm(config.hidden_size)))
        self.model.update(dict(layers=nn.ModuleList(DreamDecoderLayer(config) for _ in range(config.num_hidden_layers))))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self): return self.model['embed_tokens']
    def get_output_embeddings(self): return self.lm_head

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, labels=None,
                use_cache=None, output_attentions=None, output_hidden_states=None, return_dict=None, cache_position=None,
                num_logits_to_keep=0, **loss_kwargs):
        h, seen = self.model['embed_tokens'](input_ids), ()
        for layer in self.model['layers']:
            seen, h = (*seen, h), layer(h, attention_mask=attention_mask, position_ids=position_ids)[0]
        h = self.model['norm'](h)
        return MaskedLMOutput(logits=self.lm_head(h), hidden_states=(*seen, h) if output_hidden_states else None)
