"""Model folders on the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from newllm_core.errors import ConfigError, InputError, reason
from newllm_hub import folder
from newllm_hub.export import export_folder, refuse_to_replace


def push_checkpoint(
    path: Path,
    name: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    **of_export: Any,  # noqa: ANN401
) -> dict[str, int]:
    """Export a checkpoint and upload the folder as the model `name`; return its files' sizes.

    Args:
        path: of a checkpoint whose head was trained.
        name: USER/MODEL.
        private: make a new repository private.
        dry_run: make the files, and upload nothing.
        **of_export: see `export_folder`.

    Raises:
        ConfigError: no such name can be.
        InputError: the checkpoint cannot be exported, or the hub refuses.
    """
    _require_name(name)
    with TemporaryDirectory() as temporary:
        made = Path(temporary) / "model"
        export_folder(path, made, name=name.rpartition("/")[2], **of_export)
        sizes = {file: (made / file).stat().st_size for file in folder.FILES}
        if not dry_run:
            with _one_line(f"cannot push to {name}"):
                api = HfApi()
                api.create_repo(name, private=private, exist_ok=True)
                api.upload_folder(
                    repo_id=name, folder_path=made, commit_message=f"Export {path.name}"
                )
    return sizes


def pull_folder(
    name: str, to: Path, *, revision: str | None = None, overwrite: bool = False
) -> None:
    """Download the model folder `name` to `to`: the files that `newllm export` writes.

    Raises:
        ConfigError: no such name can be.
        InputError: `to` is in the way, the hub has no such model or it is none of newllm's.
    """
    _require_name(name)
    refuse_to_replace(to, overwrite=overwrite)
    with _one_line(f"cannot pull {name}"):
        is_ours = folder.COMPANION in HfApi().list_repo_files(name, revision=revision)
        if is_ours:
            snapshot_download(
                name, revision=revision, local_dir=to, allow_patterns=list(folder.FILES)
            )
    if not is_ours:
        raise InputError(f"{name} has no {folder.COMPANION}: it was not written by newllm export")


def _require_name(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"{name} is no name of a model on the hub: give USER/MODEL") from error


@contextmanager
def _one_line(failed: str) -> Iterator[None]:
    """Turn whatever the client raises into a user's error: network, permission, absence."""
    try:
        yield
    except Exception as error:  # its own types, the network library's, and the system's
        raise InputError(
            f"{failed}: {reason(error)} (newllm needs the network and, to push, hf auth login)"
        ) from error
