"""The commands: each is registered in the group `newllm.commands`."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.commands.evaluate import TrainedArgument
from newllm_cli.options import (
    JsonOption,
    OverwriteOption,
    PluginOption,
    use_plugin_files,
)

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
    plugin_files: PluginOption = None,
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

    use_plugin_files(plugin_files)
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
    Transformers it has the new weights and no figures.

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
    plugin_files: PluginOption = None,
) -> None:
    """Export a checkpoint and upload the folder to the Hugging Face hub.

    Log in first: hf auth login.

    Examples:
        newllm push runs/phase2.safetensors me/my-model --dry-run

        newllm push runs/phase2.safetensors me/my-model --license apache-2.0
    """
    from newllm_cli.progress import StderrProgress
    from newllm_hub.hub import push_checkpoint

    use_plugin_files(plugin_files)
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


def lm_eval(
    checkpoint: TrainedArgument,
    tasks: Annotated[str, typer.Option(help="Names of tasks, groups or tags: a,b,…")],
    include_path: Annotated[
        Path | None, typer.Option(help="Folder with tasks of your own.", metavar="FOLDER")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Documents of each task.", metavar="INTEGER", min=1)
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(help="Examples before each question.", metavar="INTEGER", min=0)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Requests that are read side by side.", metavar="INTEGER", min=1),
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Put questions as messages of a chat.")
    ] = False,
    plugin_files: PluginOption = None,
    json: JsonOption = False,
) -> None:
    """Run tasks of lm-evaluation-harness on a checkpoint (extra: lm-eval).

    Examples:
        newllm lm-eval runs/phase2.safetensors --tasks wikitext

        newllm lm-eval runs/phase2.safetensors --tasks mine --include-path tasks --json
    """
    from newllm_cli.output import console, print_json
    from newllm_hub.run_lm_eval import run_tasks

    use_plugin_files(plugin_files)
    report = run_tasks(
        checkpoint,
        [name for name in tasks.split(",") if name],
        include_path=include_path,
        limit=limit,
        num_fewshot=num_fewshot,
        batch_size=batch_size,
        apply_chat_template=apply_chat_template,
    )
    if json:
        print_json(report)
        return
    from rich.table import Table

    table = Table("task", "metric", "value", "stderr")
    for task, figures in report["results"].items():
        for metric, value in figures.items():
            name, _, of = metric.partition(",")
            if isinstance(value, float) and not name.endswith("_stderr"):
                error = figures.get(f"{name}_stderr,{of}")
                shown = f"{error:.4g}" if isinstance(error, float) else "-"
                table.add_row(task, name, f"{value:.6g}", shown)
    console().print(table)
