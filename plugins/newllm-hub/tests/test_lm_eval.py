"""lm-evaluation-harness on local tasks with local data."""

import json
import math
from importlib.metadata import entry_points

import cases
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from newllm_hub.lm_eval import TOKENS_AT_ONCE, NewllmLM
from newllm_hub.run_lm_eval import run_tasks

from newllm_core.config import GenerationConfig
from newllm_core.errors import ConfigError, InputError
from newllm_core.generation.session import Session
from newllm_core.generation.writer import Writer
from newllm_core.pipeline.opened import open_checkpoint
from newllm_core.trajectory.sequential import unroll

DOCUMENTS = [cases.TEXT * 3, "the cat", " é\n\n", "dog"]
PAIRS = [("the cat", " sat"), ("", "the dog"), ("the ", "mat"), ("on the", ""), ("a" * 900, "bb")]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return cases.write(
        cases.make(num_heads=2, cell="gru", head_bigrams=60), tmp_path_factory.mktemp("lm")
    )


@pytest.fixture(scope="module")
def opened(path):
    return open_checkpoint(path, device="cpu")


@pytest.fixture(scope="module")
def lm(path):
    return NewllmLM(str(path), batch_size=3, device="cpu")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of three tasks, and their data."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"text": text, "begin": "the cat", "end": " sat"} for text in DOCUMENTS]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = f"""
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
"""
    kinds = {
        "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: bits_per_byte
  - metric: byte_perplexity
""",
        "cloze": """
output_type: loglikelihood
doc_to_text: "{{begin}}"
doc_to_target: "{{end}}"
target_delimiter: ""
metric_list:
  - metric: perplexity
  - metric: acc
""",
        "answer": """
output_type: generate_until
doc_to_text: "{{begin}}"
doc_to_target: "{{end}}"
generation_kwargs:
  until: ["Z"]
  max_gen_toks: 3
metric_list:
  - metric: exact_match
""",
    }
    for name, text in kinds.items():
        (folder / f"{name}.yaml").write_text(f"task: newllm_{name}{common}{text}")
    return folder


