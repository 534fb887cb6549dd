"""Context-vector language models: model, training, analysis. Importing this loads no torch."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("newllm")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0"
