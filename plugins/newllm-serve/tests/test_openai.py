"""What the official client asks, against the same model asked directly."""

import urllib.error
import urllib.request
from contextlib import nullcontext

import cases
import openai
import pytest

from newllm_core.config import GenerationConfig
from newllm_core.generation.chat import Chat
from newllm_core.generation.session import Session
from newllm_core.pipeline.opened import open_checkpoint

GREEDY = {"model": "model", "temperature": 0}
USER = [{"role": "user", "content": "the cat sat"}]


def directly(opened, *messages, max_tokens=12, system=None):
    options = GenerationConfig(temperature=0, max_tokens=max_tokens)
    session = Session(opened.model, options, start_id=opened.tokenizer.end_id)
    chat = Chat(session, opened.tokenizer, options, system=system)
    return ["".join(chat.reply(message)) for message in messages]


def test_models(client):
    assert [model.id for model in client.models.list()] == ["model"]
    assert client.models.retrieve("model").owned_by == "newllm"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_completions_are_those_of_generate(client, opened):
    for prompt in ("the cat", "é was", ""):
        made = client.completions.create(prompt=prompt, max_tokens=30, **GREEDY)
        expected = opened.generate(prompt, temperature=0, max_tokens=30)
        assert made.choices[0].text == expected
        assert made.choices[0].finish_reason == "length"
    ids = opened.tokenizer.encode("the cat")
    of_ids = client.completions.create(prompt=ids, max_tokens=30, **GREEDY)
    assert of_ids.choices[0].text == opened.generate("the cat", temperature=0, max_tokens=30)
    assert of_ids.usage.prompt_tokens == len(ids)
    assert of_ids.usage.completion_tokens == 30
    assert of_ids.usage.total_tokens == len(ids) + 30


def test_a_seed_gives_the_same_draws_as_generate(client, opened):
    asked = {"model": "model", "prompt": "the", "temperature": 0.7, "top_p": 0.9, "max_tokens": 40}
    made = client.completions.create(**asked, seed=5).choices[0].text
    assert made == opened.generate("the", temperature=0.7, top_p=0.9, max_tokens=40, seed=5)
    assert made != client.completions.create(**asked, seed=6).choices[0].text
    unseeded = {client.completions.create(**asked).choices[0].text for _ in range(2)}
    assert len(unseeded) == 2


def test_penalty_and_top_k_are_those_of_generate(client, opened):
    extra = {"repetition_penalty": 1.7, "top_k": 5}
    asked = {"model": "model", "prompt": "the cat", "temperature": 1, "max_tokens": 40, "seed": 2}
    made = client.completions.create(**asked, top_p=1, extra_body=extra).choices[0].text
    given = {"temperature": 1, "top_p": 1, "max_tokens": 40, "seed": 2}
    assert made == opened.generate("the cat", **given, **extra)
    assert made != opened.generate("the cat", **given)


def test_chat_is_that_of_generate(client, opened):
    made = client.chat.completions.create(messages=USER, max_tokens=12, **GREEDY)
    assert made.choices[0].message.content == directly(opened, "the cat sat")[0]
    assert made.choices[0].message.role == "assistant"
    system = [{"role": "system", "content": "the mat"}, *USER]
    made = client.chat.completions.create(messages=system, max_completion_tokens=12, **GREEDY)
    told = directly(opened, "the cat sat", system="the mat")[0]
    assert made.choices[0].message.content == told
    assert told != directly(opened, "the cat sat")[0]
    parts = [
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("the cat", " sat")]}
    ]
    made = client.chat.completions.create(messages=parts, max_tokens=12, **GREEDY)
    assert made.choices[0].message.content == directly(opened, "the cat sat")[0]


def test_a_stream_is_the_same_text(client, opened):
    options = {"include_usage": True}
    stream = client.completions.create(
        prompt="the", max_tokens=25, stream=True, stream_options=options, **GREEDY
    )
    *chunks, last = list(stream)
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == opened.generate("the", temperature=0, max_tokens=25)
    assert len(chunks) > 10
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "length"]
    assert last.choices == []
    assert last.usage.completion_tokens == 25
    stream = client.chat.completions.create(messages=USER, max_tokens=12, stream=True, **GREEDY)
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == directly(opened, "the cat sat")[0]


