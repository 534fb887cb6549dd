"""Recurrent models of Transformers through their own caches, from tiny configurations."""

import pytest
import torch
import transformers
from newllm_hub import recurrent

from newllm_core.analysis.foreign.opening import examine_file
from newllm_core.config import AnalysisConfig, Config
from newllm_core.errors import InputError

VOCAB = 60
SIZES = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2}
CONFIGS = {
    "rwkv": lambda: transformers.RwkvConfig(
        **SIZES, attention_hidden_size=16, intermediate_size=32, context_length=64
    ),
    "mamba": lambda: transformers.MambaConfig(**SIZES, state_size=4),
    "mamba2": lambda: transformers.Mamba2Config(
        **SIZES, state_size=8, head_dim=8, num_heads=4, n_groups=1, chunk_size=8
    ),
    "falcon_mamba": lambda: transformers.FalconMambaConfig(**SIZES, state_size=4),
    "xlstm": lambda: transformers.xLSTMConfig(**(SIZES | {"hidden_size": 128}), num_heads=2),
}


def save(config, path):
    torch.manual_seed(7)  # the untrained twin is drawn from 0
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(path)
    return model


def open_folder(path):
    return recurrent.TransformersFolder().open(
        path, embedding=None, seed=0, device=torch.device("cpu")
    )


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_state_is_the_models_own_cache(tmp_path, name):
    model = save(CONFIGS[name](), tmp_path)
    network = open_folder(tmp_path)
    ids = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))
    state = tuple(tensor.repeat_interleave(3, 0) for tensor in network.start)
    for token in ids.unbind(1):
        state = network.step(state, token)
    for row in range(3):  # alone: RWKV mixes the streams of a batch where it decodes
        out = model(input_ids=ids[row : row + 1], use_cache=True)
        cache = next(c for n in recurrent.CACHES if (c := getattr(out, n, None)) is not None)
        for found, own in zip(state, recurrent._tensors(cache), strict=True):
            torch.testing.assert_close(found[row : row + 1], own, rtol=1e-3, atol=1e-4)
    other = network.control(network.start, ids[:1, 0])
    ours = network.step(network.start, ids[:1, 0])
    assert any(not torch.allclose(a, b) for a, b in zip(ours, other, strict=True))


@pytest.mark.parametrize("name", ["mamba", "rwkv"])
def test_a_folder_is_examined_beside_its_untrained_twin(tmp_path, name):
    save(CONFIGS[name](), tmp_path / "model")
    text = tmp_path / "ids.json"
    ids = torch.randint(VOCAB, (300,), generator=torch.Generator().manual_seed(2))
    text.write_text(str(ids.tolist()))
    small = AnalysisConfig(
        dynamics_steps=16, dynamics_passages=2, exponents=2, memory_lags=3, num_pairs=100,
        dependency_contexts=2, dependency_tokens=4, contribution_tokens=4, probe_passages=3,
    )  # fmt: skip
    report = examine_file(tmp_path / "model", [text], config=Config(analysis=small))
    figures = report["train"]
    assert figures["token_memory"]["by_lag"][0] > 0.1
    assert figures["lyapunov_exponent"]["mean"] < 0.1
    assert report["random_control"]["train"]["effective_rank"] != figures["effective_rank"]
    assert report["parameters"] > 1_000


@pytest.mark.parametrize(
    "config",
    [
        lambda: transformers.LlamaConfig(**SIZES, num_attention_heads=2, intermediate_size=32),
        lambda: transformers.GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=1, n_head=2),
    ],
)
def test_a_transformer_is_refused(tmp_path, config):
    save(config(), tmp_path)
    with pytest.raises(InputError, match="a cache that grows with the text is no state"):
        open_folder(tmp_path)


def test_code_of_a_folder_is_neither_run_nor_asked_for(tmp_path):
    (tmp_path / "newllm.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is an exported newllm model: newllm import"):
        open_folder(tmp_path)
    (tmp_path / "newllm.safetensors").unlink()
    (tmp_path / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}'
    )
    (tmp_path / "own.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(InputError, match=r"cannot load .* with Transformers"):
        open_folder(tmp_path)
