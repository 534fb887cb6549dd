"""Finished runs, one JSON object a line: an interrupted comparison goes on where it stopped."""

import json
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Cache:
    """What is known, by everything that decides it.

    The code is not part of what decides: after a change of a model, use another folder.

    Args:
        path: of the file; made when the first result is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Entry] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                # The last line may be half written.
                if line.endswith("}"):
                    entry = json.loads(line)
                    self._known[_text(entry["key"])] = entry["figures"]

    def get(self, key: Entry) -> Entry | None:
        """The figures of `key`, if they are known."""
        return self._known.get(_text(key))

    def add(self, key: Entry, figures: Entry) -> None:
        """Remember `figures`; on disk before this returns."""
        self._known[_text(key)] = figures
        self.path.parent.mkdir(parents=True, exist_ok=True)
        broken = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            line = json.dumps({"key": key, "figures": figures})
            file.write(("\n" if broken else "") + line + "\n")


def _text(key: Entry) -> str:
    return json.dumps(key, sort_keys=True)
