"""A newllm model for Transformers: one context vector is the whole memory of a text.

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

A text begins with the end token, which the tokenizer puts there. `cache` holds the context after
everything that was read: pass only what is new together with it. Where `attention_mask` is 0
nothing is read, so that texts can be padded on either side.

Shapes: B texts, T tokens, C context_dim, E embed_dim, V vocabulary.
"""

from __future__ import annotations

import shutil
from itertools import pairwise  # noqa: F401 - for a cell
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import cached_file

# What `newllm import` needs beside the weights; it goes wherever the model is saved.
COMPANION = "newllm.safetensors"
# What Transformers calls a cache: `past_key_values` before 5.24.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__annotations__ else "past_key_values"


class NewllmConfig(PreTrainedConfig):
    """The shape of a model.

    Attributes:
        cell: the update rule, one of `CELLS`.
        cell_options: of the update rule, all of them.
        layer_structure: cells in each block.
        memory_dims: dimensions of the context, the last ones, that were not learned.
        head_hidden: units of the hidden layer of the head, if it has one.
        head_reads_token: whether the head reads the last token too.
        head_bigrams: pairs of tokens whose counts the head is mixed with, if it is.
        num_hidden_layers: recurrent states that a cache holds: the context alone.
    """

    model_type = "newllm"
    attribute_map = {"hidden_size": "context_dim"}  # noqa: RUF012

    vocab_size: int = 1
    context_dim: int = 256
    embed_dim: int = 256
    cell: str = "residual"
    cell_options: dict[str, Any] | None = None
    layer_structure: list[int] | None = None
    memory_dims: int = 0
    head_hidden: int = 0
    head_reads_token: bool = False
    head_bigrams: int = 0
    num_hidden_layers: int = 1
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    @property
    def layer_types(self) -> list[str]:
        """Return what kind of state each "layer" of a cache holds."""
        return ["linear_attention"]


class Cell(nn.Module):
    """One update of the context by a token; `is_last`: nobody reads the token that leaves it."""

    def __init__(self, context_dim: int, embed_dim: int, options: SimpleNamespace) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.embed_dim = embed_dim
        self.options = options
        self.is_last = False


CELLS: dict[str, type[Cell]] = {}  # the end of the file fills it


