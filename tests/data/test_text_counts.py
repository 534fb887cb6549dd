import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from newllm_core.config import ModelConfig
from newllm_core.data.prepared import open_dataset
from newllm_core.data.text_counts import TextCounts
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.evaluation.splits import evaluate_splits
from newllm_core.model.language_model import LanguageModel

from .cases import BAR, Recorder, run, write
from .layouts import ADOPTED, LAYOUTS


def losses_of(tokenizer, *parts):
    counts = TextCounts(tokenizer)
    for part in parts:
        ids = np.array(tokenizer.encode(part), np.uint32)
        counts.add([part], ids, continues=part is not parts[-1])
    return counts.info(1, 0)


@pytest.mark.parametrize(
    ("name", "text", "unknown", "lost"),
    [
        ("word-piece", "the 🙂🙂 cat", 1, 9),
        ("word-piece-lowercase", "The CAT", 0, 4),
        ("unigram", "the ﬁ 本", 2, 3 + 3),  # the ligature is taken apart, and f is unknown
        ("unigram-bytes", "the  🙂 cat\n", 0, 0),
        ("words", "the  cat", 0, 1),
        ("byte-level", "the 🙂 <s> café\n", 0, 0),
    ],
)
def test_losses_are_counted_in_tokens_and_bytes(name, text, unknown, lost):
    found = losses_of(ADOPTED[name], text)
    assert (found.unknown_tokens, found.lost_bytes) == (unknown, lost)
    assert (found.tokens, found.bytes) == (len(ADOPTED[name].encode(text)), len(text.encode()))


@pytest.mark.parametrize("name", ["unigram-bytes", "bpe-bytes", "unigram", "word-piece"])
def test_a_text_in_parts_loses_what_the_whole_does(name):
    text = "the cat sat 🙂 on the mat. café 🙂 ﬁ the cat " * 30
    parts = list(ADOPTED[name].pieces([text], 50))
    found, whole = losses_of(ADOPTED[name], *parts), losses_of(ADOPTED[name], text)
    assert (found.unknown_tokens, found.lost_bytes) == (whole.unknown_tokens, whole.lost_bytes)
    assert (whole.lost_bytes > 0) == (len(parts) > 1) == (name != "bpe-bytes")


def test_a_byte_level_alphabet_with_holes_is_noticed():
    vocabulary = {letter: number for number, letter in enumerate("abcĠ")}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    found = losses_of(TextTokenizer.adopt(tokenizer.to_str()), "a bé cx")
    assert (found.unknown_tokens, found.lost_bytes) == (0, 3)


def test_prepare_warns_and_evaluation_counts(tmp_path):
    path = write(tmp_path / "tokenizer.json", LAYOUTS["word-piece"].to_str())
    lines = ["the cat sat on the mat.\n", "the 🙂 cat 🙂🙂 sat on 日本語 .\n"]
    text = write(tmp_path / "a.txt", "|".join(f"{line}{n}" for n in range(20) for line in lines))
    watcher = Recorder()
    info = run(tmp_path / "out", BAR, input=text, tokenizer=path, keep=True, progress=watcher)
    for name, split in info.splits.items():
        [warning] = [text for text in watcher.warnings if text.startswith(name + ":")]
        assert f"{split.unknown_share:.2%} of tokens are unknown" in warning
        assert f"{split.lost_share:.2%} of bytes" in warning
        assert split.lost_bytes >= 4 * split.unknown_tokens / 3 > 0
    saved = json.loads((tmp_path / "out" / "dataset.json").read_text())["splits"]
    assert saved["train"]["lost_bytes"] == info.train.lost_bytes
    dataset = open_dataset(tmp_path / "out")
    model = LanguageModel(ModelConfig(context_dim=4, embed_dim=4), info.vocab_size)
    found = evaluate_splits(model, dataset, head_weights=[1])["validation"]
    assert found["lost_share"] == info.validation.lost_share
    assert found["unknown_share"] == info.validation.unknown_share
    bits = found["loss"] / np.log(2) * found["num_tokens"] + 8 * info.validation.lost_bytes
    assert found["bits_per_byte"] == pytest.approx(bits / found["num_bytes"])


def test_a_tokenizer_of_bytes_warns_of_nothing(tmp_path):
    text = write(tmp_path / "a.txt", "the 🙂 cat|<s> é\n|the|cat")
    watcher = Recorder()
    info = run(tmp_path / "out", BAR, input=text, keep=True, progress=watcher)
    assert (info.train.unknown_tokens, info.train.lost_bytes) == (0, 0)
    assert not [warning for warning in watcher.warnings if "unknown" in warning]


def test_bytes_of_the_beginning_of_a_document_are_known_where_tokens_give_it_back(tmp_path):
    document = "the 🙂 cat sat on the mat. " * 40
    text = write(tmp_path / "a.txt", "|".join([document, f"{document}é", document]))
    word_piece = write(tmp_path / "tokenizer.json", LAYOUTS["word-piece"].to_str())
    for folder, options in (("bytes", {}), ("words", {"tokenizer": word_piece})):
        info = run(tmp_path / folder, BAR, input=text, keep=True, **options)
        dataset = open_dataset(tmp_path / folder)
        model = LanguageModel(ModelConfig(context_dim=4, embed_dim=4), info.vocab_size)
        found = evaluate_splits(model, dataset, head_weights=[1], max_tokens=20)
        for name, of_split in found.items():
            assert of_split["num_tokens"] == 20
            ids = dataset.split(name).tokens[:20].tolist()
            if folder == "bytes":
                tokenizer = TextTokenizer.from_json(dataset.tokenizer_json)
                read = b"".join(map(tokenizer.bytes_of, ids))
                assert document.encode().startswith(read)
                assert of_split["num_bytes"] == len(read) > 20
            else:
                assert of_split["num_bytes"] is None
            assert (of_split["bits_per_byte"] is None) == (folder == "words")
