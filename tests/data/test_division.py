import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newllm_core.data.division import divide
from newllm_core.data.documents import extent
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
    for text in texts:
        assert spool.append(Document(text=text, split=split))


def documents(spool, *texts):
    add(spool, *texts)
    return spool.finish()


def texts(spool, selection):
    return [document.text for document in spool.documents(selection)]


def test_documents_come_back_as_they_were(spool):
    written = [
        Document(text="a\nb\u2028 é"),
        Document(messages=(Message("user", "x"), Message("assistant", ""))),
        Document(tokens=(1, 2, 70_000)),
    ]
    assert all(spool.append(document) for document in written)
    documents = spool.finish()
    assert list(spool.documents(documents)) == written
    assert list(spool.documents(documents[1:])) == written[1:]
    assert documents["size"].tolist() == [len("a\nb\u2028 é".encode()), 1, 3]
    assert spool.roles == {"user", "assistant"}


def test_digests_are_those_of_lines_of_json(spool):
    """They decide what is validation: the choice must stay the same from version to version."""
    written = {
        '{"text": "a\\"\\né\\u0000"}': Document(text='a"\né\0'),
        '{"messages": [["user", "ü"]]}': Document(messages=(Message("user", "ü"),)),
        '{"text": "a\\"b\\\\c\\né"}': Document(text='a"b\\c\né'),
        '{"tokens": [1, 22]}': Document(tokens=(1, 22)),
    }
    for document in written.values():
        spool.append(document)
    expected = [
        hashlib.blake2b(f"{line}\n".encode(), digest_size=16, key=bytes(8)).digest()
        for line in written
    ]
    assert [bytes(digest).ljust(16, b"\0") for digest in spool.finish()["digest"]] == expected
    assert [spool.digest(document) for document in written.values()] == expected


@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_long_documents_are_written_and_read_in_parts(spool, kind, monkeypatch):
    monkeypatch.setattr("newllm_core.data.spool.BATCH_BYTES", 16)
    whole = "𝄞 one two é three four\n" * 3 if kind == "text" else tuple(range(100, 117))
    for start in range(0, len(whole), 5):
        part = Document(**{kind: whole[start : start + 5], "continues": True})
        assert not spool.append(part)
    assert spool.append(Document(**{kind: whole[:0]}))
    spool.append(Document(text="short"))
    found = spool.finish()
    assert len(found) == 2
    assert spool.digest(Document(**{kind: whole})) == bytes(found["digest"][0]).ljust(16, b"\0")
    read = list(spool.documents(found, lambda chunks: chunks))
    assert len(read) > 3
    assert [part.continues for part in read] == [True] * (len(read) - 2) + [False, False]
    parts = [getattr(part, kind) for part in read[:-1]]
    assert ("".join(parts) if kind == "text" else sum(parts, ())) == whole
    if kind == "text":
        assert next(spool.documents(found)) == Document(text=whole)


def test_a_document_that_continues_must_do_so(spool):
    spool.append(Document(text="a", continues=True))
    with assert_one_line_error(PluginError, "continues, but nothing follows"):
        spool.finish()
    with assert_one_line_error(PluginError, "does not go on"):
        spool.append(Document(tokens=(1,)))
    with assert_one_line_error(PluginError, "does not go on"):
        spool.append(Document(text="b", split="train"))


def test_documents_without_contents_are_left_out(spool):
    for blank in ({"text": ""}, {"text": " \n\u2003"}, {"tokens": ()}):
        assert not spool.append(Document(**blank))
    assert not spool.append(Document(messages=(Message("user", ""),)))
    spool.append(Document(text=" ", continues=True))
    assert not spool.append(Document(text="\n"))
    add(spool, "a")
    found = spool.finish()
    assert texts(spool, found) == ["a"]


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ("text", "str"),
        (Document(), "a document with nothing: give one of text"),
        (Document(text="a", tokens=(1,)), "a document with text and tokens: give one of text"),
        (Document(text="a", split="tests"), "a document of the split 'tests'"),
        (Document(tokens=(-1,)), "the token -1"),
        (Document(tokens=(1 << 32,)), "the token 4294967296"),
        (Document(messages=(Message("user", "a"),), continues=True), "a chat that continues"),
    ],
)
def test_sources_must_yield_documents(spool, document, what):
    with assert_one_line_error(PluginError, f"it yielded {what}"):
        spool.append(document)


def test_half_a_surrogate_pair_is_no_text(spool):
    with assert_one_line_error(InputError, r"\ud800", "not Unicode"):
        spool.append(Document(text="a\ud800"))


