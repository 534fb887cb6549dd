"""What `prepare` reads, and how text becomes tokens."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option, share


@dataclass(frozen=True)
class DataConfig(Section, name="data"):
    """What `prepare` reads and how it turns text into tokens."""

    source: str = option("python-docs", "Data source, see newllm plugins.")
    input: str | None = option(
        None, "File or folder the source reads, or - for stdin; may be compressed."
    )
    val_source: str | None = option(None, "Data source of the validation set, if a separate one.")
    val_input: str | None = option(None, "File or folder of the validation set, if a separate one.")
    val_fraction: float = option(
        0.05, "Share of bytes held out when there is no separate validation set.", low=0, high=0.9
    )
    test_fraction: float = option(
        0.0,
        "Share of bytes held out as a third split, test, where the source has no test split.",
        low=0,
        high=0.9,
    )
    val_token_policy: str = option(
        "drop",
        "Lines of validation text with a token type that training never saw; test is kept whole.",
        choices=("drop", "keep"),
    )
    max_dropped_share: float = share(
        0.1, "Share of validation lines or bytes dropped beyond which there is a warning."
    )
    tokenizer: str = option(
        "bpe",
        "bpe (trained on the training split), gpt2 (from --tokenizer-path or the hub), or a file "
        "tokenizer.json.",
    )
    tokenizer_path: str | None = option(
        None, "Folder or file of the gpt2 tokenizer: vocab.json + merges.txt, or tokenizer.json."
    )
    vocab_size: int = option(8192, "Vocabulary of the trained bpe.", low=258, high=1_000_000)
    tokenizer_bytes: int = option(
        16_000_000,
        "Bytes of training text the bpe is trained on at most, taken evenly from all of it.",
        low=1,
    )
    min_space_share: float = share(
        0.06, "Words exist where at least this share of characters are spaces; in Chinese none are."
    )
    max_documents: int | None = option(
        None, "Read at most so many documents of each split that the source has.", low=2
    )
    max_broken_share: float = share(
        0.01, "Largest share of rows that may be damaged; they are left out and reported."
    )
