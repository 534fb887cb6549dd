"""Names of a checkpoint and of what lies beside it."""

from pathlib import Path

from newllm_core.errors import ConfigError

SUFFIX = ".safetensors"


def require_checkpoint_name(path: Path) -> None:
    """Raise `ConfigError` unless `path` ends in `.safetensors`.

    `plain` and `plain.safetensors` would have the same files beside them.
    """
    if path.suffix != SUFFIX:
        raise ConfigError(f"a checkpoint is a {SUFFIX} file: pass --out {path}{SUFFIX}")


def beside(checkpoint: Path, ending: str) -> Path:
    """Return the path of `NAME.ending` beside the checkpoint `NAME.safetensors`."""
    return checkpoint.with_name(f"{checkpoint.name.removesuffix(SUFFIX)}.{ending}")
