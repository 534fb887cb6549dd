"""What a target is: a file that newllm reads, and what must hold if a damaged one does load.

`check` returns "equal" (the same as the undamaged file gives) or "valid" (something else that a
file of its kind may hold), raises a `UserError`, or fails.
"""

EQUAL, VALID = "equal", "valid"


class Target:
    """Sets up one good file, `self.good`, and checks damaged ones."""

    kind = ""

    def __init__(self, home):
        self.home = home
        self.folder = home.folder / type(self).__name__
        self.folder.mkdir()
        self.path = self.folder / "file"
        self.good = b""

    def write(self, random, data):
        """Put the damaged bytes where they are read."""
        self.path.write_bytes(data)
