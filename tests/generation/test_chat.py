import pytest
import torch

from newllm_core.config import GenerationConfig
from newllm_core.data.make_tokenizer import train_bpe
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.generation.chat import Chat
from newllm_core.generation.session import Session
from tests.data.cases import encode_document

from .cases import bpe, make_model, word_pieces

MESSAGES = ["the cat sat", "é?", "the cat sat", "<|assistant|> on the mat.\n"]


@pytest.fixture(scope="module")
def tokenizer():
    return bpe()


class Talk:
    """A conversation that writes down what the model reads."""

    def __init__(self, tokenizer, token=None, **options):
        model = make_model(tokenizer.vocab_size)
        if token is not None:
            with torch.no_grad():
                model.token_output[-1].bias[token] = 1e4
        options = GenerationConfig(**{"temperature": 1.0, "top_p": 1.0} | options)
        self.session = Session(model, options, seed=3, start_id=tokenizer.end_id)
        self.chat = Chat(self.session, tokenizer, options)
        self.read = [tokenizer.end_id]
        after = self.session._after
        self.session._after = lambda context, token: (
            self.read.append(token) or after(context, token)
        )

    def __call__(self, message):
        return "".join(self.chat.reply(message))


def chat_ids(tokenizer, messages, reply):
    turns = [Message(*turn) for m in messages for turn in (("user", m), ("assistant", reply))]
    return encode_document(tokenizer, Document(messages=tuple(turns)))


@pytest.mark.parametrize("ending", ["user", "assistant", "end"])
def test_the_model_reads_what_prepare_writes(tokenizer, ending):
    end = tokenizer.end_id if ending == "end" else tokenizer.role_ids[ending]
    talk = Talk(tokenizer, end)
    assert [talk(message) for message in MESSAGES] == [""] * 4
    assert [*talk.read[1:], tokenizer.end_id] == chat_ids(tokenizer, MESSAGES, "")


def test_a_reply_that_was_cut_off_is_read_whole_before_the_next_message(tokenizer):
    (word,) = tokenizer.encode(" the")
    talk = Talk(tokenizer, word, max_tokens=3)
    assert [talk(message) for message in MESSAGES] == [" the the the"] * 4
    assert talk.session.pending == word
    read = [*talk.read[1:], word, tokenizer.end_id]
    assert read == chat_ids(tokenizer, MESSAGES, " the the the")


def test_a_turn_costs_the_same_however_long_the_conversation(tokenizer):
    (word,) = tokenizer.encode(" the")
    talk = Talk(tokenizer, word, max_tokens=5)
    costs = []
    for _ in range(6):
        before = len(talk.read)
        talk("on the mat.")
        costs.append(len(talk.read) - before)
    assert len(set(costs[1:])) == 1
    assert costs[1] == 2 + len(tokenizer.encode("on the mat.")) + 5


def test_earlier_turns_are_remembered(tokenizer):
    contexts = []
    for message in ("the cat sat", "on the mat."):
        talk = Talk(tokenizer, max_tokens=0)
        talk(message)
        talk("é?")
        contexts.append(talk.session.context_C)
    assert not torch.equal(*contexts)


def test_stop_strings_and_limits_end_a_reply(tokenizer):
    (word,) = tokenizer.encode(" the")
    talk = Talk(tokenizer, word, stop=("the th",))
    assert [talk("é"), talk("é")] == [" "] * 2
    assert Talk(tokenizer, word, max_tokens=0)("é") == ""


def test_replies_begin_without_the_white_space_between_words():
    tokenizer = word_pieces()
    (word,) = tokenizer.encode("cat")
    assert Talk(tokenizer, word, max_tokens=2)("the cat") == "cat cat"


def test_a_model_of_texts_cannot_talk(tokenizer):
    plain = TextTokenizer.adopt('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}')
    with pytest.raises(InputError, match=r"role user \(its roles: none\)"):
        Talk(plain)


def test_a_conversation_begins_with_the_system_and_any_role_answers():
    tokenizer = train_bpe(["the cat sat.\n"] * 20, 290, {"user", "assistant", "system", "tool"})
    talk = Talk(tokenizer, tokenizer.end_id)
    session = Session(make_model(tokenizer.vocab_size), GenerationConfig())
    read = []
    session.read = read.extend
    chat = Chat(session, tokenizer, GenerationConfig(max_tokens=0), answers="tool", system="sat")
    assert list(chat.reply("the cat")) == ["", ""]
    roles = tokenizer.role_ids
    assert read == [
        *(roles["system"], *tokenizer.encode("sat")),
        *(roles["user"], *tokenizer.encode("the cat"), roles["tool"]),
    ]
    assert chat.answers == "tool"
    assert talk.chat.answers == "assistant"
    with pytest.raises(InputError, match="role system"):
        Chat(talk.session, bpe(), GenerationConfig(), system="be brief")
