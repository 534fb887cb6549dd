"""What a shell is offered: newllm's own command tree has a group and commands of its own making."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from newllm_cli.__main__ import main
sys.argv = ["newllm"]
try: main()
except SystemExit: pass
print(json.dumps([m for m in ("torch", "numpy", "datasets", "tokenizers") if m in sys.modules]))
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("newllm ph", ["phase1", "phase2"]),
        ("newllm phase1 --max-", ["--max-tokens", "--max-iterations"]),
        ("newllm plugins ", ["show", "new"]),
    ],
)
def test_a_shell_is_offered_what_there_is_without_loading_torch(words, offered):
    asked = {"_NEWLLM_COMPLETE": "complete_bash", "COMP_WORDS": words}
    asked["COMP_CWORD"] = str(words.count(" "))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=True,
    )
    *found, loaded = done.stdout.splitlines()
    assert found == offered
    assert json.loads(loaded) == []
