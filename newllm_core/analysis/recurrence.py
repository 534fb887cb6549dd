"""What is examined: a state of fixed size, and how it reads one token.

A newllm model is one (`ModelRecurrence`), and so is any step that somebody else wrote
(`stepped.Stepped`). Sections of the analysis know nothing else of a network.

Shapes: N rows, B streams, T tokens, C context_dim, K numbers that are kept of a context.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.autograd.functional import jvp

from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel.sharding import is_divided
from newllm_core.runtime.device import WITHOUT_FLOAT64, one_thread
from newllm_core.runtime.progress import Task
from newllm_core.trajectory.sequential import rollout

EXACT, DIFFERENCES = "exact", "differences"
# Multiplications per matrix product below which threads cost more than they save, and far more if
# something else wants the processor: they wait for each other after every product.
SMALLEST_PRODUCT = 2**25


class Recurrence(ABC):
    """A recurrent network as the analysis sees it.

    Its `task` is told about every token of a text that is read, not about samples of single ones.
    """

    context_dim: int  # C, numbers in a state
    largest_weight: int  # numbers in its largest matrix, see `worthwhile_threads`
    derivative: str = EXACT  # how Jacobian-vector products are made
    derivative_error: float = 0.0  # of such a product, relative
    remedy: str = ""  # what may help where contexts are not finite
    task: Task = Task()  # whoever waits for it sets another
    delay: int = 0  # tokens after which a part of a state is lost all at once
    is_projected: bool = False  # whether `kept` holds a projection of a context, not all of it

    @abstractmethod
    def start(self, num_streams: int) -> Tensor:
        """Return the state before any token [B, C]."""

    @abstractmethod
    def read(self, context_NC: Tensor, tokens_N: Tensor) -> Tensor:
        """Return the states after reading one token id each [N, C]."""

    def starts(self, passages_PT: Tensor) -> Tensor:
        """Return the states before each passage [P, C]."""
        return self.start(len(passages_PT))

    def vocabulary(self) -> Tensor | None:
        """Return every id that may be read; None where only those of the text may."""
        return None

    def kept(self, context_NC: Tensor) -> Tensor:
        """Return what is kept of contexts [N, K]: distances between them are those of contexts."""
        return context_NC

    def rollout(
        self, tokens_BT: Tensor, start_BC: Tensor, *, warmup: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return what is kept of contexts [B, T - warmup, K], and the last states [B, C]."""
        context_BC, found = start_BC, []
        for number, token_B in enumerate(tokens_BT.unbind(1)):
            context_BC = self.read(context_BC, token_B)
            if number >= warmup:
                found.append(self.kept(context_BC))
            self.task.advance(len(token_B))
        return torch.stack(found, dim=1), context_BC

    def push_forward(
        self, context_NC: Tensor, tokens_N: Tensor, vector_NC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the states after a token [N, C], and the Jacobian of that times `vector_NC`.

        A tangent costs as much as another row.
        """
        self.task.advance(2 * len(context_NC))
        update = partial(self.read, tokens_N=tokens_N)
        if self.derivative == EXACT:
            # Two reverse passes in C++ alone; torch's forward mode spends most time in Python.
            return jvp(update, context_NC, vector_NC)
        return update(context_NC), difference_product(update, context_NC, vector_NC)


class ModelRecurrence(Recurrence):
    """The recurrence of a newllm model; of a copy on the processor where there is no float64."""

    remedy = (
        " (train with a smaller model.init_std, or with cell.layernorm_mix near 1 where the cell "
        "has that)"
    )

    def __init__(self, model: LanguageModel) -> None:
        if model.device.type in WITHOUT_FLOAT64:
            model = copy.deepcopy(model).cpu()
        self.model = model
        self.context_dim = model.context_dim
        self.delay = model.config.delay_span
        self.largest_weight = max(p.numel() for p in model.blocks.parameters())
        twice = all(cell.twice_differentiable for cell in model.cells())
        self.derivative = EXACT if twice and not is_divided(model.blocks) else DIFFERENCES

    def start(self, num_streams: int) -> Tensor:
        """Return c_0 = 0 [B, C]."""
        return self.model.start(num_streams)

    def read(self, context_NC: Tensor, tokens_N: Tensor) -> Tensor:
        """Return the context after the last block [N, C]."""
        return self.model.step(context=context_NC, token=self.model.embed(tokens_N))[-1]

    def vocabulary(self) -> Tensor:
        """Return every id: each has an embedding."""
        return torch.arange(self.model.vocab_size, device=self.model.device)

    def rollout(
        self, tokens_BT: Tensor, start_BC: Tensor, *, warmup: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Read tokens as evaluation does."""
        contexts_BTC = rollout(self.model, tokens_BT, start_BC, warmup=warmup, task=self.task)
        return contexts_BTC, contexts_BTC[:, -1]


def worthwhile_threads(recurrence: Recurrence, num_rows: int) -> AbstractContextManager[None]:
    """Use one thread while steps of `num_rows` rows of a recurrence are small products."""
    is_large = num_rows * recurrence.largest_weight >= SMALLEST_PRODUCT
    return nullcontext() if is_large else one_thread()


Update = Callable[[Tensor], Tensor]


def difference_product(
    update: Update, context_NC: Tensor, vector_NC: Tensor, *, scale: float = 1.0
) -> Tensor:
    """Return the Jacobian times `vector_NC` [N, C] from a central difference.

    Its step is `scale` times the cube root of the precision, as a share of the context's norm:
    there rounding and curvature cost about the same.
    """
    share = scale * torch.finfo(context_NC.dtype).eps ** (1 / 3)
    length_N1 = vector_NC.norm(dim=1, keepdim=True).clamp(min=1e-30)
    step_N1 = share * context_NC.norm(dim=1, keepdim=True).clamp(min=1) / length_N1
    ahead_NC = update(context_NC + step_N1 * vector_NC)
    behind_NC = update(context_NC - step_N1 * vector_NC)
    return (ahead_NC - behind_NC) / (2 * step_N1)
