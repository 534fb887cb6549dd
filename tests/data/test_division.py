import pytest
from hypothesis import given
from hypothesis import strategies as st

from newllm_core.data.division import divide
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.spool import Spool
from newllm_core.errors import InputError, PluginError

from .cases import assert_one_line_error


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path / "spool", seed=0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_spool(tmp_path_factory):
    made = Spool(tmp_path_factory.mktemp("spool") / "spool", seed=0)
    yield made
    made.close()


def add(spool, *texts, split=None):
    return [spool.append(Document(text=text, split=split)) for text in texts]


def texts(spool, records):
    return [spool.read(record).text for record in records]


def test_documents_come_back_as_they_were(spool):
    documents = [
        Document(text="a\nb\u2028 é"),
        Document(messages=(Message("user", "x"), Message("assistant", ""))),
        Document(tokens=(1, 2, 70_000)),
    ]
    records = [spool.append(document) for document in documents]
    assert [spool.read(record) for record in reversed(records)] == documents[::-1]
    assert list(spool.batches(records)) == [documents]
    assert [record.size for record in records] == [len("a\nb\u2028 é".encode()), 1, 3]
    assert spool.roles == {"user", "assistant"}


def test_batches_are_bounded(spool, monkeypatch):
    monkeypatch.setattr("newllm_core.data.spool.BATCH_BYTES", 40)
    records = add(spool, *"abcdef")  # 14 bytes each
    assert [len(batch) for batch in spool.batches(records)] == [3, 3]


def test_documents_without_contents_are_left_out(spool):
    empty = (Message("user", ""),)
    for document in (Document(text=""), Document(messages=empty), Document(tokens=())):
        assert spool.append(document) is None


@pytest.mark.parametrize(
    "document",
    [
        "text",
        Document(),
        Document(text="a", tokens=(1,)),
        Document(text="a", split="test"),
    ],
)
def test_sources_must_yield_documents(spool, document):
    with assert_one_line_error(PluginError, "it yielded"):
        spool.append(document)


def test_half_a_surrogate_pair_is_no_text(spool):
    with assert_one_line_error(InputError, r"\ud800", "not Unicode"):
        spool.append(Document(text="a\ud800"))


@given(
    names=st.lists(st.sampled_from("abcdefgh"), min_size=2),
    fraction=st.floats(0, 0.9),
)
def test_a_choice_is_disjoint_complete_and_as_large_as_asked(shared_spool, names, fraction):
    if len(set(names)) < 2:
        names = [*names, "x", "y"]
    records = add(shared_spool, *names)
    division = divide(records, None, fraction)
    train, validation = (texts(shared_spool, s) for s in (division.train, division.validation))
    assert train
    assert validation
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(names)
    assert [n for n in names if n in train] == train  # the source's order
    if len(set(train)) > 1:
        assert len(validation) >= fraction * len(names)
    # No more than asked for: without the content chosen last it would be too little.
    sizes = {name: validation.count(name) for name in validation}
    enough = fraction * len(names)
    assert len(sizes) == 1 or min(len(validation) - size for size in sizes.values()) < enough


def test_the_choice_depends_on_the_seed_and_not_on_the_order(tmp_path):
    chosen = set()
    for seed in range(8):
        spool = Spool(tmp_path / "spool", seed)
        records = add(spool, *"abcdefgh")
        one = texts(spool, divide(records, None, 0.3).validation)
        other = texts(spool, divide(records[::-1], None, 0.3).validation)
        spool.close()
        assert len(one) == 3
        assert sorted(one) == sorted(other)
        chosen.add(tuple(one))
    assert len(chosen) > 1


def test_the_fraction_is_of_bytes(spool):
    records = add(spool, *(letter * 100 for letter in "abcde"), *"fghijklmno")
    held = sum(record.size for record in divide(records, None, 0.5).validation)
    assert 255 <= held < 355


def test_fewer_than_two_contents_cannot_be_divided(spool):
    records = add(spool, "a", "a", "a")
    with assert_one_line_error(InputError, "3 documents", "--document-separator", "--val-input"):
        divide(records, None, 0.05)


def test_a_source_that_comes_divided_stays_so_without_duplicates(spool):
    records = [
        *add(spool, "a", "b", split="train"),
        *add(spool, "c"),
        *add(spool, "b", "d", "d", "c", split="validation"),
    ]
    division = divide(records, None, 0.9)
    assert texts(spool, division.train) == ["a", "b", "c"]
    assert texts(spool, division.validation) == ["d", "d"]
    assert division.duplicates_dropped == 2


def test_a_source_with_training_documents_only_is_divided_by_choice(spool):
    division = divide(add(spool, "a", "b", split="train"), None, 0.05)
    assert (len(division.train), len(division.validation)) == (1, 1)


def test_a_separate_source(spool):
    own = [*add(spool, "a", "b"), *add(spool, "held out", split="validation")]
    division = divide(own, add(spool, "b", "c"), 0.05)
    assert texts(spool, division.train) == ["a", "b"]
    assert texts(spool, division.validation) == ["c"]
    assert division.duplicates_dropped == 1
    marked = [*add(spool, "c", split="train"), *add(spool, "d", split="validation")]
    assert texts(spool, divide(own, marked, 0.05).validation) == ["d"]


def test_a_side_without_documents_is_an_error(spool):
    with assert_one_line_error(InputError, "all 2 validation documents", "--val-input"):
        divide(add(spool, "a", "b"), add(spool, "a", "b"), 0.05)
    with assert_one_line_error(InputError, "nothing to train on"):
        divide(add(spool, "a", split="validation"), add(spool, "b"), 0.05)
