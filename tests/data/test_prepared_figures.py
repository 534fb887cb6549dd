"""What prepared data say of themselves, and documents without words or without text."""

import json

from rich.console import Console

from newllm_cli.render import render_dataset
from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources.base import Document
from newllm_core.data.sources.text_file import TextFile
from newllm_core.data.split_encoder import smallest_dtype
from newllm_core.errors import InputError

from .cases import (
    BAR,
    BLANK,
    Recorder,
    assert_one_line_error,
    documents_of,
    run,
    spelled_out,
    write,
)


def test_chats_have_role_tokens_and_bytes_of_contents(tmp_path):
    rows = [
        {"messages": [{"role": role, "content": f"{word} é"} for role in ("user", "assistant")]}
        for word in ("one", "two", "ten")
    ]
    path = write(tmp_path / "chats.jsonl", "\n".join(json.dumps(row) for row in rows))
    info = run(tmp_path / "out", source="ultrachat", input=path, keep=True, vocab_size=265)
    assert info.roles == {"assistant": info.end_id + 1, "user": info.end_id + 2}
    assert info.vocab_size - info.base_vocab_size == 3
    _, [text] = documents_of(tmp_path / "out", spelled_out)
    word = text[len("<|user|>") :][:3]
    assert text == f"<|user|>{word} é<|assistant|>{word} é<|endoftext|>"
    assert (info.train.bytes, info.validation.bytes) == (4 * 6, 2 * 6)
    assert (info.train.words, info.validation.words) == (8, 4)


def test_validation_ids_made_by_hand(tmp_path, byte_bpe, byte_tokenizer):
    train = write(tmp_path / "a.txt", "aé\n")
    first, second = byte_bpe.encode("é"), [*byte_bpe.encode("a"), byte_bpe.end_id]
    ids = write(tmp_path / "ids.json", json.dumps([first, second]))
    info = run(
        tmp_path / "out", input=train, val_source="tokens", val_input=ids, tokenizer=byte_tokenizer
    )
    dataset = open_dataset(tmp_path / "out")
    assert dataset.validation.tokens.tolist() == [*first, *second]
    assert dataset.validation.document_starts.tolist() == [0, 2, 4]
    assert dataset.validation.document_bytes.tolist() == [0, 0]
    assert dataset.validation.num_bytes is info.validation.words is None
    assert info.val_source.name == "tokens"
    write(ids, "[[9999]]")
    with assert_one_line_error(InputError, ids, "9999"):
        run(tmp_path / "out2", input=train, val_source="tokens", val_input=ids)


def test_ids_have_no_bytes_words_or_characters(tmp_path, byte_tokenizer, capsys):
    ids = write(tmp_path / "ids.json", json.dumps([[i, i + 1, 200, 201] for i in range(90)]))
    progress = Recorder()
    common = {"source": "tokens", "input": ids, "tokenizer": byte_tokenizer}
    info = run(tmp_path / "out", progress=progress, keep=True, **common)
    counts = info.to_dict()["splits"]["train"]
    assert (counts["bytes"], counts["words"], counts["characters"]) == (None, None, None)
    assert counts["tokens"] == 4 * counts["documents"]
    assert f"encoding train: {counts['documents']} documents, {counts['tokens']:,} token ids" in (
        progress.messages
    )
    assert progress.done["encoding train"] == [counts["tokens"], counts["tokens"], "token ids"]
    assert not any("bytes" in message for message in progress.messages)
    render_dataset("out", info.to_dict(), Console(width=100))
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "validation" in line)
    assert [cell.strip() for cell in row.split("│")[4:6]] == ["-", "-"]
    val = write(tmp_path / "val.json", "[[1, 2], [1, 250]]")
    dropped = Recorder()
    info = run(tmp_path / "dropped", progress=dropped, val_input=val, **common)
    assert (info.policy.dropped_lines, info.policy.bytes) == (1, 0)
    said = "dropped 50.00% of validation lines with 1 token types that train lacks"
    assert any(said in warning for warning in dropped.warnings)


def test_a_split_of_text_and_ids_has_no_figures_per_byte(tmp_path, monkeypatch, byte_tokenizer):
    documents = [Document(text="some words"), Document(tokens=(1, 2)), Document(text="held out")]
    monkeypatch.setattr(TextFile, "documents", lambda self: iter(documents))
    info = run(tmp_path / "out", input="x", tokenizer=byte_tokenizer, val_fraction=0.3, keep=True)
    dataset = open_dataset(tmp_path / "out")
    texts = [split for split in info.splits.values() if split.bytes is not None]
    assert len(texts) == 1
    (mixed,) = (s for s in (dataset.train, dataset.validation) if s.num_bytes is None)
    assert not mixed.document_bytes.any()


def test_japanese_has_characters_and_no_words(tmp_path):
    text = "吾輩は猫である。名前はまだ無い。\n"
    path = write(tmp_path / "a.txt", "|".join(text * n for n in range(1, 9)))
    info = run(tmp_path / "out", BAR, input=path)
    assert info.train.words is info.validation.words is None
    assert info.train.characters + info.validation.characters == 36 * len(text)
    assert info.train.bytes + info.validation.bytes == 36 * len(text.encode())
    lines = run(tmp_path / "b", BAR, input=path, min_space_share=0)
    assert lines.train.words + lines.validation.words == 36 * 2
    split = open_dataset(tmp_path / "out").train
    assert (split.num_words, split.num_characters) == (None, info.train.characters)


def test_ids_take_the_smallest_type_that_fits(tmp_path):
    from tokenizers import Tokenizer, models

    assert [smallest_dtype(size) for size in (65_535, 65_536)] == ["uint16", "uint16"]
    words, dtype = 65_536, "uint32"
    model = models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0")
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    ids = write(tmp_path / "ids.json", f"[[{words}, 1], [1, {words}]]")
    info = run(tmp_path / "out", source="tokens", input=ids, tokenizer=tmp_path / "tokenizer.json")
    dataset = open_dataset(tmp_path / "out")
    assert (info.vocab_size, info.dtype, dataset.train.tokens.dtype) == (words + 1, dtype, dtype)
    assert sorted(dataset.train.tokens.tolist()) == [1, words]


def test_progress_says_beforehand_how_much_there_is_and_reaches_it(tmp_path, corpus):
    progress = Recorder()
    run(tmp_path / "out", BLANK, input=corpus, val_fraction=0, keep=True, progress=progress)
    size = sum(len(p.encode()) for p in corpus.read_text(encoding="utf-8").split("\n\n"))
    done = {label.split(" (")[0]: counts for label, counts in progress.done.items()}
    assert done["reading source text-file"] == [20, None, "documents"]
    train, validation = done["encoding train"], done["encoding validation"]
    assert train[:2] == [train[0], train[0]]
    assert done["training the tokenizer"] == train
    assert train[0] + validation[0] == size
    assert f"encoding train: 19 documents, {train[0]:,} bytes" in progress.messages


def test_wikitext_keeps_its_word_count(tmp_path, shared_data):
    path = shared_data / "wikitext-2" / "valid.txt"
    info = run(tmp_path / "out", source="wikitext", input=path, keep=True, vocab_size=2000)
    assert info.train.documents + info.validation.documents == 60
    assert info.train.words + info.validation.words == 217_646
    assert info.train.bytes + info.validation.bytes == 1_121_681
