"""The whole model: embedding, recurrence (cells in sequence, in blocks), token heads.

Shapes: B streams, T tokens, N rows, C context_dim, E embed_dim, V vocabulary.
"""

import copy
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.config import ModelConfig
from newllm_core.model.bigrams import Bigrams
from newllm_core.model.cells.base import Cell
from newllm_core.model.cells.probe import probe
from newllm_core.model.heads import TokenHead
from newllm_core.model.memory import LinearMemory
from newllm_core.model.room import refuse_too_large
from newllm_core.plugins.guard import stdout_to_stderr
from newllm_core.plugins.registry import CELLS
from newllm_core.runtime.repeatable import seeded

HEAD_STD = 0.02


class CVFPBlock(nn.Module):
    """Cells one after another, each updating context and token: the unit that a head can read."""

    def __init__(self, cells: list[Cell]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(cells)

    def forward(self, *, context: Tensor, token: Tensor) -> tuple[list[Tensor], Tensor]:
        """Update `context` [N, C] by `token` [N, E]: the context after each cell, the new token."""
        contexts = []
        for cell in self.layers:
            context, token = cell(context=context, token=token)
            contexts.append(context)
        return contexts, token


class Recurrence(nn.Sequential):
    """Blocks in sequence.

    No `ModuleList`, which `fully_shard` of torch below 2.12 refuses.
    """

    def cells(self) -> Iterator[Cell]:
        """Yield every cell of every block, in the order in which a token passes them."""
        for block in self:
            yield from (cast(Cell, cell) for cell in cast(CVFPBlock, block).layers)

    def forward(  # type: ignore[override]
        self, *, context: Tensor, token: Tensor
    ) -> list[list[Tensor]]:
        """Return the context after each cell of each block, from `context` [N, C] and [N, E]."""
        dtype = context.dtype
        contexts = []
        for block in self:
            of_block, token = block(context=context, token=token)
            # Products may be narrow (see `runtime.precision`); the state that is carried is not.
            of_block = [values.to(dtype) for values in of_block]
            context = of_block[-1]
            contexts.append(of_block)
        return contexts


class LanguageModel(nn.Module):
    """A recurrent language model whose whole memory is one context vector.

    Every part is initialised from its own random stream of `seed`, so that the untrained blocks
    can be made again from a checkpoint whatever else it holds (`untrained`). There is one head,
    which reads the last block, or one per block. `refuse` is given the number of parameters before
    any takes memory, and raises if they are too many.

    Raises:
        ConfigError: this machine cannot hold it, or the cell or an option of it is unknown.
        PluginError: the cell cannot be made, or fails where a few rows pass it.

    Attributes:
        context_dim: C.
        embedding: token embeddings [V, E]; a LayerNorm without parameters follows.
        blocks: the recurrence, of the first dimensions of the context.
        memory: of the last ones, which are not learned; None without any.
        bigrams: counts that every head is mixed with, None without `head_bigrams`.
        token_output: heads, each a `TokenHead`; the last one may be tied to the embedding.
        cell_options: of the cell, all of them; `cell` gives those that are not its defaults.
        product_dtype: what matrix products round their inputs to, if anything. Contexts stay in
            the dtype of parameters all the same. Set by `runtime.precision.products_in`.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        *,
        cell: Mapping[str, Any] | None = None,
        num_heads: int = 1,
        seed: int = 0,
        refuse: Callable[[int], None] = refuse_too_large,
    ) -> None:
        super().__init__()
        config.require_dims()
        self.config = config
        self.context_dim = config.context_dim
        self.vocab_size = vocab_size
        self.seed = seed
        self.product_dtype: torch.dtype | None = None
        cell_type, options = CELLS.load(config.cell), CELLS.options(config.cell, cell or {})
        self.cell_options: dict[str, Any] = asdict(options)
        with stdout_to_stderr():  # a cell may print
            with torch.device("meta"):
                self._make_parts(cell_type, options, num_heads)
            with CELLS.blame(config.cell):  # a cell may not be made whole
                count = self.num_parameters()
            refuse(count)
            with seeded(seed):
                self._make_parts(cell_type, options, num_heads)
            self._initialise()
            probe(config.cell, self.cells(), seed)

    def _make_parts(self, cell_type: type[Cell], options: Any, num_heads: int) -> None:  # noqa: ANN401
        config = self.config
        # Drawing numbers on the meta device would import torch._dynamo, which takes seconds.
        empty = torch.empty(self.vocab_size, config.embed_dim)
        self.embedding = nn.Embedding.from_pretrained(empty, freeze=False)
        learned = (config.learned_dims, config.embed_dim)
        with CELLS.blame(config.cell):
            self.blocks = Recurrence(
                *(
                    CVFPBlock([cell_type(*learned, options) for _ in range(count)])
                    for count in config.layer_structure
                )
            )
        self.cells()[-1].is_last = True
        kept = (config.memory_dims, config.embed_dim)
        self.memory = LinearMemory(*kept) if config.memory_dims else None
        width = config.embed_dim if config.tie_weights or config.head_hidden else None
        sizes = (config.context_dim, self.vocab_size, width, config.head_hidden)
        pairs = config.head_bigrams
        self.bigrams = Bigrams(pairs, self.vocab_size) if pairs else None
        kind = {"reads_token": config.head_reads_token, "gated": bool(pairs)}
        heads = (TokenHead(*sizes, **kind) for _ in range(num_heads))
        self.token_output = nn.ModuleList(heads)
        if config.tie_weights:
            self.heads()[-1].weight = self.embedding.weight
        self.embedding.requires_grad_(config.embeddings_file is None)

    @property
    def device(self) -> torch.device:
        """Return where it computes."""
        return self.embedding.weight.device

    @property
    def num_heads(self) -> int:
        """Count token heads; with fewer heads than blocks, heads read the last blocks."""
        return len(self.token_output)

    def num_parameters(self) -> int:
        """Count parameters; tied ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def cells(self) -> list[Cell]:
        """List every cell of every block, in the order in which a token passes them."""
        return list(self.blocks.cells())

    def heads(self) -> list[TokenHead]:
        """List token heads, first block first."""
        return [head for head in self.token_output if isinstance(head, TokenHead)]

    def start(self, num_streams: int) -> Tensor:
        """Make the start state c_0 = 0 of `num_streams` streams [B, C]."""
        like = self.embedding.weight  # its own `new_zeros` would be divided as it is
        return torch.zeros(num_streams, self.context_dim, dtype=like.dtype, device=like.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up embeddings x [..., E] of token ids [...], as they enter the first block."""
        return F.layer_norm(self.embedding(tokens), (self.config.embed_dim,))

    def narrow_products(self, rows: int = 2) -> torch.autocast:
        """Enter a block whose matrix products round their inputs to `product_dtype`, if it is set.

        Leave it before the optimizer changes a weight: rounded copies live as long as the
        outermost such block, and those made without gradients would be used with them.
        """
        dtype = self.product_dtype
        # For one row, rounding the weights takes longer than using them.
        enabled = dtype is not None and rows > 1
        return torch.autocast(self.device.type, dtype=dtype, enabled=enabled)

    def step(self, *, context: Tensor, token: Tensor) -> list[Tensor]:
        """Read token x_t [N, E] from c_{t-1} [N, C]: the context [N, C] after each block."""
        return [of_block[-1] for of_block in self.step_layers(context=context, token=token)]

    def step_layers(self, *, context: Tensor, token: Tensor) -> list[list[Tensor]]:
        """Read one token: the context [N, C] after each layer of each block."""
        with self.narrow_products(len(context)), CELLS.blame(self.config.cell):
            return self.read(context=context, token=token)

    def read(
        self,
        *,
        context: Tensor,
        token: Tensor,
        blocks: Callable[..., list[list[Tensor]]] | None = None,
    ) -> list[list[Tensor]]:
        """Read one token as `step_layers` does, with products as whoever calls it has them.

        `blocks` is `self.blocks`, or its `forward` where hooks are not to be called.
        """
        blocks = blocks or self.blocks
        if self.memory is None:
            return blocks(context=context, token=token)
        learned, kept = context.tensor_split([self.config.learned_dims], -1)
        kept = self.memory(kept, token)
        contexts = blocks(context=learned, token=token)
        return [[torch.cat([c, kept], -1) for c in of_block] for of_block in contexts]

    def logits(self, contexts: Sequence[Tensor], last: Tensor | None = None) -> list[Tensor]:
        """Make next-token logits [..., V] of every head from contexts [..., C] after each block.

        Bigrams, and heads that read it, need `last`, the tokens [...] that were read last.
        """
        pairs = zip(self.heads(), contexts[len(contexts) - self.num_heads :], strict=True)
        return [self.predict(head, context, last) for head, context in pairs]

    def predict(self, head: TokenHead, context: Tensor, last: Tensor | None = None) -> Tensor:
        """Make next-token logits [..., V] of one head from its contexts [..., C]; see `logits`."""
        values, are_probabilities = self.mixed(head, context, last)
        return values.log() if are_probabilities else values

    def mixed(
        self, head: TokenHead, context: Tensor, last: Tensor | None = None
    ) -> tuple[Tensor, bool]:
        """Make logits [..., V], or probabilities if the head is mixed with bigrams; say which."""
        logits: Tensor = head(context, last)
        if self.bigrams is None or head.gate is None:
            return logits, False
        assert last is not None, "bigrams need the token that was read last"
        return self.bigrams.mix(logits, head.gate_of(context), last), True

    def expand_heads(self) -> None:
        """Give every block a head, each a copy of the trained last one, which stays as it is."""
        last = self.heads()[-1]
        copies = [copy.deepcopy(last) for _ in range(self.config.num_blocks - 1)]
        self.token_output = nn.ModuleList([*copies, last])

    def untrained(self) -> "LanguageModel":
        """Copy the model with its initial blocks: the random control."""
        control = copy.deepcopy(self)
        control.blocks = self.initial_blocks()
        return control

    def initial_blocks(self) -> Recurrence:
        """Copy the blocks with the weights that they began with."""
        # Initial weights are drawn on the processor, so that they are the same on every device.
        blocks = copy.deepcopy(self.blocks).cpu()
        self._initialise_blocks(blocks)
        return blocks.to(self.device)

    def _initialise(self) -> None:
        generator = random_stream(self.seed, "embedding")
        with torch.no_grad():
            # A LayerNorm follows the embedding, so this scale matters only to a tied head: it
            # gives logits of standard deviation one.
            self.embedding.weight.normal_(0, self.config.embed_dim**-0.5, generator=generator)
        if self.memory is not None:
            self.memory.initialise(self.config, random_stream(self.seed, "memory"))
        generator = random_stream(self.seed, "heads")
        for head in self.heads():
            head.initialise(HEAD_STD, generator, tied=head.weight is self.embedding.weight)
        self._initialise_blocks(self.blocks)

    def _initialise_blocks(self, blocks: Recurrence) -> None:
        generator = random_stream(self.seed, "blocks")
        with CELLS.blame(self.config.cell), seeded(self.seed):
            for cell in blocks.cells():
                cell.initialise(self.config.init_std, generator)


def random_stream(seed: int, part: str) -> torch.Generator:
    """Make an independent random stream for one part of a model.

    Hashed, because the generator of the CPU keeps no more than 32 bits of a seed.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{part} {seed}".encode()))
