"""A folder with one good file of every kind."""

import torch

from newllm_core import settings
from newllm_core.checkpoint import format as checkpoints
from newllm_core.config import Config, DataConfig
from newllm_core.data.make_tokenizer import train_bpe
from newllm_core.data.prepare import prepare
from newllm_core.model.language_model import LanguageModel


class Home:
    """A folder with one good file of every kind."""

    def __init__(self, folder):
        self.folder = folder
        corpus = folder / "corpus.txt"
        corpus.write_text("|".join(f"the cat {i} sat\non mat {i * i}" for i in range(40)))
        self.bpe = train_bpe([corpus.read_text()], 280, {"user"})
        (folder / "tokenizer.json").write_text(self.bpe.to_json(), encoding="utf-8")
        config = DataConfig(
            source="text-file",
            input=str(corpus),
            tokenizer=str(folder / "tokenizer.json"),
            val_fraction=0.2,
            val_token_policy="keep",
        )
        prepare(Config(data=config, source={"document_separator": "|"}), folder / "data")
        self.checkpoint = folder / "model.safetensors"
        checkpoints.save(self._checkpoint(), self.checkpoint, overwrite=True)

    def _checkpoint(self):
        config = settings.resolve(
            {
                "model": {"context_dim": 8, "embed_dim": 8, "layer_structure": [1, 1]},
                "regularizer": {"momentum": 0.9},
            }
        )
        generator = torch.Generator().manual_seed(0)
        entry = {"window": 0, "iteration": 1, "sweep_terms": {"cvfp": 0.5}, "weight_change": 0.25}
        ratios = {"train": 0.5, "validation": None}
        figures = {"drift": 0.5, "mean_cosine": None, "num_tokens": 64, "context_dim": 8}
        objective = {"output.weight": torch.randn(3, 8, generator=generator), "bias": torch.ones(2)}
        return checkpoints.Checkpoint(
            objective=objective,
            model=LanguageModel(config.model, self.bpe.vocab_size, num_heads=2, seed=1),
            config=config,
            tokenizer_json=self.bpe.to_json(),
            phase="phase2",
            probes={
                split: torch.randint(0, 280, (2, 40), generator=generator)
                for split in ("train", "validation")
            },
            warmup=8,
            history=[entry, entry | {"converged_ratio": ratios, "gradient_norms": {"cvfp": 1.0}}],
            vacuous_terms=["regularizer"],
            gate={"train": figures, "validation": figures},
            results={"train": {"loss": 1.0}, "validation": {"loss": 2.0, "perplexity": None}},
            provenance={
                "dataset_path": str(self.folder / "data"),
                "plugins": [
                    {"kind": "regularizer", "name": "x", "distribution": "y", "version": "1"}
                ],
            },
        )
