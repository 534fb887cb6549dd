"""The page in a real browser: two turns, and what it shows of the state."""

import asyncio
import queue
import shutil
import subprocess
import threading

import pytest
import uvicorn
from newllm_serve.app import make_app
from newllm_serve.limits import Limits
from newllm_serve.service import Service
from newllm_serve.sessions import Sessions
from starlette.responses import HTMLResponse
from starlette.routing import Route
from test_openai import directly

from newllm_core.config import GenerationConfig

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr"]
# Talks as a person does, and leaves what is to be seen.
PROBE = """
<script>
(async () => {
  const wait = async (done) => { while (!done()) await new Promise((r) => setTimeout(r, 20)); };
  const at = (id) => document.getElementById(id);
  await wait(() => at("numbers").textContent !== "–");
  for (const text of ["the cat", "<b>the dog</b>"]) {
    at("text").value = text;
    at("form").requestSubmit();
    await wait(() => at("send").disabled);
    await wait(() => !at("send").disabled);
  }
  const canvas = at("vector");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const found = {
    lines: [...document.querySelectorAll("#talk p")].map((p) => [p.className, p.textContent]),
    tokens: at("tokens").textContent, norm: at("norm").textContent, drift: at("drift").textContent,
    numbers: at("numbers").textContent, norms: at("norms").getAttribute("points"),
    painted: pixels.filter((v, i) => i % 4 === 3 && v > 0).length,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    asked: performance.getEntriesByType("resource").map((entry) => new URL(entry.name).pathname),
    session,
  };
  await fetch("/found", { method: "POST", body: JSON.stringify(found) });
})();
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
def test_talking_and_watching(opened, tmp_path):
    options = GenerationConfig(temperature=0, max_tokens=12)
    kept = Sessions(tmp_path / "kept", opened.checkpoint, opened.tokenizer, 10)
    service = Service("m", opened.checkpoint, opened.tokenizer, options, Limits(), kept)
    app = make_app(service, ["*"])
    page = next(route for route in app.routes if route.path == "/").endpoint

    async def probed(request):
        html = (await page(request)).body.decode()
        return HTMLResponse(html.replace("</body>", PROBE + "</body>"))

    findings = queue.Queue()

    async def receive(request):
        findings.put(await request.json())
        return HTMLResponse("")

    app.routes[:0] = [Route("/probed", probed), Route("/found", receive, methods=["POST"])]
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/probed"
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", url]
        with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stderr=log) as browser:
            try:
                found = findings.get(timeout=100)
            finally:
                browser.terminate()
    finally:
        server.should_exit = True
        thread.join()
    said = ["the cat", "<b>the dog</b>"]
    replies = directly(opened, *said)
    expected = [
        [*pair]
        for text, reply in zip(said, replies, strict=True)
        for pair in (("you", text), ("model", reply))
    ]
    assert found["lines"] == expected
    state = asyncio.run(service.look_at(found["session"]))
    assert found["tokens"] == str(state["num_tokens"])
    assert found["norm"] == f"{state['norm']:.3f}"
    assert float(found["drift"]) > 0
    assert found["numbers"] == str(opened.model.context_dim)
    assert len(found["norms"].split()) == 2
    assert found["painted"] >= opened.model.context_dim - 1
    assert found["overflow"] <= 0
    assert {path.split("/")[1] for path in found["asked"]} <= {"v1"}  # nothing from elsewhere
    assert "CONSOLE" not in (tmp_path / "log").read_text()
