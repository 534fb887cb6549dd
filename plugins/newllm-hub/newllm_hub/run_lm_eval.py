"""Running tasks of lm-evaluation-harness on a checkpoint."""

import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr
from typing import Any

from newllm_core.errors import ConfigError, InputError, reason
from newllm_core.files.strict_json import finite

SCHEMA = 1
# Of standard errors that have no formula; the harness takes a hundred times as many.
BOOTSTRAP_ITERATIONS = 1000


def run_tasks(
    checkpoint: Path,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int | None = None,
    apply_chat_template: bool = False,
) -> dict[str, Any]:
    """Return what the harness measures, fit for JSON.

    Args:
        checkpoint: whose heads were trained.
        tasks: names, of tasks, groups or tags.
        include_path: a folder with more tasks.
        limit: documents of each task.
        num_fewshot: examples before each question.
        batch_size: see `NewllmLM`.
        apply_chat_template: whether questions are put as messages; examples are then turns.

    Returns:
        `schema`, `checkpoint`, `lm_eval` (its version), `results` by task and metric, `versions` of
        the tasks, and `n-shot` and `n-samples`.

    Raises:
        ConfigError: lm-eval is not installed, or has no such task.
        InputError: the checkpoint cannot be used, or a task's data cannot be had.
    """
    try:
        from datasets.exceptions import DatasetsError
        from lm_eval import __version__, simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError("lm-eval is not installed: pip install 'newllm-hub[lm-eval]'") from error
    from newllm_hub.lm_eval import NewllmLM

    if include_path is not None and not include_path.is_dir():
        raise InputError(f"{include_path} is no folder of tasks")
    given: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
    with redirect_stdout(stderr):  # stdout is for the result
        logging.getLogger("lm_eval").setLevel(logging.WARNING)
        manager = TaskManager(include_path=None if include_path is None else str(include_path))
        unknown = [name for name in tasks if name not in manager.task_index]
        if unknown:
            raise ConfigError(
                f"lm-eval has no task {unknown[0]}: lm-eval ls tasks lists those it has, and "
                "--include-path FOLDER adds yours"
            )
        model = NewllmLM(str(checkpoint), **given)
        try:
            found = simple_evaluate(
                model=model,
                tasks=list(tasks),
                num_fewshot=num_fewshot,
                apply_chat_template=apply_chat_template,
                fewshot_as_multiturn=apply_chat_template and bool(num_fewshot),
                limit=limit,
                task_manager=manager,
                bootstrap_iters=BOOTSTRAP_ITERATIONS,
                log_samples=False,
            )
        except (OSError, DatasetsError) as error:  # no such file, or no network
            raise InputError(f"cannot load data of {', '.join(tasks)}: {reason(error)}") from error
    assert found is not None  # but in other processes than the first
    kept = {key: found.get(key, {}) for key in ("results", "versions", "n-shot", "n-samples")}
    report = {"schema": SCHEMA, "checkpoint": str(checkpoint), "lm_eval": __version__, **kept}
    return dict(finite(report))