@given(names=st.lists(st.sampled_from("abcdefgh"), min_size=2), fraction=st.floats(0, 0.9))
def test_a_choice_is_disjoint_complete_and_as_large_as_asked(shared_spool, names, fraction):
    if len(set(names)) < 2:
        names = [*names, "x", "y"]
    division = divide(documents(shared_spool, *names), None, fraction)
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
        one = texts(spool, divide(documents(spool, *"abcdefgh"), None, 0.3).validation)
        other = texts(spool, divide(documents(spool, *"hgfedcba"), None, 0.3).validation)
        spool.close()
        assert len(one) == 3
        assert sorted(one) == sorted(other)
        chosen.add(tuple(one))
    assert len(chosen) > 1


def test_the_fraction_is_of_bytes(spool):
    found = documents(spool, *(letter * 100 for letter in "abcde"), *"fghijklmno")
    assert 255 <= extent(divide(found, None, 0.5).validation)[0] < 355


def test_fewer_than_two_contents_cannot_be_divided(spool):
    found = documents(spool, "a", "a", "a")
    with assert_one_line_error(InputError, "3 documents", "give more", "--val-input"):
        divide(found, None, 0.05)


def test_a_source_that_comes_divided_stays_so_without_duplicates(spool):
    add(spool, "a", "b", split="train")
    add(spool, "c")
    add(spool, "b", "d", "d", "c", split="validation")
    division = divide(spool.finish(), None, 0.9)
    assert texts(spool, division.train) == ["a", "b", "c"]
    assert texts(spool, division.validation) == ["d", "d"]
    assert division.duplicates_dropped == 2


def test_a_source_with_training_documents_only_is_dtensor_by_choice(spool):
    add(spool, "a", "b", split="train")
    division = divide(spool.finish(), None, 0.05)
    assert (len(division.train), len(division.validation)) == (1, 1)


def test_a_separate_source(spool):
    add(spool, "a", "b")
    add(spool, "held out", split="validation")
    own = spool.finish()
    division = divide(own, documents(spool, "b", "c"), 0.05)
    assert texts(spool, division.train) == ["a", "b"]
    assert texts(spool, division.validation) == ["c"]
    assert division.duplicates_dropped == 1
    add(spool, "c", split="train")
    add(spool, "d", split="validation")
    assert texts(spool, divide(own, spool.finish(), 0.05).validation) == ["d"]


def test_a_test_split_is_chosen_apart_and_leaves_validation_as_it_was(spool):
    found = documents(spool, *(letter * 10 for letter in "abcdefghijklmnopqrst"), *["aaa"] * 3)
    without = divide(found, None, 0.2)
    division = divide(found, None, 0.2, 0.3)
    assert len(without.test) == 0
    assert division.validation.tolist() == without.validation.tolist()
    assert (
        0.3 * 209 <= extent(division.test)[0] < 0.3 * 209 + 10
    )  # of all bytes, not of what is left
    names = [set(texts(spool, s)) for s in (division.train, division.validation, division.test)]
    assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
    assert sum(map(len, (division.train, division.validation, division.test))) == 23
    with assert_one_line_error(InputError, "cannot be divided into train and test"):
        divide(documents(spool, "a", "b"), None, 0.05, 0.05)


def test_a_test_split_of_the_source_is_taken_whole_whatever_the_fraction(spool):
    add(spool, "a", "b", "c", split="train")
    add(spool, "d", split="validation")
    add(spool, "e", "b", "d", "e", split="test")
    own = spool.finish()
    for fraction in (0.0, 0.5):
        division = divide(own, None, 0.9, fraction)
        assert texts(spool, division.train) == ["a", "b", "c"]
        assert texts(spool, division.test) == ["e", "e"]  # "b" and "d" are elsewhere too
        assert division.duplicates_dropped == 2
    # Test documents never become training ones, also where validation comes from elsewhere.
    division = divide(own, documents(spool, "e", "x"), 0.05)
    assert texts(spool, division.train) == ["a", "b", "c"]
    assert texts(spool, division.validation) == ["e", "x"]
    assert texts(spool, division.test) == ["d"]


def test_a_chosen_test_split_lacks_what_separate_validation_has(spool):
    own = documents(spool, *"abcd")
    division = divide(own, documents(spool, "a", "b", "x"), 0.05, 0.2)
    assert texts(spool, division.validation) == ["x"]
    assert sorted(texts(spool, division.train) + texts(spool, division.test)) == [*"abcd"]
    assert len(division.test) == 1
    assert {*texts(spool, division.test)} < {"c", "d"}


def test_a_side_without_documents_is_an_error(spool):
    with assert_one_line_error(InputError, "all 2 validation documents", "--val-input"):
        divide(documents(spool, "a", "b"), documents(spool, "a", "b"), 0.05)
    add(spool, "a", split="validation")
    with assert_one_line_error(InputError, "nothing to train on"):
        divide(spool.finish(), documents(spool, "b"), 0.05)
