"""Tokens per second of one client and of many, over HTTP; memory of idle sessions.

python benchmarks/throughput.py [CHECKPOINT]: without one, an untrained `tiny` of 8,192 tokens.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import cases

TOKENS = 128


def tokens_per_second(server: cases.Server, clients: int, requests: int) -> float:
    """Let every client ask `requests` times for 128 tokens, one after the other."""
    made = [0] * clients
    begun = threading.Barrier(clients + 1)

    def ask(place: int) -> None:
        with server.client() as client:
            client.models.list()
            begun.wait()
            for _ in range(requests):
                reply = client.completions.create(
                    model="model", prompt="the cat", max_tokens=TOKENS, temperature=0
                )
                made[place] += reply.usage.completion_tokens

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    begun.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(made) / (time.perf_counter() - start)


def resident(server: cases.Server) -> float:
    """Return MB of memory."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--sessions", type=int, default=0, help="make so many, and measure memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.checkpoint or cases.write(folder, tiny())
        server = cases.serve(path)
        try:
            tokens_per_second(server, 2, 2)
            for _ in range(3):
                one = tokens_per_second(server, 1, 6)
                many = tokens_per_second(server, 64, 6)
                print(f"one {one:.0f}/s, 64 {many:.0f}/s: {many / one:.2f} times", flush=True)
            if given.sessions:
                idle_sessions(server, given.sessions)
        finally:
            server.kill()


def tiny() -> object:
    """Make an untrained `tiny` whose texts seldom end."""
    return cases.make(vocab_size=8192, context_dim=256, embed_dim=256, layer_structure=[1, 1])


def idle_sessions(server: cases.Server, count: int) -> None:
    """Open so many sessions, and say how memory grew."""
    before = resident(server)
    numbers = iter(range(count))

    def open_some() -> None:
        with server.client() as client:
            for number in numbers:
                client.completions.create(
                    model="model", prompt="a", max_tokens=1, extra_body={"session": str(number)}
                )

    threads = [threading.Thread(target=open_some) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{count:,} sessions: {resident(server) - before:.1f} MB more than {before:.0f} MB")


if __name__ == "__main__":
    main()
