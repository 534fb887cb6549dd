"""One server for all tests that leave it as it is."""

import cases
import pytest

from newllm_core.pipeline.opened import open_checkpoint


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    return cases.write(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def opened(path):
    """The same model, asked directly."""
    return open_checkpoint(path)


@pytest.fixture(scope="session")
def server(path):
    started = cases.serve(path, "--max-texts=20", "--threads=1", "--allow-host=llm.example")
    yield started
    said = set(started.end().splitlines())
    assert said <= {"WARNING:  Invalid HTTP request received."}  # no other warning, no traceback


@pytest.fixture(scope="session")
def client(server):
    with server.client(max_retries=0) as made:
        yield made
