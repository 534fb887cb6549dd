from pathlib import Path

import pytest

from newllm_core.data.make_tokenizer import train_bpe
from newllm_core.data.tokenizer import TextTokenizer

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def bpe() -> TextTokenizer:
    texts = ["the cat sat on the mat.\nthe dog sat on the log.\n"] * 20
    return train_bpe(texts, 270, {"user", "assistant"})


@pytest.fixture(scope="session")
def byte_bpe() -> TextTokenizer:
    """256 bytes and the end token: every character costs as many tokens as it has bytes."""
    return train_bpe([], 257, ())


@pytest.fixture(scope="session")
def byte_tokenizer(byte_bpe: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `byte_bpe`."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(byte_bpe.to_json(), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    texts = [f"document {i} é\nsays {i * i}\n" for i in range(20)]
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(texts), encoding="utf-8", newline="")
    return path
