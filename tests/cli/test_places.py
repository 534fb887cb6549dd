"""Places where nothing can be written: one line says what is in the way before the work begins."""

import pytest

from tests.cli.inside import CommandLine, save_checkpoint, save_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a data set, a checkpoint and a text."""
    folder = tmp_path_factory.mktemp("made")
    data, tokenizer = save_dataset(folder)
    save_checkpoint(folder / "a.safetensors", tokenizer, dataset=data)
    (folder / "book.txt").write_text("a book")
    return folder


@pytest.fixture
def newllm(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    return CommandLine(monkeypatch, capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "--source=text-file", "--input=train.txt", "--out=book.txt/below"),
        ("phase1", "--data=data", "--out=book.txt/below.safetensors"),
        ("phase1", "--data=data", "--out=book.txt/far/below.safetensors", "--resume"),
        ("phase2", "a.safetensors", "--out=book.txt/below.safetensors"),
        ("phase2", "book.txt/below.safetensors", "--out=b.safetensors"),
        ("expand", "a.safetensors", "--out=book.txt/below.safetensors"),
        ("analyze", "a.safetensors", "--html=book.txt/below.html"),
        ("analyze", "a.safetensors", "--tensor=x", "--html=book.txt/far/below.html"),
        ("contexts", "a.safetensors", "--text=book.txt", "--out=book.txt/below.npy"),
        ("generate", "a.safetensors", "--save-state=book.txt/below"),
        ("generate", "a.safetensors", "--load-state=book.txt/below"),
        ("evaluate", "a.safetensors", "--text=book.txt/below"),
        ("plugins", "new", "mine", "--kind=cell", "--out=book.txt/below"),
    ],
)
def test_a_file_where_a_folder_should_be_is_named(newllm, made, arguments):
    before = sorted(made.iterdir())
    done = newllm(*arguments)
    assert done.code == 3
    done.one_line("below", "book.txt is no folder: give another path")
    assert sorted(made.iterdir()) == before
