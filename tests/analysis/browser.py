"""A page in a headless Chromium: what it drew, what it said, what it asked for."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Nothing of the browser itself may leave the machine either.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
]
# Runs after the page's own script, moves a pointer over every chart, and leaves its findings.
PROBE = """
<script>
const drawn = {};
for (const svg of document.querySelectorAll("svg.chart")) {
  const lengths = [...svg.querySelectorAll("path.curve")].map((path) => path.getTotalLength());
  const box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true,
  }));
  const tip = svg.closest("figure").querySelector(".tip");
  const colours = [...svg.querySelectorAll("path.curve")].map((p) => getComputedStyle(p).stroke);
  drawn[svg.id] = {lengths, width: box.width, height: box.height, colours,
    tip: tip ? tip.textContent : null};
}
const found = document.createElement("pre");
found.id = "findings";
found.textContent = JSON.stringify({
  drawn,
  resources: performance.getEntriesByType("resource").map((entry) => entry.name),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
});
document.body.append(found);
</script>
"""


def find():
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Findings:
    drawn: dict
    resources: list
    overflow: float
    console: list


def load(html, folder, *, width=1280, dark=False):
    page = folder / "page.html"
    page.write_text(html.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    flags = [*FLAGS, f"--window-size={width},900", f"--user-data-dir={folder / 'profile'}"]
    if dark:
        flags.append("--blink-settings=preferredColorScheme=0")
    run = subprocess.run(
        [find(), *flags, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    text = re.search(r'<pre id="findings">(.*?)</pre>', run.stdout, re.DOTALL)
    assert text, run.stderr[-2000:]
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return Findings(console=console, **json.loads(unescape(text[1])))
