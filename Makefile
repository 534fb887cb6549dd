PYTHON ?= python3
VENV ?= .venv

quickstart: $(VENV)/installed
	$(VENV)/bin/newllm quickstart

serve: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt ./plugins/newllm-serve
	$(VENV)/bin/newllm serve runs/quickstart/heads.safetensors

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest

check: $(VENV)/installed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs: $(VENV)/installed
	$(VENV)/bin/python -m mkdocs build --strict

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: quickstart serve test check docs
