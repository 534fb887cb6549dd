"""Real layouts of `tokenizer.json`, small: models, normalizers, decoders and added tokens."""

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from newllm_core.data.tokenizer import TextTokenizer

BYTE_NAMES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = ["the cat sat on the mat.\nça va, é 日本 <s> it's?\n"] * 20
SPECIAL = ["<pad>", "<s>", "</s>", "<mask>"]
WORDS = ["the", "cat", "##s", "sat", "ça", "on", "mat", ".", ",", "##ly", "é", "<", ">", "s", "/"]
WIDE = normalizers.Replace("＜/s＞", "</s>")
FROM_MARKS = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def numbered(*pieces):
    """A vocabulary of these pieces."""
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def add(tokenizer, *special):
    """Special tokens, and words of every kind."""
    tokenizer.add_special_tokens([*SPECIAL, *special])
    tokenizer.add_tokens(
        [
            "café",
            "New York",
            "日本語",
            AddedToken("<tab>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("Straße", single_word=True, normalized=True),
        ]
    )
    return tokenizer


def byte_level(*, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["</s>"],
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if ignore_merges:
        split = pre_tokenizers.Split(Regex(r"<[^>]*>|\s?\w+|\s+|[^\s\w]+"), "isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(["é"])  # also the letter of a byte
    return add(tokenizer, "<|endoftext|>")


def word_piece(*, lowercase=False):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(numbered(*special, *WORDS), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return add(tokenizer, *special)


def unigram(*, fallback):
    pieces = ["<pad>", "</s>", "<unk>", "<s>", *(BYTE_NAMES if fallback else ()), "▁"]
    pieces += [*"thecasonm.é日<>/,", "▁the", "▁cat", "at", "<mask>", "k"]
    scored = [
        (piece, 0.0 if piece[:1] == "<" else -2.0 - number / 99)
        for number, piece in enumerate(pieces)
    ]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2, byte_fallback=fallback))
    tokenizer.normalizer = normalizers.Sequence([WIDE, normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    metaspace = decoders.Metaspace()
    tokenizer.decoder = (
        decoders.Sequence([decoders.ByteFallback(), metaspace]) if fallback else metaspace
    )
    return add(tokenizer, "<unk>")


def sentence_piece_bpe(*, normalizer):
    """As Llama 2 and Gemma: with and without a space before the text."""
    pieces = ["<unk>", "<s>", "</s>", *BYTE_NAMES, "▁", *"thecasonm.,é<>/s", "▁t", "he"]
    merges = [("▁", "t"), ("h", "e")]
    tokenizer = Tokenizer(
        models.BPE(numbered(*pieces), merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizer
    strip = [decoders.Strip(" ", 1, 0)] if isinstance(normalizer, normalizers.Sequence) else []
    tokenizer.decoder = decoders.Sequence([*FROM_MARKS, *strip])
    return add(tokenizer, "<unk>")


def words_end():
    """As GPT and CLIP: a mark where a word ends."""
    letters = "thecasonmé<>/."
    ends = (f"{letter}</w>" for letter in letters)
    vocabulary = numbered(*letters, *ends, "th", "he</w>", "<unk>")
    merges = [("t", "h"), ("h", "e</w>")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", end_of_word_suffix="</w>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    return add(tokenizer, "<unk>")


def words():
    vocabulary = numbered("?", "</s>", "<s>", "the", "cat", "日")
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.normalizer = WIDE
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return add(tokenizer)


def whole_text():
    """No rules at all: the model is given the whole text."""
    return add(Tokenizer(models.WordLevel(numbered("?", "</s>", "<s>"), unk_token="?")))


def speech():
    """As Wav2Vec2: a letter that comes twice is one, `|` is a space."""
    letters = numbered("<pad>", "<s>", "</s>", "<unk>", *"|thecas")
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.CTC(pad_token="<pad>", word_delimiter_token="|")
    return add(tokenizer, "<unk>")


LAYOUTS = {
    "byte-level": byte_level(),
    "byte-level-whole-words": byte_level(ignore_merges=True),
    "word-piece": word_piece(),
    "word-piece-lowercase": word_piece(lowercase=True),
    "unigram": unigram(fallback=False),
    "unigram-bytes": unigram(fallback=True),
    "bpe-bytes": sentence_piece_bpe(
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ),
    "bpe-bytes-no-prefix": sentence_piece_bpe(normalizer=normalizers.Replace(" ", "▁")),
    "words-end": words_end(),
    "words": words(),
    "whole-text": whole_text(),
    "speech": speech(),
}
ADOPTED = {name: TextTokenizer.adopt(made.to_str(), {"user"}) for name, made in LAYOUTS.items()}
