import hashlib
import io
import json
import shutil

import numpy as np
import pytest

from newllm_core.data import prepared
from newllm_core.data.dataset_info import data_files
from newllm_core.data.prepared import open_dataset
from newllm_core.errors import InputError

from .cases import BAR, assert_one_line_error, run


@pytest.fixture(scope="module")
def original(tmp_path_factory, byte_tokenizer):
    folder = tmp_path_factory.mktemp("original")
    (folder / "a.txt").write_text("ab|ba|aabb|bbaa", encoding="utf-8")
    run(folder / "out", BAR, input=folder / "a.txt", tokenizer=byte_tokenizer)
    return folder / "out"


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "data")


def edit(folder, change):
    path = folder / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_splits_are_mapped_read_only(folder):
    dataset = open_dataset(str(folder))
    for split, info in (
        (dataset.train, dataset.info.train),
        (dataset.validation, dataset.info.validation),
    ):
        assert isinstance(split.tokens, np.memmap)
        assert not split.tokens.flags.writeable
        assert split.tokens.dtype == np.dtype("<u2")
        assert split.document_starts.dtype == np.int64
        assert len(split.tokens) == info.tokens == split.document_starts[-1]
        assert len(split.document_starts) == info.documents + 1
        assert split.num_bytes == info.bytes == split.document_bytes.sum()
        assert split.num_words == info.words == info.documents
    assert dataset.path == folder


def test_a_folder_that_may_not_be_read(folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with assert_one_line_error(InputError, folder, "permission denied"):
        open_dataset(folder)


def test_a_folder_that_is_not_there_or_not_ours(tmp_path, folder):
    with assert_one_line_error(InputError, tmp_path / "none", "newllm prepare --out"):
        open_dataset(tmp_path / "none")
    with assert_one_line_error(InputError, tmp_path, "dataset.json: give the folder that newllm"):
        open_dataset(tmp_path)
    info = folder / "dataset.json"
    for data, said in (
        (b"{", "not JSON"),
        (b'{"format": "other"}', "not the description"),
        (b"\xff", "not UTF-8"),
    ):
        info.write_bytes(data)
        with assert_one_line_error(InputError, info, said):
            open_dataset(folder)


def set_key(*path, to):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (set_key("format_version", to=99), "version 99"),
        (set_key("hash", to="0"), "altered"),
        (set_key("files", "train.tokens", "sha256", to="0"), "altered"),
        (lambda content: content.pop("splits"), "damaged (KeyError"),
        (lambda content: content.pop("seed"), "damaged (TypeError"),
        (lambda content: content["files"].pop("train.tokens"), "damaged (KeyError"),
        (set_key("extra", to=1), "damaged (TypeError"),
        (set_key("dtype", to="object"), "damaged (ValueError"),
        (set_key("vocab_size", to="many"), "damaged (ValueError"),
        (set_key("splits", "train", "tokens", to=-1), "damaged (ValueError"),
        (set_key("splits", "train", "tokens", to=True), "damaged (ValueError"),
        (set_key("policy", to=None), "damaged (AttributeError"),
        (set_key("seed", to=10**400), "not JSON"),
        (set_key("seed", to=float("nan")), "not JSON"),
        (set_key("vocab_size", to=1 << 40), "damaged (ValueError"),
        (set_key("end_id", to=300), "damaged (ValueError"),
        (set_key("roles", to={"user": 300}), "damaged (ValueError"),
        (set_key("roles", to=[]), "damaged (ValueError"),
        (set_key("source", "name", to=["a"]), "damaged (ValueError"),
        (set_key("source", "options", to=5), "damaged (ValueError"),
        (set_key("val_source", to=5), "damaged (TypeError"),
        (set_key("data", to=None), "damaged (ValueError"),
    ],
)
def test_descriptions_that_were_changed(folder, change, part):
    edit(folder, change)
    with assert_one_line_error(InputError, folder / "dataset.json", part):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["train.tokens", "validation.documents.npy", "tokenizer.json"])
def test_files_that_are_missing_cut_or_longer(folder, name):
    path = folder / name
    data = path.read_bytes()
    for other in (data[:-2], data + b"\0\0"):
        path.write_bytes(other)
        with assert_one_line_error(InputError, path, f"{len(other):,} bytes", f"{len(data):,}"):
            open_dataset(folder)
    path.unlink()
    with assert_one_line_error(InputError, path, "missing"):
        open_dataset(folder)


@pytest.mark.parametrize("name", data_files(("train", "validation")))
def test_files_are_checked_by_hash(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    with assert_one_line_error(InputError, folder / name, "hash"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("splits", "train", "documents"), 1),
        (("splits", "train", "bytes"), 1),
        (("splits", "train", "tokens"), 1),
        (("splits", "validation", "tokens"), 0),
        (("dtype",), "uint32"),
    ],
)
def test_counts_must_fit_the_files(folder, path, value):
    edit(folder, set_key(*path, to=value))
    with assert_one_line_error(InputError, "prepare the data again"):
        open_dataset(folder)


def forge(folder, name, data):
    """Replace a file and every hash that would tell."""
    (folder / name).write_bytes(data)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    content["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    lines = (f"{content['files'][key]['sha256']}  {key}\n" for key in sorted(content["files"]))
    content["hash"] = hashlib.sha256("".join(lines).encode()).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def test_ids_outside_the_vocabulary(folder, monkeypatch):
    monkeypatch.setattr("newllm_core.data.prepared.CHUNK_BYTES", 6)
    tokens = np.fromfile(folder / "train.tokens", "<u2")
    forge(folder, "train.tokens", tokens.tobytes())
    open_dataset(folder)
    tokens[-1] = 257
    forge(folder, "train.tokens", tokens.tobytes())
    with assert_one_line_error(InputError, folder / "train.tokens", "257"):
        open_dataset(folder)


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.0, 3.0]),
        np.array([[0, 3]]),
        np.array([], dtype=np.int64),
        np.array([0, -3, 3]),
        np.array(["0", "3"]),
    ],
)
def test_boundaries_that_are_none(folder, array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    forge(folder, "train.documents.npy", buffer.getvalue())
    with assert_one_line_error(InputError, folder / "train.documents.npy"):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["dataset.json", "tokenizer.json"])
def test_a_folder_that_is_replaced_while_it_is_read(original, folder, monkeypatch, name):
    def read_and_replace(path, *arguments, **options):
        text = read_text(path, *arguments, **options)
        if path.name == name:
            folder.rename(folder.with_name("old"))
            shutil.copytree(original, folder)
        return text

    read_text = prepared.read_text
    monkeypatch.setattr(prepared, "read_text", read_and_replace)
    with pytest.raises(InputError, match="was replaced while it was read: run the command again"):
        open_dataset(folder)
