"""The command line: a thin skin over newllm_core. Nothing here imports torch for `--help`."""