def test_stop_strings_end_a_text_before_them(client, opened):
    whole = opened.generate("the", temperature=0, max_tokens=40)
    stop = whole[7:10]
    made = client.completions.create(prompt="the", max_tokens=40, stop=[stop, "zzz"], **GREEDY)
    assert made.choices[0].text == whole[: whole.index(stop)]
    assert made.choices[0].finish_reason == "stop"
    stream = client.completions.create(
        prompt="the", max_tokens=40, stop=stop, stream=True, **GREEDY
    )
    assert "".join(c.choices[0].text for c in stream) == whole[: whole.index(stop)]


def test_several_prompts_and_choices_are_side_by_side(client, opened):
    prompts = ["the cat", "the dog"]
    made = client.completions.create(prompt=prompts, n=2, max_tokens=15, **GREEDY)
    expected = [opened.generate(p, temperature=0, max_tokens=15) for p in prompts for _ in range(2)]
    assert [choice.text for choice in made.choices] == expected
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    assert made.usage.completion_tokens == 60
    made = client.chat.completions.create(model="model", messages=USER, n=3, seed=1, max_tokens=15)
    assert len({choice.message.content for choice in made.choices}) == 3


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": "much"}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"n": 17}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": 0}, "logprobs"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"prompt": [1, 10**6]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"seed": 1.5}, "seed"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"extra_body": {"session": ""}}, "session"),
        ({"extra_body": {"session": "s"}, "n": 2}, "n"),
    ],
)
def test_a_mistake_names_its_parameter(client, asked, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "model", "prompt": "the"} | asked)
    assert caught.value.param == param
    assert param in caught.value.message
    assert caught.value.type == "invalid_request_error"


def test_messages_must_be_messages(client):
    for messages, param in (
        ([], "messages"),
        ([{"role": "robot", "content": "a"}], "messages[0].role"),
        ([USER[0], {"role": "user", "content": 3}], "messages[1].content"),
        (["hello"], "messages[0]"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="model", messages=messages)
        assert caught.value.param == param


def test_too_much_is_refused(client, server):
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-4", prompt="the")
    for size in (100_000, 5_000_000):
        with pytest.raises(openai.APIStatusError) as caught:
            client.completions.create(model="model", prompt="a" * size)
        assert caught.value.status_code == 413
    streams = [
        client.completions.create(prompt="the", n=10, max_tokens=4000, stream=True, **GREEDY)
        for _ in range(2)
    ]
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model="model", prompt="the", max_tokens=1)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "1"
    for stream in streams:
        stream.close()  # a vanished client frees its rows
    with server.client(max_retries=8) as patient:
        assert patient.completions.create(model="model", prompt="the", max_tokens=1)


def test_heads_that_are_mixed_with_counts(tmp_path):
    path = cases.write(tmp_path, cases.make(head_bigrams=60))
    opened = open_checkpoint(path)
    server = cases.serve(path, "--threads=1")
    with server.client() as client:
        asked = {"max_tokens": 15, "temperature": 1, "seed": 2, "model": "model", "top_p": 1}
        text = client.completions.create(prompt="the cat", **asked).choices[0].text
    server.kill()
    given = {"max_tokens": 15, "temperature": 1, "seed": 2, "top_p": 1}
    assert text == opened.generate("the cat", **given)
    opened.model.heads()[-1].gate.bias.data.fill_(-100)
    assert text != opened.generate("the cat", **given)


@pytest.mark.parametrize(("host", "status"), [("llm.example", 200), ("evil.example", 400)])
def test_only_names_that_were_given_are_answered(server, host, status):
    asked = urllib.request.Request(server.url + "/v1/models", headers={"Host": host})
    with pytest.raises(urllib.error.HTTPError) if status != 200 else nullcontext() as caught:
        answer = urllib.request.urlopen(asked)
    assert (caught.value.code if caught else answer.status) == status
