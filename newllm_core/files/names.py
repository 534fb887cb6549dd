"""Names of a checkpoint and of what lies beside it, and as a command line has them."""

import os
import shlex
from pathlib import Path

from newllm_core.errors import ConfigError
from newllm_core.files.atomic import refuse_existing

SUFFIX = ".safetensors"


def require_checkpoint_place(path: Path, *, overwrite: bool) -> None:
    """Refuse before the work a place where no checkpoint can be written.

    `ConfigError` for a name without `.safetensors`, `InputError` for what is in the way.
    """
    # `plain` and `plain.safetensors` would have the same files beside them.
    if path.suffix != SUFFIX:
        name = path / "model" if os.path.isdir(path) else path
        raise ConfigError(f"a checkpoint is a {SUFFIX} file: pass --out {name}{SUFFIX}")
    refuse_existing(path, overwrite=overwrite)


def refuse_source(path: Path, out: Path) -> None:
    """Raise `ConfigError` where `out` would replace the checkpoint `path` that is read."""
    if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
        raise ConfigError(f"{out} is the checkpoint that is read: choose another file to write")


def beside(checkpoint: Path, ending: str) -> Path:
    """Return the path of `NAME.ending` beside the checkpoint `NAME.safetensors`."""
    return checkpoint.with_name(f"{checkpoint.name.removesuffix(SUFFIX)}.{ending}")


def quoted(path: str | Path) -> str:
    """Return a path as a shell takes it for one word, and a command for no option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))
