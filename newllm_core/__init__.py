"""Context-vector language models: model, training, analysis. Importing this loads no torch."""

from typing import Any


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the protocol of modules
    """`__version__`, looked up when asked for: reading metadata is slow beside `--help`."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("newllm")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0"
