"""Conversations by name: where they go on, what is kept, what a killed server leaves."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import cases
import openai
import pytest
from newllm_serve.errors import Refused
from newllm_serve.limits import Limits
from newllm_serve.row import Row
from newllm_serve.service import Service
from newllm_serve.sessions import Sessions
from test_openai import GREEDY, directly

from newllm_core.config import GenerationConfig
from newllm_core.generation.session import Session
from newllm_core.generation.state import load_state
from newllm_core.generation.writer import Writer

WORDS = ["the cat sat", "on the log", "é was there", "the end"]


def say(client, name, text, **options):
    return client.chat.completions.create(
        messages=[{"role": "user", "content": text}],
        extra_body={"session": name},
        **{"max_tokens": 12, **GREEDY, **options},
    )


def test_a_session_goes_on_without_its_history(client, opened):
    replies = [say(client, "goes on", text) for text in WORDS]
    expected = directly(opened, *WORDS)
    assert [reply.choices[0].message.content for reply in replies] == expected
    assert [reply.session["is_new"] for reply in replies] == [True, False, False, False]
    counts = [reply.session["num_tokens"] for reply in replies]
    assert counts == sorted(set(counts))
    assert replies[-1].usage.prompt_tokens < 12  # the history is not read again
    other = say(client, "another", WORDS[1]).choices[0].message.content
    assert other == directly(opened, WORDS[1])[0] != expected[1]


def test_a_completion_goes_on_in_the_middle_of_a_character(client, opened):
    whole = opened.generate("the", temperature=0, max_tokens=40)
    text = ""
    for prompt in ("the", *[""] * 39):
        asked = {"prompt": prompt, "max_tokens": 1, "extra_body": {"session": "by one"}}
        text += client.completions.create(**asked, **GREEDY).choices[0].text
    assert text == whole


def test_the_state_can_be_watched_and_removed(client, opened, server):
    reply = say(client, "watched/é", "the cat")
    seen = client.get("/sessions/watched%2F%C3%A9", cast_to=object)
    assert seen["num_tokens"] == reply.session["num_tokens"]
    assert seen["norm"] == pytest.approx(reply.session["norm"])
    assert sum(x * x for x in seen["context"]) ** 0.5 == pytest.approx(seen["norm"], rel=1e-5)
    assert len(seen["context"]) == opened.model.context_dim
    before = seen["context"]
    drift = say(client, "watched/é", "the dog").session["drift"]
    after = client.get("/sessions/watched%2F%C3%A9", cast_to=object)["context"]
    moved = sum((a - b) ** 2 for a, b in zip(after, before, strict=True)) ** 0.5
    assert drift == pytest.approx(moved, rel=1e-4)
    assert client.delete("/sessions/watched%2F%C3%A9", cast_to=object)["deleted"]
    with pytest.raises(openai.NotFoundError):
        client.get("/sessions/watched%2F%C3%A9", cast_to=object)
    assert say(client, "watched/é", "the cat").session["is_new"]


def test_a_session_is_in_one_request_at_a_time(client):
    say(client, "busy", "the")
    stream = say(client, "busy", "the cat", stream=True, max_tokens=4000)
    next(iter(stream))
    with pytest.raises(openai.ConflictError):
        say(client, "busy", "the dog")
    stream.close()


def test_a_vanished_client_leaves_the_session_where_it_was(client, server, opened):
    first = say(client, "vanished", WORDS[0])
    stream = say(client, "vanished", "the dog", stream=True, max_tokens=4000)
    next(iter(stream))
    stream.close()
    with server.client(max_retries=8) as patient:
        second = say(patient, "vanished", WORDS[1])
    expected = directly(opened, *WORDS[:2])
    assert [r.choices[0].message.content for r in (first, second)] == expected


def test_a_state_is_one_of_generate(client, opened, path):
    say(client, "to a file", "the cat sat")
    file = max(path.with_suffix(".sessions").glob("*.state"), key=lambda f: f.stat().st_mtime_ns)
    options = GenerationConfig(temperature=0)
    session = Session(opened.model, options)
    identity = opened.checkpoint.identity()
    state = load_state(file, opened.checkpoint.model, opened.tokenizer, identity=identity)
    state.restore(session)
    text = "".join(Writer(session, opened.tokenizer).write(9, {opened.tokenizer.end_id}))
    asked = {"prompt": "", "max_tokens": 9, "extra_body": {"session": "to a file"}}
    made = client.completions.create(**asked, **GREEDY).choices[0].text
    assert text == made != ""


def test_the_store_is_bounded_and_forgets_the_one_unused_for_longest(opened, tmp_path):
    def row(value):
        made = Row(
            opened.model.start(1)[0] + value,
            (),
            [1],
            opened.tokenizer,
            opened.config.generation,
            stop=(),
            ends=(),
            seed=0,
            seconds=1,
            inbox=asyncio.Queue(),
        )
        made.take(1)
        return made

    def store():
        return Sessions(tmp_path, opened.checkpoint, opened.tokenizer, 3)

    kept = store()
    for place, name in enumerate("abc"):
        kept.save(name, row(place), place)
    assert kept.load("a") is not None
    kept.save("d", row(9), 9)
    assert len(kept) == len(list(tmp_path.glob("*"))) == 3
    again = store()
    assert again.load("b") is None
    assert [again.load(name).notes["num_tokens"] for name in "acd"] == [0, 2, 9]
    assert again.load("d").context_C.tolist() == [9.0] * opened.model.context_dim


def test_a_session_is_busy_until_it_is_on_disk_also_where_its_client_is_gone(opened, tmp_path):
    kept = Sessions(tmp_path, opened.checkpoint, opened.tokenizer, 3)
    options, limits = GenerationConfig(temperature=0, max_tokens=3), Limits()
    service = Service("m", opened.checkpoint, opened.tokenizer, options, limits, kept)
    asked = service.reader.read(b'{"prompt": "the cat", "session": "s"}', is_chat=False)
    begun, may_go_on, save = threading.Event(), threading.Event(), kept.save

    def slowly(*arguments):
        begun.set()
        assert may_go_on.wait(100)
        save(*arguments)

    async def leave():
        service.engine.start()
        reply = await service.begin(asked)
        answer = asyncio.ensure_future(reply.body())
        assert await asyncio.to_thread(begun.wait, 100)
        answer.cancel()
        service.end(reply)
        try:
            for come_again in (service.begin, lambda _: service.forget("s")):
                with pytest.raises(Refused, match="in another request"):
                    await come_again(asked)
        finally:
            may_go_on.set()
        await reply.saving
        await asyncio.sleep(0)
        reply = await service.begin(asked)
        assert (await reply.body())["session"]["is_new"] is False
        service.end(reply)
        service.engine.stop()

    kept.save = slowly
    asyncio.run(leave())


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_in_the_middle_every_conversation_goes_on_where_it_was(count, tmp_path, opened):
    path = cases.write(tmp_path, opened.checkpoint)
    # Every conversation is another one.
    scripts = [[f"{text} {number}" for text in WORDS] for number in range(count)]
    expected = [directly(opened, *script, max_tokens=60) for script in scripts]
    said, known = [[] for _ in scripts], [0] * count
    half = threading.Event()

    def talk(server, place):
        with server.client(max_retries=0) as client:
            while len(said[place]) < len(WORDS):
                text = scripts[place][len(said[place])]
                reply = say(client, str(place), text, max_tokens=60)
                said[place].append(reply.choices[0].message.content)
                known[place] = reply.session["num_tokens"]
                if sum(map(len, said)) > 1.5 * count:
                    half.set()

    def talk_until_it_dies(server, place):
        with suppress(openai.APIConnectionError):
            talk(server, place)

    first = cases.serve(path, "--threads=1")
    with ThreadPoolExecutor(16) as pool:
        talks = [pool.submit(talk_until_it_dies, first, place) for place in range(count)]
        assert half.wait(120)
        first.kill()
        for one in talks:
            one.result()
    unfinished = sum(len(lines) < len(WORDS) for lines in said)
    assert unfinished > 0
    second = cases.serve(path, "--threads=1")
    lost = 0
    with second.client() as client:
        for place in range(count):
            if not said[place] and known[place] == 0:
                continue
            state = client.get(f"/sessions/{place}", cast_to=object)
            if state["num_tokens"] != known[place]:  # its last reply was made, but not delivered
                said[place].append(expected[place][len(said[place])])
                lost += 1
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda place: talk(second, place), range(count)))
    assert said == expected
    assert second.end() == ""
    assert lost <= 16
