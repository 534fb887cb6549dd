"""Making regularizers for a run, and trying one that is not newllm's own."""

from collections.abc import Mapping
from typing import Any

from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.regularizers.base import Regularizer
from newllm_core.regularizers.probe import probe, probe_batch
from newllm_core.runtime.repeatable import require_same_twice, seeded


def make_regularizers(
    name: str, given: Mapping[str, Any], context_dim: int, *, seed: int, count: int = 1
) -> tuple[list[Regularizer], dict[str, Any], str | None]:
    """Make `count` of them; return them, all options, and a line to warn of, if any.

    What they draw where they are made follows from `seed`.

    Raises:
        ConfigError: an unknown name or option.
        PluginError: it cannot be made, or does not keep the least of its contract.
    """
    with seeded(seed):
        made, options = REGULARIZERS.make(name, given, context_dim, count=count)
    plugin = REGULARIZERS.find(name)
    if plugin.is_own:
        return made, options, None
    what = REGULARIZERS.describe(plugin)
    contexts_ND, tokens_N = probe_batch(context_dim)
    with REGULARIZERS.blame(name):
        remark = probe(made[0], what)
        require_same_twice(
            lambda: REGULARIZERS.make(name, given, context_dim)[0][0],
            lambda each: each(contexts_ND, tokens_N=tokens_N),
            seed,
            what,
        )
    return made, options, remark
