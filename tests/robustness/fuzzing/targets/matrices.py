"""Matrices that somebody else made: to be analysed, or as embeddings."""

import json
import math

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from newllm_core import settings
from newllm_core.analysis.matrix import analyze_matrix
from newllm_core.config import AnalysisConfig
from newllm_core.model.embeddings import load_embeddings
from newllm_core.model.language_model import LanguageModel
from tests.robustness.fuzzing.targets.base import EQUAL, VALID, Target


class Matrix(Target):
    """`analyze --tensor` on a file that is nobody's checkpoint."""

    kind = "safetensors"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "matrix.safetensors"
        generator = torch.Generator().manual_seed(1)
        matrix = torch.randn(12, 4, generator=generator)
        save_file({"wte": matrix, "bias": torch.ones(4), "ids": torch.arange(6)}, self.path)
        self.good = self.path.read_bytes()
        self.expected = matrix.numpy()

    def read(self, name):
        return load_file(self.path)[name]

    def check(self):
        report = analyze_matrix(self.path, None, config=AnalysisConfig(num_pairs=20))
        json.dumps(report, allow_nan=False)
        stored = self.read(report["tensor"]).astype(np.float64)
        assert report["shape"] == list(stored.shape)
        if stored.ndim == 1:  # a header may say that it is a vector
            norm = float(np.linalg.norm(stored))
            assert math.isclose(report["euclidean_norm"], norm, rel_tol=1e-4), "another norm"
            return VALID
        mean = float(np.linalg.norm(stored, axis=1).mean())
        assert math.isclose(report["norm"]["mean"], mean, rel_tol=1e-4), "another mean norm"
        return EQUAL if np.array_equal(stored, self.expected.astype(np.float64)) else VALID


class NpyMatrix(Matrix):
    kind = "npy"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "matrix.npy"
        np.save(self.path, self.expected)
        self.good = self.path.read_bytes()

    def read(self, name):
        return np.load(self.path, allow_pickle=False)


class Embeddings(Matrix):
    def check(self):
        config = settings.resolve({"model": {"context_dim": 4, "embed_dim": 4}}).model
        model = LanguageModel(config, 13)
        load_embeddings(model, str(self.path), added_tokens=1)
        table = model.embedding.weight.detach()
        assert bool(torch.isfinite(table).all())
        (stored,) = (v for v in load_file(self.path).values() if v.ndim == 2)
        assert np.allclose(table[: len(stored)], stored.astype(np.float32), equal_nan=False)
        return EQUAL if np.array_equal(stored, self.expected) else VALID
