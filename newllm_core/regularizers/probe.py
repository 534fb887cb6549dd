"""One call of a regularizer before hours of training: does it keep the least of its contract?"""

import copy

import torch
from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.repeatable import leaving_alone

NUM_CONTEXTS = 64


def probe_batch(context_dim: int, num_contexts: int = NUM_CONTEXTS) -> tuple[Tensor, Tensor]:
    """Contexts [N, D] with a mean and a scale per dimension, and token ids [N]; always the same."""
    generator = torch.Generator().manual_seed(0)
    shift_D, scale_D = torch.randn(2, context_dim, generator=generator)
    noise_ND = torch.randn(num_contexts, context_dim, generator=generator)
    tokens_N = torch.randint(0, 256, (num_contexts,), generator=generator)
    return noise_ND * (0.5 + scale_D.abs()) + 0.5 * shift_D, tokens_N


def probe(regularizer: Regularizer, what: str) -> str | None:
    """Call a copy of `regularizer`, or `what`, once; a line about its gradient if it has none.

    Statistics and random numbers of the run are left as they are.

    Raises:
        PluginError: the loss is no finite scalar tensor, its gradient is not finite, or it keeps
            what is in no buffer.
    """
    contexts_ND, tokens_N = probe_batch(regularizer.context_dim)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        names = [name for name, _ in regularizer.named_parameters()]
        if names:
            raise PluginError(
                f"{what} has parameters, which no optimizer trains ({', '.join(names)})"
            )
        trial = copy.deepcopy(regularizer).cpu().train()
        twin = copy.deepcopy(trial)
        with leaving_alone(None, f"{what} in its loss"):
            loss = trial(contexts_ND.requires_grad_(), tokens_N=tokens_N)
        if not (isinstance(loss, Tensor) and loss.ndim == 0):
            shown = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)[:80]
            raise PluginError(f"{what} returns no scalar tensor but {shown}")
        if not loss.isfinite():
            raise PluginError(f"{what} returns {loss.item()} for ordinary contexts")
        gradient_ND = None
        if loss.requires_grad:
            (gradient_ND,) = torch.autograd.grad(loss, contexts_ND, allow_unused=True)
        twin.load_state_dict(trial.state_dict())
        pair = [each(contexts_ND / 2, tokens_N=tokens_N) for each in (trial, twin)]
        if not torch.equal(*(loss.nan_to_num() for loss in pair)):
            raise PluginError(
                f"{what} cannot be resumed: with the buffers of another it returns another loss; "
                "keep statistics and seeds in buffers (register_buffer)"
            )
        with leaving_alone(twin.eval(), f"{what} out of training: its loss"):
            twin(contexts_ND, tokens_N=tokens_N)
    if gradient_ND is None or not gradient_ND.any():
        return f"{what} has no gradient with respect to the contexts: it trains nothing"
    if not gradient_ND.isfinite().all():
        raise PluginError(f"{what} has a gradient that is not finite for ordinary contexts")
    return None
