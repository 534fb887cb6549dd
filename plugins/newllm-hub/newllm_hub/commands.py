"""The commands: each is registered in the group `newllm.commands`."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.options import OverwriteOption

TrainedArgument = Annotated[
    Path, typer.Argument(help="Checkpoint whose heads were trained.", metavar="CHECKPOINT")
]
LicenseOption = Annotated[
    str | None,
    typer.Option("--license", help="For the model card, as the hub spells it: apache-2.0."),
]
LanguageOption = Annotated[
    list[str] | None, typer.Option("--language", help="For the model card: en. Repeatable.")
]
AnalysisOption = Annotated[
    bool,
    typer.Option(help="Measure the health of the memory for the model card; a minute or so."),
]


def export(
    checkpoint: TrainedArgument,
    to: Annotated[Path, typer.Option(help="Model folder to write.")],
    license_id: LicenseOption = None,
    language: LanguageOption = None,
    analysis: AnalysisOption = True,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model folder that Transformers loads without newllm.

    It has the weights, one file of code, the tokenizer, a model card, and what import needs to make
    the checkpoint again.

    Examples:
        newllm export runs/phase2.safetensors --to model

        newllm export runs/phase2.safetensors --to model --license apache-2.0 --language en
    """
    from newllm_cli.progress import StderrProgress
    from newllm_hub.export import export_folder

    files = export_folder(
        checkpoint,
        to,
        overwrite=overwrite,
        analysis=analysis,
        license_id=license_id,
        languages=language or (),
        progress=StderrProgress(),
    )
    print(f"{to}: {', '.join(files)}")


def import_folder(
    folder: Annotated[Path, typer.Argument(help="Model folder.", metavar="FOLDER")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write.")],
    overwrite: OverwriteOption = False,
) -> None:
    """Make a checkpoint of a folder that export wrote, or that Transformers saved of it.

    With the weights as they were exported it is the checkpoint that was exported. After training in
    Transformers it has the new weights and no results.

    Examples:
        newllm import model --out runs/again.safetensors
    """
    from newllm_hub.import_folder import import_checkpoint

    checkpoint = import_checkpoint(folder, out, overwrite=overwrite)
    trained = checkpoint.provenance.get("trained_outside")
    print(f"{out}: {'trained outside of newllm' if trained else 'as it was exported'}")


def push(
    checkpoint: TrainedArgument,
    name: Annotated[str, typer.Argument(help="On the hub.", metavar="USER/MODEL")],
    private: Annotated[bool, typer.Option("--private", help="If it is a new model.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files.")] = False,
    license_id: LicenseOption = None,
    language: LanguageOption = None,
    analysis: AnalysisOption = True,
) -> None:
    """Export a checkpoint and upload the folder to the Hugging Face hub.

    Log in first: hf auth login.

    Examples:
        newllm push runs/phase2.safetensors me/my-model --dry-run

        newllm push runs/phase2.safetensors me/my-model --license apache-2.0
    """
    from newllm_cli.progress import StderrProgress
    from newllm_hub.hub import push_checkpoint

    sizes = push_checkpoint(
        checkpoint,
        name,
        private=private,
        dry_run=dry_run,
        analysis=analysis,
        license_id=license_id,
        languages=language or (),
        progress=StderrProgress(),
    )
    for file, size in sizes.items():
        print(f"{size:>12,}  {file}")
    print(f"nothing was uploaded to {name}" if dry_run else f"https://huggingface.co/{name}")


def pull(
    name: Annotated[str, typer.Argument(help="On the hub.", metavar="USER/MODEL")],
    to: Annotated[Path, typer.Option(help="Folder to write.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Download a model folder from the Hugging Face hub, for import or for Transformers.

    Examples:
        newllm pull me/my-model --to model
    """
    from newllm_hub.hub import pull_folder

    pull_folder(name, to, revision=revision, overwrite=overwrite)
    print(to)
