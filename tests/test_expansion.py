import pytest
import torch

from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config, ModelConfig
from newllm_core.errors import InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.pipeline.trained import expand
from newllm_core.trajectory.sequential import unroll


def trained(*, phase="phase2", **options):
    shape = {"context_dim": 8, "embed_dim": 8, "layer_structure": (1, 2, 1)}
    config = ModelConfig(**shape | options)
    probes = {"train": torch.zeros(1, 4).long(), "validation": torch.zeros(1, 4).long()}
    return Checkpoint(
        model=LanguageModel(config, 9, cell={"hidden_dim": 12}),
        config=Config(model=config, cell={"hidden_dim": 12}),
        tokenizer_json="{}",
        phase=phase,
        probes=probes,
        warmup=1,
        results={"validation": {"loss": 1.0}},
    )


@pytest.mark.parametrize("tied", [False, True])
def test_the_last_heads_logits_stay_the_same(tied, tmp_path):
    before = trained(tie_weights=tied)
    after = expand(before)
    tokens = torch.randint(9, (2, 5), generator=torch.Generator().manual_seed(0))
    contexts = unroll(before.model, tokens, before.model.start(2))
    (expected,) = before.model.logits(contexts)
    logits = after.model.logits(contexts)
    assert len(logits) == 3
    assert torch.equal(logits[-1], expected)
    # The others are the same head on the contexts of their own blocks.
    for head, of_block in zip(logits, contexts, strict=True):
        assert torch.equal(head, before.model.token_output[0](of_block))
    assert (after.phase, after.results) == ("expand", {})
    assert before.model.num_heads == 1

    path = tmp_path / "expanded.safetensors"
    checkpoints.save(after, path, overwrite=False)
    loaded = checkpoints.load(path).model
    assert torch.equal(loaded.logits(contexts)[-1], expected)
    assert (loaded.token_output[-1].weight is loaded.embedding.weight) == tied


def test_clones_learn_apart():
    model = expand(trained(tie_weights=True)).model
    first, second, last = model.token_output
    assert first.weight is not second.weight
    assert second.weight is not last.weight
    assert last.weight is model.embedding.weight


def test_heads_can_be_cloned_before_they_are_trained():
    after = expand(trained(phase="phase1"))
    assert after.model.num_heads == 3
    # It still is a checkpoint of Phase 1: nothing predicts yet.
    assert after.phase == "phase1"
    with pytest.raises(InputError, match="run newllm phase2"):
        after.require_trained_head()


def test_expanding_twice_is_refused():
    with pytest.raises(InputError, match="already has 3 head"):
        expand(expand(trained()))
    with pytest.raises(InputError, match="already has 1 head"):
        expand(trained(layer_structure=(2,)))
