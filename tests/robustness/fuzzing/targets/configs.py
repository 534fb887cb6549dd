"""Config files."""

import json

from newllm_core import settings
from tests.robustness.fuzzing.targets.base import EQUAL, VALID, Target


class Toml(Target):
    kind = "toml"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "config.toml"
        lines = []
        values = settings.to_dict(settings.resolve({"source": {"pattern": "*.txt"}}))
        for section, keys in values.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(v)}" for key, v in keys.items() if v is not None]
        self.good = "\n".join(lines).encode("utf-8")
        self.expected = values

    def check(self):
        found = settings.to_dict(settings.resolve(settings.from_file(str(self.path))))
        assert settings.to_dict(settings.resolve(found)) == found
        return EQUAL if found == self.expected else VALID
