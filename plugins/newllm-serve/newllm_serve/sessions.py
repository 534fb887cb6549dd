"""Conversations to go on from: a file each, as `generate --save-state` writes it."""

import hashlib
import shutil
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.generation.state import SavedState, load_state, save_state
from newllm_serve.row import Row

SUFFIX = ".state"


class Sessions:
    """A bounded folder of states. Memory holds their names only.

    The folder of another checkpoint's states is not mixed with: a state says whose it is. Its
    lock (`files.lock`) must be held.

    Args:
        folder: where they are; made if need be.
        checkpoint: whose contexts they are.
        tokenizer: of the checkpoint.
        most: so many are kept; the one unused for longest goes first.
    """

    def __init__(
        self, folder: Path, checkpoint: Checkpoint, tokenizer: TextTokenizer, most: int
    ) -> None:
        self._folder = folder
        self._model = checkpoint.model
        self._identity = checkpoint.identity()  # made once: it is a hash of all weights
        self._tokenizer = tokenizer
        self._most = most
        self._lock = Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".*{SUFFIX}.*.tmp"):  # of a killed server
            shutil.rmtree(left, ignore_errors=True)
        found = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        # Names of files, the one used last at the end.
        self._used: OrderedDict[str, None] = OrderedDict((path.name, None) for path in found)
        self._drop_oldest()

    def __len__(self) -> int:
        return len(self._used)

    def load(self, name: str) -> SavedState | None:
        """Return where the session was left; None if there is none of that name.

        Raises:
            InputError: its file is damaged, or another checkpoint's.
        """
        file = _file_name(name)
        with self._lock:
            if file not in self._used:
                return None
            self._used.move_to_end(file)
        path = self._folder / file
        return load_state(path, self._model, self._tokenizer, identity=self._identity)

    def save(self, name: str, row: Row, num_tokens: int) -> None:
        """Keep where `row` ended, on disk when this returns.

        Raises:
            InputError: it cannot be written.
        """
        file = _file_name(name)
        save_state(
            row,
            row.tail,
            self._folder / file,
            identity=self._identity,
            overwrite=True,
            notes={"num_tokens": num_tokens},
        )
        with self._lock:
            self._used[file] = None
            self._used.move_to_end(file)
            self._drop_oldest()

    def remove(self, name: str) -> bool:
        """Forget a session; returns whether there was one."""
        file = _file_name(name)
        with self._lock:
            known = file in self._used
            self._used.pop(file, None)
            (self._folder / file).unlink(missing_ok=True)
        return known

    def _drop_oldest(self) -> None:
        while len(self._used) > self._most:
            file, _ = self._used.popitem(last=False)
            (self._folder / file).unlink(missing_ok=True)


def _file_name(name: str) -> str:
    """Names are anything; those of files are not."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest() + SUFFIX
