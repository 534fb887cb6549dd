"""`newllm plugins new`: a complete distribution to start from."""

import builtins
import os
import re
from importlib.resources import files
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from newllm_core.config.values import unknown
from newllm_core.errors import ConfigError, InputError, reason
from newllm_core.plugins.registry import REGISTRIES

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*")
PREFIX = "newllm-"
BY_SLUG = {each.kind.replace(" ", "-"): each for each in REGISTRIES if each.summary}


def new_plugin(name: str, kind: str, folder: Path | None = None) -> Path:
    """Write the distribution of one plugin of `kind`, a key of `BY_SLUG`; returns its folder.

    The folder must be new; it is `newllm-NAME` by default.

    Raises:
        ConfigError: `name` is not in lower case with hyphens, or taken, in Python too; there is no
            such kind.
        InputError: the folder exists or cannot be written.
    """
    name = name.removeprefix(PREFIX)
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a plugin: use lower case and hyphens, as in my-reg"
        )
    if kind not in BY_SLUG:
        raise ConfigError(unknown(f"kind {kind!r}", kind, list(BY_SLUG)))
    registry = BY_SLUG[kind]
    if name in registry.plugins():
        origin = registry.plugins()[name][0].origin
        raise ConfigError(f"{registry.kind} {name!r} is taken by {origin}: choose another name")
    module = f"newllm_{name.replace('-', '_')}"
    class_name = "".join(part.capitalize() for part in name.split("-"))
    templates = files("newllm_core.plugins") / "templates"
    code = (templates / kind / "module.py.txt").read_text(encoding="utf-8")
    imports = " ".join(line for line in code.splitlines() if line.startswith(("from", "import")))
    shadows = iskeyword(class_name) or class_name in [*dir(builtins), *re.findall(r"\w+", imports)]
    if shadows or find_spec(module):
        what = f"class {class_name}" if shadows else f"module {module}"
        raise ConfigError(f"{name!r} would be {what}, which exists: choose another name")
    values = {
        "name": name,
        "distribution": PREFIX + name,
        "module": module,
        "class_name": class_name,
        "group": registry.group,
        "summary": registry.summary,
    }
    targets = {
        "common/pyproject.toml.txt": "pyproject.toml",
        "common/Makefile.txt": "Makefile",
        "common/MANIFEST.in.txt": "MANIFEST.in",
        "common/gitignore.txt": ".gitignore",
        f"{kind}/README.md.txt": "README.md",
        f"{kind}/module.py.txt": f"{module}.py",
        f"{kind}/test.py.txt": f"tests/test_{module}.py",
    }
    folder = folder or Path(PREFIX + name)
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists: choose another --out, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            made = Path(temporary) / "made"  # what is around it is private
            (made / "tests").mkdir(parents=True)
            for template, target in targets.items():
                text = (templates / template).read_text(encoding="utf-8")
                (made / target).write_text(Template(text).substitute(values), encoding="utf-8")
            made.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {reason(error)}") from error
    return folder
