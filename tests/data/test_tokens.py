import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from newllm_core.data import spool
from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources.tokens import Tokens
from newllm_core.errors import InputError

from .cases import assert_one_line_error, run, write


def found(path):
    return [document.tokens for document in Tokens(str(path)).documents()]


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        ([3, 1, 2], [(3, 1, 2)]),
        ([[3, 1], [2]], [(3, 1), (2,)]),
        ([[3, 1], []], [(3, 1), ()]),
        ([2**31], [(2**31,)]),
    ],
)
def test_json(tmp_path, content, documents):
    path = write(tmp_path / "ids.json", json.dumps(content))
    assert found(path) == documents


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">i4", "i8"])
def test_npy(tmp_path, dtype):
    np.save(tmp_path / "flat.npy", np.array([3, 1, 2], dtype))
    np.save(tmp_path / "rows.npy", np.array([[3, 1], [2, 0]], dtype))
    assert found(tmp_path / "flat.npy") == [(3, 1, 2)]
    assert found(tmp_path / "rows.npy") == [(3, 1), (2, 0)]


def test_safetensors_by_name(tmp_path):
    tensors = {"b": np.array([9, 8], "u2"), "a": np.array([[1, 2], [3, 4]], "i8")}
    save_file(tensors, tmp_path / "ids.safetensors")
    assert found(tmp_path / "ids.safetensors") == [(1, 2), (3, 4), (9, 8)]
    assert all(type(i) is int for ids in found(tmp_path / "ids.safetensors") for i in ids)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "3",
        "[1.0]",
        "[true]",
        '["1"]',
        "[[1], 2]",
        "[[[1]]]",
        "[",
        "[" * 100_000,
        "x",
        f"[{10**400}]",
        "[4294967296]",
    ],
)
def test_json_of_something_else(tmp_path, text):
    path = write(tmp_path / "ids.json", text)
    with assert_one_line_error(InputError, path):
        found(path)


@pytest.mark.parametrize("text", ["null", "[1.0]"])
def test_the_shapes_of_json_are_said(tmp_path, text):
    path = write(tmp_path / "ids.json", text)
    with assert_one_line_error(InputError, path, "integers of 32 bits, or a list of such lists"):
        found(path)


def test_a_folder_of_nothing_but_empty_files(tmp_path):
    write(tmp_path / "0.ds", b"")
    with assert_one_line_error(InputError, tmp_path, "no .ds file with token ids"):
        found(tmp_path)


def test_negative_ids(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([1, -2]))
    with assert_one_line_error(InputError, tmp_path / "ids.npy", "-2"):
        found(tmp_path / "ids.npy")


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((1, 2, 3), "i4"), np.array(3)])
def test_arrays_of_another_kind(tmp_path, array):
    np.save(tmp_path / "ids.npy", array)
    with assert_one_line_error(InputError, tmp_path / "ids.npy", str(array.dtype)):
        found(tmp_path / "ids.npy")
    save_file({"x": np.atleast_1d(array)}, tmp_path / "ids.safetensors")
    if array.ndim:
        with assert_one_line_error(InputError, tmp_path / "ids.safetensors", "'x'"):
            found(tmp_path / "ids.safetensors")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "object.npy", np.array([Bomb()]), allow_pickle=True)
    raw = np.array([Bomb()]).dumps()
    for name in ("raw.npy", "raw.safetensors", "raw.pt"):
        (tmp_path / name).write_bytes(raw)
    for path in tmp_path.iterdir():
        with assert_one_line_error(InputError, path):
            found(path)


@pytest.mark.parametrize(
    ("header", "dtype"), [([], "<u2"), ([20240520, 1, 3], "<u2"), ([20240801, 7, 3], "<u4")]
)
def test_bin_files_of_nanogpt_and_llm_c(tmp_path, header, dtype):
    path = tmp_path / "train.bin"
    words = np.zeros(256 if header else 0, "<i4")
    words[: len(header)] = header
    tokens = np.array([50256, 1, 65535], dtype)
    path.write_bytes(words.tobytes() + tokens.tobytes())
    assert found(path) == [(50256, 1, 65535)]
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with assert_one_line_error(InputError, path, "bytes"):
        found(path)
    if header:
        path.write_bytes(whole[: -tokens.itemsize])
        with assert_one_line_error(InputError, path, "holds 3 tokens, and has 2: copy it again"):
            found(path)


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_ds_files_of_datatrove(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr("newllm_core.data.sources.tokens.PART_TOKENS", 3)
    path, index = tmp_path / "a.ds", tmp_path / "a.ds.index"
    np.arange(9, dtype=dtype).tofile(path)
    with assert_one_line_error(InputError, path, "a.ds.index"):
        found(path)
    np.array([4, 4, 9], "<u8").tofile(index)
    parts = [(d.tokens, d.continues) for d in Tokens(str(path)).documents()]
    assert parts == [
        *(((0, 1, 2), True), ((3,), False), ((), False)),
        *(((4, 5, 6), True), ((7, 8), False)),
    ]
    for ends in ([4, 8], [5, 4, 9], [0], [1 << 63]):
        np.array(ends, "<u8").tofile(index)
        with assert_one_line_error(InputError, index, "does not fit"):
            found(path)


@pytest.mark.parametrize(
    ("first", "kept"), [([1] * 16 + [250], [1] * 16), ([250] + [1] * 16, [1] * 9), ([250] * 9, [])]
)
def test_a_long_document_ends_where_the_policy_drops_a_part_of_it(
    tmp_path, byte_tokenizer, monkeypatch, first, kept
):
    monkeypatch.setattr(spool, "BATCH_BYTES", 8 * spool.TOKEN_BYTES)
    for name, documents in {"train": [[1, 2, 3]], "held-out": [first, [2, 3]]}.items():
        (tmp_path / name).with_suffix(".json").write_text(json.dumps(documents), encoding="utf-8")
    run(
        tmp_path / "out",
        source="tokens",
        input=tmp_path / "train.json",
        val_input=tmp_path / "held-out.json",
        tokenizer=byte_tokenizer,
    )
    found = open_dataset(tmp_path / "out").validation
    parts = np.split(found.tokens, found.document_starts[1:-1])
    assert [part.tolist() for part in parts] == [part for part in (kept, [2, 3]) if part]
