"""Which documents are train, validation and test: never one content in two of them.

Documents are arrays of `RECORD`s.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from newllm_core.data.documents import of_split
from newllm_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Division:
    """Documents of every split in the order of their source; `test` has none if none is wanted.

    `duplicates_dropped` counts held-out documents left out because their content is in train, or
    for test in validation.
    """

    train: "np.ndarray"
    validation: "np.ndarray"
    test: "np.ndarray"
    duplicates_dropped: int


def divide(
    documents: "np.ndarray",
    separate: "np.ndarray | None",
    val_fraction: float,
    test_fraction: float = 0.0,
) -> Division:
    """Divide `documents` into train, validation and test; `InputError` if one would be empty.

    Validation is, in this order of preference: the `separate` source (what it marks as
    validation, or all of it where it marks nothing); what the source itself marks as validation;
    a choice by content hash of `val_fraction` of the bytes. Test is what the source itself marks as
    test, or such a choice after that of validation, which is therefore the same with and without a
    test split; with a `test_fraction` of 0 nothing is chosen.
    """
    import numpy as np

    in_validation, in_test = of_split(documents, "validation"), of_split(documents, "test")
    rest = ~(in_validation | in_test)
    size = int(documents["size"][rest].sum())
    chosen = separate is None and not in_validation.any()
    if chosen:
        in_validation = _choose(documents, rest, val_fraction * size, "validation")
        rest &= ~in_validation
    if separate is None:
        validation = documents[in_validation]
    else:
        marked = of_split(separate, "validation")
        validation = separate[marked] if marked.any() else separate
    if test_fraction and not in_test.any():
        free = rest & ~np.isin(documents["digest"], validation["digest"])
        in_test = _choose(documents, free, test_fraction * size, "test")
        rest &= ~in_test
    train = documents[rest]
    if not len(train):
        raise InputError("every document is held out: nothing to train on")
    held_out = len(validation) + int(in_test.sum())
    if not chosen:  # a choice keeps duplicates together
        validation = _without(validation, "validation", train)
    test = documents[in_test]
    if len(test):
        test = _without(test, "test", train, validation)
    return Division(train, validation, test, held_out - len(validation) - len(test))


def _without(documents: "np.ndarray", split: str, *others: "np.ndarray") -> "np.ndarray":
    """Return a split without the contents that others have too."""
    import numpy as np

    known = np.concatenate([other["digest"] for other in others])
    left = documents[~np.isin(documents["digest"], known)]
    if not len(left):
        raise InputError(
            f"all {len(documents)} {split} documents are in another split too: "
            + ("give others with --val-input" if split == "validation" else "give other ones")
        )
    return left


def _choose(
    documents: "np.ndarray", among: "np.ndarray", wanted: float, split: str
) -> "np.ndarray":
    """Hold out the first documents in the order of their digests, `wanted` bytes, bool [n].

    Membership depends on content and seed alone, so duplicates stay together and a reordered
    corpus is divided alike.
    """
    import numpy as np

    order = np.flatnonzero(among)
    order = order[np.argsort(documents["digest"][order], kind="stable")]
    ordered = documents["digest"][order]
    firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # of each content
    del ordered
    if len(firsts) < 2:
        advice = ", or give --val-input" if split == "validation" else ""
        raise InputError(
            f"{len(order)} documents with {len(firsts)} distinct contents cannot be divided "
            f"into train and {split}: give more of them{advice}"
        )
    held_out = np.cumsum(np.add.reduceat(documents["size"][order], firsts))
    enough = int(np.searchsorted(held_out, wanted)) + 1
    chosen = np.zeros(len(documents), dtype=bool)
    chosen[order[: firsts[min(enough, len(firsts) - 1)]]] = True  # never all
    return chosen
