"""Small models and tokenizers of every kind to write with."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from newllm_core.config import GenerationConfig, ModelConfig
from newllm_core.data.make_tokenizer import train_bpe
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.generation.session import Session
from newllm_core.model.language_model import LanguageModel

ROLES = {"user", "assistant"}
WORDS = ["[UNK]", "the", "cat", "##s", "sat", "ça", "on", "mat", ".", ",", "##ly", "é"]


def bpe():
    return train_bpe(["the cat sat on the mat.\nça va, é?\n"] * 20, 290, ROLES)


def bytes_only():
    return train_bpe([], 259, ROLES)


def word_pieces():
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return TextTokenizer.adopt(tokenizer.to_str(), ROLES)


def with_byte_fallback():
    """As SentencePiece writes: spaces as ▁, unknown characters as bytes."""
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdet", "▁t", "é"]
    vocabulary = {piece: number for number, piece in enumerate(letters)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [("▁", "t")], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return TextTokenizer.adopt(tokenizer.to_str(), ROLES)


TOKENIZERS = {
    "bpe": bpe,
    "bytes": bytes_only,
    "word-pieces": word_pieces,
    "byte-fallback": with_byte_fallback,
}


def make_model(vocab_size, *, num_heads=1, seed=0, cell=None, **shape):
    config = ModelConfig(**{"context_dim": 8, "embed_dim": 8} | shape)
    options = {"hidden_dim": 16} | (cell or {})
    model = LanguageModel(config, vocab_size, cell=options, num_heads=num_heads, seed=seed)
    # Fresh heads say almost nothing; these have opinions.
    for number, head in enumerate(model.token_output):
        generator = torch.Generator().manual_seed(number)
        torch.nn.init.normal_(head.weight, std=0.8, generator=generator)
    return model


def session_of(model, *, seed=0, start_id=None, **options):
    options = {"temperature": 1.0, "top_p": 1.0} | options
    return Session(model, GenerationConfig(**options), seed=seed, start_id=start_id)
