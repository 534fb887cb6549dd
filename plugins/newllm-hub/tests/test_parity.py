"""What Transformers loads computes what newllm does."""

import cases
import pytest
import torch
from newllm_hub.export import export_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from newllm_core.checkpoint.format import load
from newllm_core.config import GenerationConfig
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.generation.chat import Chat
from newllm_core.generation.session import Session
from newllm_core.generation.writer import Writer
from newllm_core.trajectory.sequential import unroll

CLOSE = {"rtol": 0, "atol": 1e-5}
PROMPTS = ["", "the cat", "the dog sat on é <|endo"]


@pytest.fixture(scope="module")
def loaded(exported):
    checkpoint, _, folder = exported
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    return checkpoint, model, AutoTokenizer.from_pretrained(folder, trust_remote_code=True)


def tokens_of(checkpoint, batch, length):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, checkpoint.model.vocab_size, (batch, length), generator=generator)


def expected(checkpoint, ids_BT):
    """Logits [B, T, V] of newllm's last head."""
    model = checkpoint.model
    with torch.no_grad():
        contexts = unroll(model, ids_BT, model.start(len(ids_BT)))
        return model.logits(contexts, ids_BT)[-1]


def test_logits_in_one_pass(loaded):
    checkpoint, model, _ = loaded
    assert type(model).__module__.startswith("transformers_modules")
    ids = tokens_of(checkpoint, 3, 29)
    with torch.no_grad():
        logits = model(ids).logits
    torch.testing.assert_close(logits, expected(checkpoint, ids), **CLOSE)
    assert logits.std() > 0.1


def test_logits_token_by_token(loaded):
    checkpoint, model, _ = loaded
    ids = tokens_of(checkpoint, 2, 17)
    cache, logits = None, []
    with torch.no_grad():
        for part in ids.split([1, 5, 1, 1, 9], dim=1):
            output = model(part, cache=cache, use_cache=True)
            cache = output.get("cache", output.get("past_key_values"))
            assert len(cache.layers) == 1
            logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, 1), expected(checkpoint, ids), **CLOSE)


def test_padding_on_either_side_is_not_read(loaded):
    checkpoint, model, _ = loaded
    ids = tokens_of(checkpoint, 2, 11)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    mask[1, 8:] = 0
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
        alone = model(ids[1:, :8]).logits
    # What follows a text is the same wherever the batch ends.
    torch.testing.assert_close(logits[1:, 8:], alone[:, -1:].expand(-1, 3, -1), **CLOSE)
    torch.testing.assert_close(logits[:1, 4:], expected(checkpoint, ids[:1, 4:]), **CLOSE)
    torch.testing.assert_close(logits[1:, :8], expected(checkpoint, ids[1:, :8]), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_leave_counts_as_they_are(exported, dtype):
    checkpoint, _, folder = exported
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=dtype)
    ids = tokens_of(checkpoint, 2, 5)
    with torch.no_grad():
        logits = model(ids).logits.float()
    error = (logits.softmax(-1) - expected(checkpoint, ids).softmax(-1)).abs().max()
    assert error < 0.05
    if checkpoint.model.bigrams is not None:
        assert model.bigrams.pairs.dtype == torch.int64
        torch.testing.assert_close(model.bigrams.counts, checkpoint.model.bigrams.counts)


def greedy(checkpoint, tokenizer, prompt, limit):
    options = GenerationConfig(temperature=0)
    session = Session(checkpoint.model, options, start_id=tokenizer.end_id)
    writer = Writer(session, tokenizer)
    writer.read(tokenizer.encode(prompt))
    return "".join(writer.write(limit, {tokenizer.end_id, *tokenizer.role_ids.values()}))


def test_greedy_text_of_a_padded_batch_is_newllms(loaded):
    checkpoint, model, tokenizer = loaded
    own = TextTokenizer.from_json(checkpoint.tokenizer_json)
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    chosen = model.generate(**inputs, max_new_tokens=20)[:, inputs["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(chosen, skip_special_tokens=True)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        wanted = greedy(checkpoint, own, prompt, 20)
        assert text.startswith(wanted)
        assert text[len(wanted) :].strip("\ufffd") == ""  # an unfinished character is no text
    assert any(texts)


def test_ids_are_newllms(loaded):
    checkpoint, _, tokenizer = loaded
    own = TextTokenizer.from_json(checkpoint.tokenizer_json)
    assert tokenizer.vocab_size <= len(tokenizer) == own.vocab_size
    for text in (cases.TEXT, " two  spaces\n\n", "", "naïve 日本"):
        ids = tokenizer(text)["input_ids"]
        assert ids == [own.end_id, *own.encode(text)]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_beams_keep_their_own_memory(loaded):
    _, model, tokenizer = loaded
    inputs = tokenizer("the", return_tensors="pt")
    cached, whole = (
        model.generate(**inputs, num_beams=3, max_new_tokens=8, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert cached.tolist() == whole.tolist()


def test_a_chat_is_read_as_newllm_writes_it(chat, tmp_path):
    export_folder(chat, tmp_path / "model", analysis=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", trust_remote_code=True)
    checkpoint = load(chat)
    own = TextTokenizer.from_json(checkpoint.tokenizer_json)
    options = GenerationConfig(temperature=0, max_tokens=12)
    session = Session(checkpoint.model, options, start_id=own.end_id)
    talk = Chat(session, own, options, system="be brief")
    reply = "".join(talk.reply(" the cat\n"))

    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": " the cat\n"},
    ]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    roles = own.role_ids
    assert inputs["input_ids"][0].tolist() == [
        own.end_id,
        *(roles["system"], *own.encode("be brief")),
        *(roles["user"], *own.encode(" the cat\n"), roles["assistant"]),
    ]
    chosen = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(chosen, skip_special_tokens=True).rstrip("\ufffd") == reply.rstrip(
        "\ufffd"
    )
