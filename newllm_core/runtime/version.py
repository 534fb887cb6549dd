"""Which newllm this is."""

from importlib.metadata import PackageNotFoundError, version


def newllm_version() -> str:
    """Look up the version that is installed."""
    try:
        return version("newllm")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0"
