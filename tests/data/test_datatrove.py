"""From what datatrove writes to a trained model, as docs/DATA.md says."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources.tokens import Tokens
from newllm_core.data.tokenizer import TextTokenizer
from tests.cli.conftest import SMALL, STEPS
from tests.cli.inside import CommandLine
from tests.few import FEW_FLAGS
from tests.open_gate import OPEN

NOUNS = ("cat", "dog", "bird", "fish")


def write_ds(folder, name, documents, dtype="<u2"):
    """What `TokenizedFile` writes: ids, the ends of documents, and a description."""
    folder.mkdir(exist_ok=True)
    ids = np.concatenate([np.array(document, dtype) for document in documents])
    ids.tofile(folder / name)
    np.cumsum([len(document) for document in documents], dtype="<u8").tofile(
        folder / f"{name}.index"
    )
    description = f"tokenizer.json|{ids.itemsize}\n{len(ids)}\n{len(ids)} T"
    (folder / f"{name}.metadata").write_text(description, encoding="utf-8")


@pytest.fixture
def tokenizer():
    """Made by nobody in particular; like datatrove's, it closes a text with the end token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts(0, 40),
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    made.post_processor = processors.TemplateProcessing(
        single="$A <EOS>", special_tokens=[("<EOS>", made.token_to_id("<|endoftext|>"))]
    )
    return made


def texts(first, count):
    return [
        f"the {NOUNS[n % 4]} sees the {NOUNS[n * n % 3]} on day {n}. " * 3
        for n in range(first, first + count)
    ]


def encoded(tokenizer, first, count):
    return [encoding.ids for encoding in tokenizer.encode_batch(texts(first, count))]


def test_a_folder_of_files_is_read_by_name(tmp_path):
    write_ds(tmp_path / "ds", "00001_00000_doc_shuffled.ds", [[7, 8], [9]])
    write_ds(tmp_path / "ds", "00000_00000_doc_shuffled.ds", [[1, 2, 3], [4]], "<u4")
    found = [document.tokens for document in Tokens(str(tmp_path / "ds")).documents()]
    assert found == [(1, 2, 3), (4,), (7, 8), (9,)]


def test_the_recipe(tmp_path, monkeypatch, capsys, tokenizer):
    monkeypatch.chdir(tmp_path)
    newllm = CommandLine(monkeypatch, capsys)
    train = encoded(tokenizer, 0, 60)
    write_ds(tmp_path / "ds", "00000_00000_doc_shuffled.ds", train[:30])
    write_ds(tmp_path / "ds", "00001_00000_doc_shuffled.ds", train[30:])
    for name in ("00002_00000_doc_shuffled.ds", "00002_00000_doc_shuffled.ds.index"):
        (tmp_path / "ds" / name).touch()  # of a task that got no documents
    (tmp_path / "ds" / "._00000_00000_doc_shuffled.ds").write_bytes(b"\0\5\26\7")  # of macOS
    write_ds(tmp_path / "held-out", "00000_00000_doc_shuffled.ds", encoded(tokenizer, 60, 8))
    tokenizer.save("tokenizer.json")

    source = ("--source=tokens", "--input=ds", "--val-input=held-out")
    end = tokenizer.token_to_id("<|endoftext|>")
    done = newllm(
        "prepare", *source, "--tokenizer=tokenizer.json", "--val-token-policy=keep", "--out=data"
    )
    assert done.code == 0, done.err
    data = open_dataset("data")
    assert data.train.tokens.tolist() == [token for document in train for token in document]
    assert data.train.tokens[data.train.document_starts[1:] - 1].tolist() == [end] * 60
    assert TextTokenizer.from_json(data.tokenizer_json).end_id == end
    assert data.train.num_bytes is None  # nobody knows the text

    done = newllm("phase1", "--data=data", *SMALL)
    assert done.code == 0, done.err
    done = newllm(
        "phase2", "runs/phase1.safetensors", "--epochs=2", *STEPS, *FEW_FLAGS, *OPEN, "--json"
    )
    assert done.code == 0, done.err
    first, last = (done.json["epochs"][n]["validation"]["loss"] for n in (0, -1))
    assert last < first < np.log(tokenizer.get_vocab_size())