class Block(nn.Module):
    """Cells one after another."""

    def __init__(self, config: NewllmConfig, count: int) -> None:
        super().__init__()
        options = SimpleNamespace(**config.cell_options or {})
        learned_dims = config.context_dim - config.memory_dims
        cell, sizes = CELLS[config.cell], (learned_dims, config.embed_dim)
        self.layers = nn.ModuleList(cell(*sizes, options) for _ in range(count))

    def forward(self, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Update `context` [B, C] and `token` [B, E]."""
        dtype = context.dtype
        for cell in self.layers:
            context, token = cell(context=context, token=token)
        return context.to(dtype), token  # autocast may have narrowed what is carried


class NewllmForCausalLM(PreTrainedModel, GenerationMixin):
    """Embedding, recurrence, and the head that reads the context after the last block."""

    config_class = NewllmConfig
    _tied_weights_keys = {"head.weight": "embedding.weight"}  # noqa: RUF012
    # Counts, beside bfloat16 too; not the whole numbers of `pairs`.
    _keep_in_fp32_modules_strict = [  # noqa: RUF012
        *(f"bigrams.{name}" for name in ("counts", "totals", "rest", "single", "discounts")),
    ]
    _no_split_modules = ["Block"]  # noqa: RUF012
    _is_stateful = True

    def __init__(self, config: NewllmConfig) -> None:
        super().__init__(config)
        context_dim, embed_dim = config.context_dim, config.embed_dim
        self.embedding = nn.Embedding(config.vocab_size, embed_dim)
        self.blocks = nn.ModuleList(Block(config, n) for n in config.layer_structure or [1])
        self.blocks[-1].layers[-1].is_last = True
        if config.memory_dims:
            memory = LinearMemory  # noqa: F821 - the end of the file defines it
            self.memory = memory(config.memory_dims, embed_dim)
        width = embed_dim if config.tie_word_embeddings or config.head_hidden else context_dim
        if config.head_hidden:
            layer = HiddenLayer  # noqa: F821 - as above
            self.projection: nn.Module = layer(context_dim, config.head_hidden, width)
        elif config.tie_word_embeddings:
            self.projection = nn.Linear(context_dim, width)
        else:
            self.projection = nn.Identity()
        if config.head_reads_token:
            self.last_token = nn.Embedding(config.vocab_size, context_dim)
        self.head = nn.Linear(width, config.vocab_size)
        if config.head_bigrams:
            bigrams = Bigrams  # noqa: F821 - as above
            self.bigrams = bigrams(config.head_bigrams, config.vocab_size)
            self.gate = nn.Linear(context_dim, 1)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Say that `forward` makes the cache: one without attention is no default."""
        return False

    @staticmethod
    def create_masks_for_generate(
        attention_mask: Tensor | None = None,
        **_: Any,  # noqa: ANN401
    ) -> Tensor | None:
        """Leave the mask as it is: there is no attention to make it wider for."""
        return attention_mask

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding [V, E]."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding [V, E]."""
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """Return what makes logits."""
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace what makes logits."""
        self.head = new_embeddings

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Save as usual, with what `newllm import` needs beside the weights."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.config.name_or_path:
            quiet = {"_raise_exceptions_for_missing_entries": False}
            try:
                kept = cached_file(self.config.name_or_path, COMPANION, **quiet)
            except OSError:  # the folder it was read from is gone
                kept = None
            target = Path(save_directory) / COMPANION
            if kept is not None and not (target.exists() and target.samefile(kept)):
                shutil.copyfile(kept, target)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,  # noqa: ANN401 - for the loss
    ) -> Any:  # noqa: ANN401 - as `return_dict` says
        """Read tokens [B, T] behind what `cache` stands for.

        Args:
            input_ids: token ids [B, T].
            attention_mask: 0 where there is nothing to read [B, T, or more that came before].
            inputs_embeds: rows of the embedding [B, T, E] instead of ids that no head reads.
            cache: of what was read before; the context in it is replaced.
            past_key_values: the same under its name in Transformers before 5.24.
            labels: ids [B, T] to predict, each from what is before it; -100 for none.
            use_cache: whether to return a cache; by default not in training.
            logits_to_keep: of so many last tokens only, or of these places.
            output_hidden_states: whether to return the contexts [B, T, C].
            return_dict: whether to return names, or a tuple.
            **kwargs: what the loss takes.
        """
        if input_ids is None and (self.config.head_bigrams or self.config.head_reads_token):
            raise ValueError("the head of this model reads the last token: pass input_ids")
        if inputs_embeds is None:
            inputs_embeds = self.embedding(input_ids)
        x_BTE = F.layer_norm(inputs_embeds, (self.config.embed_dim,))
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        state = cache.layers[0].recurrent_states[0] if cache is not None else None
        # A cache changes in place, which no gradient of what was read from it would survive.
        shape = (len(x_BTE), self.config.context_dim)
        context_BC = self.embedding.weight.new_zeros(shape) if state is None else state.clone()
        last_BT = input_ids
        if attention_mask is not None:
            attention_mask = attention_mask[:, -x_BTE.shape[1] :, None].bool()
        if attention_mask is not None and input_ids is not None:
            # Where a text has ended, the last token that was read of it (in this call).
            places_T = torch.arange(input_ids.shape[1], device=input_ids.device)
            places_BT = places_T * attention_mask.expand(len(x_BTE), -1, -1)[..., 0]
            last_BT = input_ids.gather(1, places_BT.cummax(1).values)
        learned_dims = self.config.context_dim - self.config.memory_dims
        contexts = []
        for t, x_BE in enumerate(x_BTE.unbind(1)):
            before, token = context_BC, x_BE
            context_BC, kept = before.tensor_split([learned_dims], -1)
            for block in self.blocks:
                context_BC, token = block(context_BC, token)
            if self.config.memory_dims:
                context_BC = torch.cat([context_BC, self.memory(kept, x_BE)], -1)
            if attention_mask is not None:
                context_BC = torch.where(attention_mask[:, t], context_BC, before)
            contexts.append(context_BC)
        contexts_BTC = torch.stack(contexts, 1)
        if cache is not None:
            cache.layers[0].device = context_BC.device  # where beams are sorted
            cache.update_recurrent_state(context_BC.detach(), 0)

        last = isinstance(logits_to_keep, int)
        keep = slice(-logits_to_keep, None) if last else logits_to_keep
        read = contexts_BTC[:, keep]
        if self.config.head_reads_token:
            read = read + self.last_token(last_BT[:, keep])
        logits = self.head(self.projection(read))
        if self.config.head_bigrams:
            gates = self.gate(contexts_BTC[:, keep])
            logits = self.bigrams.mix(logits, gates, last_BT[:, keep]).log()
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=(contexts_BTC,) if output_hidden_states else None,
            **{CACHE: cache if use_cache else None},
        )
        named = self.config.return_dict if return_dict is None else return_dict
        return output if named else output.to_tuple()