@pytest.fixture(autouse=True)
def local_only(monkeypatch, tmp_path):
    """Data is cached where the test ends, and the thousands of built-in tasks are not indexed."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(tmp_path / "manager.py"))


def request(kind, *arguments):
    return Instance(kind, {}, arguments, 0)


def test_the_harness_finds_and_makes_it_by_its_name(path):
    (entry,) = entry_points(group="lm_eval.models", name="newllm")
    assert entry.load() is get_model("newllm") is NewllmLM
    given = {"device": "cpu", "batch_size": 2, "max_batch_size": None}
    made = NewllmLM.create_from_arg_string(f"checkpoint={path}", given)
    assert (made.batch_size, str(made.device)) == (2, "cpu")


def test_bits_per_byte_of_a_task_are_those_of_evaluate(path, opened, tasks):
    found = run_tasks(path, ["newllm_rolling"], include_path=tasks)["results"]["newllm_rolling"]
    bits = num_bytes = 0.0
    for text in DOCUMENTS:
        figures = opened.evaluate(text)
        bits += figures["heads"][-1]["bits_per_byte"] * figures["num_bytes"]
        num_bytes += len(text.encode())
    assert found["bits_per_byte,none"] == pytest.approx(bits / num_bytes, rel=1e-6)
    assert found["byte_perplexity,none"] == pytest.approx(2 ** (bits / num_bytes), rel=1e-6)


def test_a_rolling_text_is_predicted_with_its_end(lm, opened):
    (found,) = lm.loglikelihood_rolling([request("loglikelihood_rolling", "the cat sat")])
    assert found == pytest.approx(nats(opened, "", "the cat sat", end=True)[0], abs=1e-4)
    assert lm.loglikelihood_rolling([request("loglikelihood_rolling", "")]) == [0]


def nats(opened, context, continuation, end=False):
    """Log-likelihood and whether it is greedy, the last head reading one text alone."""
    tokenizer, model = opened.tokenizer, opened.model
    stripped = context.rstrip()
    begin = [tokenizer.end_id, *tokenizer.encode(stripped)]
    ids = [tokenizer.end_id, *tokenizer.encode(context + continuation)]
    ids += [tokenizer.end_id] * end
    with torch.no_grad():
        contexts = unroll(model, torch.tensor([ids[:-1]]), model.start(1))
        logits = model.logits(contexts, torch.tensor([ids[:-1]]))[-1][0].double().log_softmax(-1)
    targets = torch.tensor(ids[1:])
    chosen = slice(len(begin) - 1, None)
    total = logits.gather(1, targets[:, None])[chosen].sum()
    return total.item(), bool((logits.argmax(-1) == targets)[chosen].all())


def test_continuations_side_by_side_are_those_of_each_alone(lm, opened):
    assert len(opened.tokenizer.encode("a" * 900)) > TOKENS_AT_ONCE
    found = lm.loglikelihood([request("loglikelihood", *pair) for pair in PAIRS], disable_tqdm=True)
    for (total, greedy), pair in zip(found, PAIRS, strict=True):
        wanted, is_greedy = nats(opened, *pair)
        assert total == pytest.approx(wanted, abs=1e-4)
        assert greedy == is_greedy
    assert found[0][0] < -0.5


def test_only_the_likeliest_continuation_is_greedy(lm, opened):
    session = Session(
        opened.model, GenerationConfig(temperature=0), start_id=opened.tokenizer.end_id
    )
    context = opened.tokenizer.encode("the cat")
    session.read(context)
    likeliest = list(session.choose(3))
    other = [*likeliest[:2], (likeliest[2] + 1) % opened.model.vocab_size]
    found = lm._loglikelihood_tokens([(("", ""), context, rest) for rest in (likeliest, other)])
    assert [greedy for _, greedy in found] == [True, False]
    assert found[0][0] > found[1][0]


def test_answers_are_newllms_greedy_text(lm, opened):
    def own(context, limit):
        session = Session(
            opened.model, GenerationConfig(temperature=0), start_id=opened.tokenizer.end_id
        )
        writer = Writer(session, opened.tokenizer)
        writer.read(opened.tokenizer.encode(context))
        return "".join(writer.write(limit, {opened.tokenizer.end_id})) + writer.finish()

    whole = own("the cat", 30)
    stop = whole[5]
    asked = [
        request("generate_until", "the cat", {"until": [], "max_gen_toks": 30}),
        request("generate_until", "the cat", {"until": stop, "max_gen_toks": 30}),
    ]
    assert lm.generate_until(asked) == [whole, whole[: whole.index(stop)]]


def test_the_same_request_again_is_another_draw(lm):
    sampled = {"until": [], "max_gen_toks": 20, "temperature": 1.0}
    asked = [request("generate_until", "the cat", sampled) for _ in range(3)]
    assert len(set(lm.generate_until(asked))) == 3


def test_a_batch_of_whatever_fits(path):
    assert NewllmLM(str(path), device="cpu", batch_size="auto:4").batch_size == 16
    assert NewllmLM(str(path), device="cpu", batch_size="8").batch_size == 8


TURNS = [{"role": "user", "content": "the <|user|> cat"}, {"role": "assistant", "content": " sat"}]


def test_messages_are_those_that_prepare_writes(chat):
    lm = NewllmLM(str(chat), device="cpu")
    tokenizer = open_checkpoint(chat, device="cpu").tokenizer
    user, assistant = tokenizer.role_ids["user"], tokenizer.role_ids["assistant"]
    content = [
        user,
        *tokenizer.encode("the <|user|> cat"),
        assistant,
    ]  # what a message says is text
    assert content.count(user) == 1
    assert lm.tok_encode(lm.apply_chat_template(TURNS[:1])) == content
    ended = lm.apply_chat_template(TURNS, add_generation_prompt=False)
    assert lm.tok_encode(ended) == [*content, *tokenizer.encode(" sat")]
    assert lm._encode_pair(lm.apply_chat_template(TURNS[:1]), " sat")[0] == content


def test_an_answer_ends_where_the_next_message_begins(chat, monkeypatch):
    lm = NewllmLM(str(chat), device="cpu")
    ends = []
    monkeypatch.setattr(
        Writer, "write", lambda writer, limit, of: ends.append(of) or iter(("an ", "answer"))
    )
    prompt = lm.apply_chat_template(TURNS[:1])
    asked = [request("generate_until", text, {"until": []}) for text in (prompt, "the cat")]
    assert lm.generate_until(asked) == ["an answer"] * 2
    tokenizer = open_checkpoint(chat, device="cpu").tokenizer
    assert ends == [{tokenizer.end_id, *tokenizer.role_ids.values()}, {tokenizer.end_id}]


def test_a_task_is_put_as_a_conversation(chat, path, tasks):
    options = {"include_path": tasks, "num_fewshot": 1, "apply_chat_template": True}
    report = run_tasks(chat, ["newllm_cloze"], **options)
    plain = run_tasks(chat, ["newllm_cloze"], include_path=tasks, num_fewshot=1)
    name = "perplexity,none"
    found, other = (made["results"]["newllm_cloze"][name] for made in (report, plain))
    assert found != pytest.approx(other, rel=1e-3)
    with pytest.raises(InputError, match=r"role user .*leave --apply-chat-template out"):
        run_tasks(path, ["newllm_cloze"], **options)


def test_all_kinds_of_tasks_run_and_limits_count(path, tasks):
    names = ["newllm_cloze", "newllm_answer"]
    report = run_tasks(path, names, include_path=tasks, limit=2, batch_size=2)
    total, _ = nats(open_checkpoint(path, device="cpu"), "the cat", " sat")
    found = report["results"]["newllm_cloze"]["perplexity,none"]
    assert found == pytest.approx(math.exp(-total), rel=1e-4)
    assert report["n-samples"]["newllm_answer"]["effective"] == 2
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_mistakes_are_one_line(path, tasks, tmp_path):
    with pytest.raises(ConfigError, match="has no task nothing"):
        run_tasks(path, ["nothing"])
    with pytest.raises(InputError, match="is no folder of tasks"):
        run_tasks(path, ["nothing"], include_path=tmp_path / "absent")
    (tasks / "data.jsonl").rename(tasks / "gone")
    with pytest.raises(InputError, match="cannot load data of newllm_cloze"):
        run_tasks(path, ["newllm_cloze"], include_path=tasks)
    (tasks / "gone").rename(tasks / "data.jsonl")
    untrained = cases.write(cases.make(phase="phase1"), tmp_path)
    with pytest.raises(InputError, match="no trained head"):
        run_tasks(untrained, ["newllm_cloze"], include_path=tasks)
