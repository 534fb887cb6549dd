"""The whole model: embedding, blocks, token heads, reconstruction decoder.

Shapes: B streams, T tokens, N rows, C context_dim, E embed_dim, V vocabulary.
"""

import copy
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.config import ModelConfig
from newllm_core.model.block import CVFPBlock, Layer, Recurrence
from newllm_core.model.decoder import ReconstructionDecoder
from newllm_core.model.layer import CVFPLayer
from newllm_core.model.mogrifier import MogrifierLayer
from newllm_core.model.size import count_parameters, refuse_too_large
from newllm_core.model.token_head import TokenHead

HEAD_STD = 0.02


class LanguageModel(nn.Module):
    """A recurrent language model whose whole memory is one context vector.

    Every part is initialised from its own random stream of `seed`, so that the untrained blocks
    can be made again from a checkpoint whatever else it holds (`untrained`).

    Args:
        config: shape and initialisation.
        vocab_size: V.
        num_heads: 1 (reads the last block) or one per block.
        reconstruction: whether there is a decoder.
        seed: of every initial weight.

    Raises:
        ConfigError: this machine cannot hold it.

    Attributes:
        embedding: token embeddings [V, E]; a LayerNorm without parameters follows.
        blocks: the recurrence.
        token_output: heads, each a `TokenHead`; the last one may be tied to the embedding.
        decoder: of reconstruction learning, or None.
        compute_dtype: dtype of the blocks' matrix products, if another than the parameters'; the
            final context is float32 all the same. Set by `device.matrix_precision`.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        *,
        num_heads: int = 1,
        reconstruction: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        refuse_too_large(
            count_parameters(config, vocab_size, num_heads=num_heads, reconstruction=reconstruction)
        )
        self.config = config
        self.vocab_size = vocab_size
        self.seed = seed
        self.compute_dtype: torch.dtype | None = None
        self.embedding = nn.Embedding(vocab_size, config.embed_dim)
        self.blocks = Recurrence(
            CVFPBlock([_layer(config) for _ in range(count)]) for count in config.layer_structure
        )
        tied_dim = config.embed_dim if config.tie_weights else None
        heads = (TokenHead(config.context_dim, vocab_size, tied_dim) for _ in range(num_heads))
        self.token_output = nn.ModuleList(heads)
        if config.tie_weights:
            self.heads()[-1].weight = self.embedding.weight
        self.decoder = (
            ReconstructionDecoder(config.context_dim, config.embed_dim, config.decoder)
            if reconstruction
            else None
        )
        self.embedding.requires_grad_(config.embeddings == "random")
        self._initialise()

    @property
    def context_dim(self) -> int:
        """C."""
        return self.config.context_dim

    @property
    def num_heads(self) -> int:
        """Token heads; with fewer heads than blocks, heads read the last blocks."""
        return len(self.token_output)

    def layers(self) -> list[Layer]:
        """Every layer of every block, in the order in which a token passes them."""
        return [module for module in self.blocks.modules() if isinstance(module, Layer)]

    def heads(self) -> list[TokenHead]:
        """Token heads, first block first."""
        return [head for head in self.token_output if isinstance(head, TokenHead)]

    def start(self, num_streams: int) -> Tensor:
        """The start state c_0 = 0 of `num_streams` streams [B, C]."""
        like = self.embedding.weight  # its own `new_zeros` would be divided as it is
        return torch.zeros(num_streams, self.context_dim, dtype=like.dtype, device=like.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings x [..., E] of token ids [...], as they enter the first block."""
        return F.layer_norm(self.embedding(tokens), (self.config.embed_dim,))

    def step(self, *, context: Tensor, token: Tensor) -> list[Tensor]:
        """Read one token: the context [N, C] after each block, first block first.

        Args:
            context: c_{t-1} [N, C].
            token: x_t [N, E].
        """
        by_block = self.step_layers(context=context, token=token)
        return [of_block[-1].to(context.dtype) for of_block in by_block]

    @contextmanager
    def twice_differentiable(self) -> Iterator[None]:
        """Inside, gradients of the update can be differentiated again, at the cost of speed."""
        for layer in self.layers():
            layer.twice_differentiable = True
        try:
            yield
        finally:
            for layer in self.layers():
                layer.twice_differentiable = False

    @contextmanager
    def fixed_weights(self) -> Iterator[None]:
        """Inside, weights do not change: `compute_dtype` copies are made once, not per step."""
        for layer in self.layers():
            layer.fix_weights(self.compute_dtype)
        try:
            yield
        finally:
            for layer in self.layers():
                layer.fix_weights(None)

    def step_layers(self, *, context: Tensor, token: Tensor) -> list[list[Tensor]]:
        """Read one token: the context [N, C] after each layer of each block."""
        # For one row, converting weights would take longer than using them.
        if self.compute_dtype is not None and context.numel() > self.context_dim:
            context, token = context.to(self.compute_dtype), token.to(self.compute_dtype)
        by_block: list[list[Tensor]] = self.blocks(context=context, token=token)
        return by_block

    def logits(self, contexts: Sequence[Tensor]) -> list[Tensor]:
        """Next-token logits [..., V] of every head from the contexts [..., C] after each block."""
        read = contexts[len(contexts) - self.num_heads :]
        return [head(context) for head, context in zip(self.heads(), read, strict=True)]

    def expand_heads(self) -> None:
        """One head per block, each a copy of the trained last one, which stays as it is."""
        last = self.heads()[-1]
        copies = [copy.deepcopy(last) for _ in range(self.config.num_blocks - 1)]
        self.token_output = nn.ModuleList([*copies, last])

    def untrained(self) -> "LanguageModel":
        """A copy with the initial blocks: the random control."""
        # Initial weights are drawn on the processor, so that they are the same on every device.
        control = copy.deepcopy(self).cpu()
        control._initialise_blocks()
        return control.to(self.embedding.weight.device)

    def _initialise(self) -> None:
        generator = _stream(self.seed, "embedding")
        with torch.no_grad():
            # A LayerNorm follows the embedding, so this scale matters only to a tied head: it
            # gives logits of standard deviation one.
            self.embedding.weight.normal_(0, self.config.embed_dim**-0.5, generator=generator)
            generator = _stream(self.seed, "heads")
            for head in self.heads():
                tied = head.weight is self.embedding.weight
                head.initialise(HEAD_STD, generator, tied=tied)
        if self.decoder is not None:
            self.decoder.initialise(_stream(self.seed, "decoder"))
        self._initialise_blocks()

    def _initialise_blocks(self) -> None:
        generator = _stream(self.seed, "blocks")
        for layer in self.layers():
            layer.initialise(self.config.init_std, generator)


def _layer(config: ModelConfig) -> Layer:
    if config.update == "mogrifier":
        return MogrifierLayer(config.context_dim, config.embed_dim, rounds=config.mogrifier_rounds)
    return CVFPLayer(
        config.context_dim,
        config.embed_dim,
        config.hidden_dim,
        layernorm_mix=config.layernorm_mix,
        update=config.update,
    )


def _stream(seed: int, part: str) -> torch.Generator:
    """An independent random stream for one part of the model.

    Hashed, because the generator of the CPU keeps no more than 32 bits of a seed.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{part} {seed}".encode()))
