"""Token files of more than 2**32 tokens: no index on the way is narrower than 64 bits.

The files are sparse: they take no room but for the few tokens that are written.
"""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from newllm_core import settings
from newllm_core.config import AnalysisConfig
from newllm_core.data.dataset_info import FileInfo, SplitInfo
from newllm_core.data.prepared import open_dataset
from newllm_core.data.probe import choose_probes
from newllm_core.errors import InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.training.phase1.windows import Windows
from newllm_core.training.phase2.fine_tuning import FineTuning
from newllm_core.trajectory.text import contexts_of_text, inputs_at
from tests.cli.conftest import write_corpus

from .cases import BLANK, run

TOKENS = (1 << 32) + 1000
VOCABULARY = 300
KNOWN = np.arange(2000, dtype=np.uint16) % (VOCABULARY - 1) + 1  # the others are 0


def config(**phase1):
    return settings.resolve({"model": {"context_dim": 4, "embed_dim": 4}, "phase1": phase1})


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "train.tokens"
    found = sparse(path)
    assert path.stat().st_blocks * 512 < 1 << 20
    return found


def sparse(path):
    tokens = np.memmap(path, np.uint16, "w+", shape=(TOKENS,))
    tokens[-len(KNOWN) :] = KNOWN
    tokens.flush()
    return tokens


def model():
    return LanguageModel(config().model, VOCABULARY)


def test_phase1_reads_the_last_window(tokens):
    options = config(window_tokens=1 << 16, convergence_tokens=64)
    windows = Windows(
        {"train": tokens, "validation": tokens[:64]},
        options.phase1,
        start_C=torch.zeros(4),
        end_id=0,
        reads=(),
        seed=0,
    )
    assert windows.count == (TOKENS >> 16) + 1
    windows.go_to(windows.count - 1, torch.ones(4))
    # The last window has what is left of each of 32 stretches.
    assert len(windows.train) == 1000
    assert windows.train.tokens_T[-31:].tolist() == KNOWN[-31:].tolist()
    assert windows.train.first_C.tolist() == [1.0] * 4


def test_phase2_reads_the_end_of_the_last_stream(tokens):
    options = settings.resolve({"phase2": {"num_streams": 3, "bptt": 16, "dropout": 0.0}}).phase2
    source = FineTuning(model(), tokens, end_id=0, config=options, weights=[1.0])
    assert source.streams.length == TOKENS // 3
    seen = []
    source.model.embedding.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    (terms,) = source.losses(torch.Generator(), skip=source.num_steps - 1)
    steps = source.streams.length - 16 * (source.num_steps - 1)
    end = 3 * source.streams.length
    expected = tokens[end - steps - 1 : end - 1].tolist()
    assert min(expected) > 0
    assert seen[0][:, 2].tolist() == expected
    assert terms.num_tokens == 3 * steps


def test_evaluation_reads_far_positions(tokens):
    positions = np.array([0, 1 << 31, 1 << 32, TOKENS - 1])
    expected = [7, 0, int(tokens[(1 << 32) - 1]), int(KNOWN[-2])]
    assert inputs_at(tokens, positions, 7).tolist() == expected
    first = next(contexts_of_text(model(), tokens, end_id=0, num_streams=4, warmup=8))
    starts = np.arange(4, dtype=object) * TOKENS // 4
    assert set(first.positions_N) >= set(starts)


def test_probes_reach_the_end(tokens):
    options = AnalysisConfig(probe_tokens=64, probe_passages=4, warmup_tokens=8)
    probes, warmup = choose_probes({"train": tokens}, options)
    assert probes["train"][-1].tolist() == KNOWN[-16 - warmup :].tolist()
    assert probes["train"][0].max() == 0


@pytest.mark.slow
def test_a_whole_data_set(tmp_path):
    """Opened, which reads every token once."""
    corpus = write_corpus(tmp_path / "corpus.txt", documents=30)
    folder = tmp_path / "data"
    info = run(folder, BLANK, input=corpus, vocab_size=VOCABULARY, keep=True)
    sparse(folder / "train.tokens")
    starts = np.array([0, TOKENS - 1500, TOKENS - 700, TOKENS])
    np.save(folder / "train.documents.npy", starts)
    np.save(folder / "train.bytes.npy", np.array([1 << 33, 2000, 3000]))
    files = dict(info.files)
    for name in ("train.tokens", "train.documents.npy", "train.bytes.npy"):
        size = (folder / name).stat().st_size
        small = (folder / name).read_bytes() if size < 1 << 20 else b""  # the large has no hash
        files[name] = FileInfo(size, hashlib.sha256(small).hexdigest())
    counts = SplitInfo(documents=3, tokens=TOKENS, bytes=(1 << 33) + 5000, words=0)
    info = dataclasses.replace(info, train=counts, files=files)
    (folder / "dataset.json").write_text(info.to_json(), encoding="utf-8")
    found = open_dataset(folder)
    assert len(found.train.tokens) == TOKENS
    assert found.train.tokens[-len(KNOWN) :].tolist() == KNOWN.tolist()
    assert found.train.document_starts.tolist() == starts.tolist()
    sparse(folder / "train.tokens")[(1 << 32) + 5] = VOCABULARY
    with pytest.raises(InputError, match=f"id {VOCABULARY} of {VOCABULARY}"):
        open_dataset(folder)
