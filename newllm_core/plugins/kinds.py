"""What can be plugged in: a kind is a group of entry points, a base class and a check."""

from dataclasses import dataclass


class ConformanceError(AssertionError):
    """A plugin does not keep its contract; the message has one line for each way.

    Attributes:
        failures: those lines.
    """

    def __init__(self, where: str, failures: list[str]) -> None:
        super().__init__("\n  ".join([f"{where} fails {len(failures)} check(s):", *failures]))
        self.failures = failures


@dataclass(frozen=True)
class Kind:
    """One kind of plugin. A kind of functions has none of what is "" here.

    Attributes:
        name: in messages.
        group: of entry points.
        base: `module:class` of what a plugin extends.
        package: where newllm's own are.
        section: of the configuration, which holds the options.
        command: how it is used.
        check: `module:function` that holds a class to its contract, as far as that needs no input;
            raises `ConformanceError`.
        needed_for: what cannot be done without it.
        summary: what the class that `newllm plugins new` writes does.
    """

    name: str
    group: str
    package: str
    command: str
    needed_for: str
    base: str = ""
    section: str = ""
    check: str = ""
    summary: str = ""

    @property
    def slug(self) -> str:
        """Return the name as `--kind` takes it."""
        return self.name.replace(" ", "-")


REGULARIZER = Kind(
    name="regularizer",
    group="newllm.regularizers",
    base="newllm_core.regularizers.base:Regularizer",
    package="newllm_core.regularizers",
    section="regularizer",
    command="phase1 --reg {name}",
    check="newllm_core.testing:check_regularizer",
    needed_for="to train like this again (analysis does not need it)",
    summary="Asks every dimension for the same standard deviation.",
)
DATA_SOURCE = Kind(
    name="data source",
    group="newllm.data_sources",
    base="newllm_core.data.sources.base:DataSource",
    package="newllm_core.data.sources",
    section="source",
    command="prepare --source {name} --input PATH",
    check="newllm_core.testing.data_source:check_making",
    needed_for="to prepare this data again (analysis does not need it)",
    summary="One document per line of a UTF-8 text file.",
)
CELL = Kind(
    name="cell",
    group="newllm.cells",
    base="newllm_core.model.cells.base:Cell",
    package="newllm_core.model.cells",
    section="cell",
    command="phase1 --cell {name}",
    check="newllm_core.testing:check_cell",
    needed_for="to use the model",
    summary="A leaky update: some of the context, some of what it and the token say.",
)
OBJECTIVE = Kind(
    name="objective",
    group="newllm.objectives",
    base="newllm_core.objectives.base:Objective",
    package="newllm_core.objectives",
    section="objective",
    command="phase1 --objective {name}",
    check="newllm_core.testing:check_objective",
    needed_for="to train like this again (analysis does not need it)",
    summary="The context must tell the token before the last.",
)
TRACKER = Kind(
    name="tracker",
    group="newllm.trackers",
    base="newllm_core.runtime.trackers.base:Tracker",
    package="newllm_core.runtime.trackers",
    command="phase1 --track {name}",
    needed_for="to show figures there",
)
RECURRENCE = Kind(
    name="recurrence",
    group="newllm.recurrences",
    base="newllm_core.analysis.foreign.base:Foreign",
    package="newllm_core.analysis.foreign",
    command="analyze FILE --as {name}",
    needed_for="to open such networks",
)
KINDS = (CELL, OBJECTIVE, REGULARIZER, DATA_SOURCE, TRACKER, RECURRENCE)
COMMAND = Kind(
    name="command",
    group="newllm.commands",
    package="newllm_cli.commands",
    command="{name}",
    needed_for="to use it",
)
