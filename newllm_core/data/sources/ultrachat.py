"""The `ultrachat` source: chats, from UltraChat on the hub or rows of any other place."""

from collections.abc import Iterator

from newllm_core.data.sources.base import Broken, DataSource, Document, Note, Split
from newllm_core.data.sources.row_documents import documents_of
from newllm_core.data.sources.row_files import hub_parts
from newllm_core.data.sources.rows import RowFileOptions, local_parts, placed_rows

REPOSITORY = "HuggingFaceH4/ultrachat_200k"
HUB_SPLITS: dict[str, Split] = {"train_sft": "train", "test_sft": "validation"}


class UltraChat(DataSource):
    """One document per chat; the hub's data comes divided.

    Reads what the source `rows` reads, but rows that are no chats are broken.
    """

    Options = RowFileOptions

    def documents(self) -> Iterator[Document | Broken | Note]:
        """Yield the chats in their order, held-out ones first; `InputError` without any."""
        if self.input is None:
            parts, _ = hub_parts(REPOSITORY, names=HUB_SPLITS)
        else:
            parts, notes = local_parts("ultrachat", self.input)
            yield from map(Note, notes)
        yield from documents_of(placed_rows(parts, self.options), only_chats=True)
