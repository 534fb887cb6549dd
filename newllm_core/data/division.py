"""Which documents are train and which are validation: never one content on both sides."""

from dataclasses import dataclass

from newllm_core.data.documents import Documents, Selection
from newllm_core.errors import InputError


@dataclass(frozen=True)
class Division:
    """Documents of both sides in the order of their source.

    `duplicates_dropped` counts validation documents left out because train has the same content.
    """

    train: Selection
    validation: Selection
    duplicates_dropped: int


def divide(documents: Documents, separate: Documents | None, val_fraction: float) -> Division:
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
    import numpy as np

    source = documents if separate is None else separate
    marked = source.of_split("validation")
    if not marked.any():
        if separate is None:
            return _choose(documents, val_fraction)
        marked = np.ones(len(separate), dtype=bool)
    train = documents.select(~documents.of_split("validation"))
    if not len(train):
        raise InputError("every document is validation: nothing to train on")
    count = int(marked.sum())
    marked[marked] = ~np.isin(source.digests[marked], train.digests)
    validation = source.select(marked)
    if not len(validation):
        raise InputError(
            f"all {count} validation documents are in the training split too: "
            "give others with --val-input"
        )
    return Division(train, validation, count - len(validation))


def _choose(documents: Documents, val_fraction: float) -> Division:
    """Hold out the first documents in the order of their digests.

    Membership depends on content and seed alone, so duplicates stay together and a reordered
    corpus is divided alike.
    """
    import numpy as np

    order = np.argsort(documents.digests, kind="stable")
    ordered = documents.digests[order]
    firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # of each content
    del ordered
    if len(firsts) < 2:
        raise InputError(
            f"{len(documents)} documents with {len(firsts)} distinct contents cannot be divided "
            "into train and validation: split the text with --document-separator, or give "
            "--val-input"
        )
    held_out = np.cumsum(np.add.reduceat(documents.sizes[order], firsts))
    enough = int(np.searchsorted(held_out, val_fraction * held_out[-1])) + 1
    chosen = np.zeros(len(documents), dtype=bool)
    chosen[order[: firsts[min(enough, len(firsts) - 1)]]] = True  # never all
    return Division(documents.select(~chosen), documents.select(chosen), duplicates_dropped=0)
