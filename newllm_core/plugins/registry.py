"""What can be plugged in.

newllm's own cells, objectives, regularizers and data sources are registered exactly like anyone's:
see the entry points in `pyproject.toml`.
"""

from newllm_core.plugins.lookup import ALL, Registry

CELLS = Registry(
    kind="cell",
    base="newllm_core.model.cells.base:Cell",
    section="cell",
    command="phase1 --cell {name}",
    check="newllm_core.testing:check_cell",
    needed_for="to use the model",
    summary="A leaky update: some of the context, some of what it and the token say.",
)
OBJECTIVES = Registry(
    kind="objective",
    base="newllm_core.objectives.base:Objective",
    section="objective",
    command="phase1 --objective {name}",
    check="newllm_core.testing:check_objective",
    needed_for="to train like this again (analysis does not need it)",
    summary="The context must tell the token before the last.",
)
REGULARIZERS = Registry(
    kind="regularizer",
    base="newllm_core.regularizers.base:Regularizer",
    section="regularizer",
    command="phase1 --reg {name}",
    check="newllm_core.testing:check_regularizer",
    needed_for="to train like this again (analysis does not need it)",
    summary="Asks every dimension for the same standard deviation.",
    published={"sigreg": "newllm-sigreg", "vicreg": "newllm-sigreg"},
)
DATA_SOURCES = Registry(
    kind="data source",
    base="newllm_core.data.sources.base:DataSource",
    section="source",
    command="prepare --source {name} --input PATH",
    check="newllm_core.testing.data_source:check_making",
    needed_for="to prepare this data again (analysis does not need it)",
    summary="One document per line of a UTF-8 text file.",
)
TRACKERS = Registry(
    kind="tracker",
    base="newllm_core.runtime.trackers.base:Tracker",
    command="phase1 --track {name}",
    published=dict.fromkeys(("mlflow", "trackio", "wandb"), "newllm-trackers"),
)
RECURRENCES = Registry(
    kind="recurrence",
    base="newllm_core.analysis.foreign.base:Foreign",
    command="analyze FILE --as {name}",
    published={"transformers": "newllm-hub"},
)
COMMANDS = Registry(
    kind="command",
    command="{name} --help",
    published={
        **dict.fromkeys(("export", "import", "lm-eval", "pull", "push"), "newllm-hub"),
        "serve": "newllm-serve",
        "sweep": "newllm-sweep",
    },
)
REGISTRIES = (CELLS, OBJECTIVES, REGULARIZERS, DATA_SOURCES, TRACKERS, RECURRENCES, COMMANDS)
ALL[:] = REGISTRIES
