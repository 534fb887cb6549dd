"""Which documents are train and which are validation: never one content on both sides."""

from collections.abc import Sequence
from dataclasses import dataclass

from newllm_core.data.spool import Record
from newllm_core.errors import InputError


@dataclass(frozen=True)
class Division:
    """Documents of both sides in the order of their source.

    `duplicates_dropped` counts validation documents left out because train has the same content.
    """

    train: list[Record]
    validation: list[Record]
    duplicates_dropped: int


def divide(
    documents: Sequence[Record], separate: Sequence[Record] | None, val_fraction: float
) -> Division:
    """Divide `documents` into train and validation.

    Validation is, in this order of preference: the `separate` source (what it marks as
    validation, or all of it where it marks nothing); what the source itself marks as validation;
    a choice by content hash.

    Args:
        documents: of the source.
        separate: of the separate validation source, if there is one.
        val_fraction: share of bytes that a choice holds out.

    Raises:
        InputError: a side would be empty.
    """
    marked = [record for record in documents if record.split == "validation"]
    if separate is not None:
        marked = [record for record in separate if record.split == "validation"] or list(separate)
    elif not marked:
        return _choose(documents, val_fraction)
    train = [record for record in documents if record.split != "validation"]
    if not train:
        raise InputError("every document is validation: nothing to train on")
    seen = {record.digest for record in train}
    validation = [record for record in marked if record.digest not in seen]
    if not validation:
        raise InputError(
            f"all {len(marked)} validation documents are in the training split too: "
            "give others with --val-input"
        )
    return Division(train, validation, len(marked) - len(validation))


def _choose(documents: Sequence[Record], val_fraction: float) -> Division:
    """Hold out the first documents in the order of their digests.

    Membership depends on content and seed alone, so duplicates stay together and a reordered
    corpus is divided alike.
    """
    sizes: dict[bytes, int] = {}
    for record in documents:
        sizes[record.digest] = sizes.get(record.digest, 0) + record.size
    if len(sizes) < 2:
        raise InputError(
            f"{len(documents)} documents with {len(sizes)} distinct contents cannot be divided "
            "into train and validation: split the text with --document-separator, or give "
            "--val-input"
        )
    wanted = val_fraction * sum(sizes.values())
    chosen: set[bytes] = set()
    held_out = 0
    for digest in sorted(sizes)[:-1]:  # never all
        if chosen and held_out >= wanted:
            break
        chosen.add(digest)
        held_out += sizes[digest]
    return Division(
        train=[record for record in documents if record.digest not in chosen],
        validation=[record for record in documents if record.digest in chosen],
        duplicates_dropped=0,
    )
