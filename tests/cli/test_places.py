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


# Too long for a name: as where a folder may not be entered, one cannot even ask whether it exists.
LONG = "a" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("analyze", LONG),
        ("analyze", "a.safetensors", f"--png={LONG}"),
        ("analyze", "a.safetensors", "--as=gru", f"--tokens={LONG}"),
        ("compare", "a.safetensors", f"{LONG}.safetensors"),
        ("contexts", "a.safetensors", f"--text={LONG}", "--out=n.npy"),
        ("evaluate", "a.safetensors", f"--data={LONG}"),
        ("generate", "a.safetensors", f"--save-state={LONG}"),
        ("phase1", f"--data={LONG}", "--out=n.safetensors"),
        ("plugins", "new", "mine", "--kind=cell", f"--out={LONG}"),
        ("prepare", "--source=text-file", "--input=train.txt", f"--out={LONG}"),
        ("prepare", "--source=text-file", "--input=train.txt", f"--tokenizer={LONG}", "--out=n"),
        *(
            ("prepare", f"--source={source}", f"--input={LONG}", "--out=n")
            for source in ("text-file", "text-dir", "rows", "tokens", "wikitext", "ultrachat")
        ),
        ("quickstart", f"--out={LONG}"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(newllm, made, arguments):
    if "--png" in arguments[-1]:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    before = sorted(made.iterdir())
    done = newllm(*arguments)
    assert done.code == 3
    done.one_line(LONG)
    assert sorted(made.iterdir()) == before
