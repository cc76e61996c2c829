"""Downloads side by side, from a server that fails now and then: retries, checksums, a summary.

The program starts the server itself, in a thread, on a free port of the loopback interface. It serves modules of
Python's standard library, and is as unreliable as a seed says: some requests are answered with 503, some late, some
with a spoiled file. One coroutine asks for the catalogue, then each file is an item of a map: fetched, compared with
its checksum, tried again after a growing delay with jitter. A last step sums up.

    python examples/downloads.py                           # 150 files, 50 at once in one event loop
    python examples/downloads.py --small --backend thread  # 20 files; the same coroutines on threads
    python examples/downloads.py --failing 0.6             # a bad day
    python examples/downloads.py --folder modules          # keep the files

It prints how many files and bytes arrived, how many attempts that took, and what the server did to them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import aiohttp

from flowyml import ExponentialBackoff, LocalExecutor, ParallelExecutor, Pipeline, context, retry, step

if TYPE_CHECKING:
    from collections.abc import Iterator

# ---- the pipeline --------------------------------------------------------------------------------------------------


class SpoiledError(Exception):
    """A file arrived and has another checksum than the catalogue says."""


class Download(NamedTuple):
    """A file that arrived."""

    path: Path
    size: int


patient = retry(
    max_attempts=20,
    backoff=ExponentialBackoff(initial=0.02, max_delay=0.5, jitter=True),
    on=[aiohttp.ClientError, SpoiledError],
)


async def fetched(url: str) -> bytes:
    """Return what a server answers; anything but 200 is an error."""
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as answer:
        return await answer.read()


@step(retry=patient)
async def catalogue(url: str) -> list[tuple[str, str]]:
    """Ask the server for the names of its files, and their checksums."""
    return [tuple(entry) for entry in json.loads(await fetched(f"{url}/catalogue.json"))]


@step(retry=patient)
async def download(entry: tuple[str, str], url: str, folder: Path) -> Download:
    """Fetch a file, look at its checksum, write it into the folder."""
    name, checksum = entry
    content = await fetched(f"{url}/{name}")
    if hashlib.sha256(content).hexdigest() != checksum:
        raise SpoiledError(name)
    (folder / name).write_bytes(content)
    return Download(folder / name, len(content))


@step(outputs=["size", "longest"])
def summary(download: list[Download]) -> tuple[int, str]:
    """Add up the sizes, find the largest file."""
    return sum(each.size for each in download), max(download, key=lambda each: each.size).path.name


def download_pipeline(url: str, folder: Path) -> Pipeline:
    """Build the pipeline: how many files there are is in the catalogue."""
    pipeline = Pipeline("downloads", context=context(url=url, folder=folder))
    return pipeline.add_step(catalogue).map(download, over="catalogue").add_step(summary)


# ---- the server ----------------------------------------------------------------------------------------------------


class UnreliableServer(ThreadingHTTPServer):
    """Serves files; what it does to the nth request for one of them follows from the seed.

    Args:
        files: What to serve.
        failing: The share of requests that do not go well.
        seed: Another seed, other failures.
    """

    request_queue_size = 128  # five by default: many connections at once would be refused and come again seconds later

    def __init__(self, files: dict[str, bytes], failing: float, seed: int) -> None:
        """Take a free port."""
        super().__init__(("127.0.0.1", 0), Answer)
        sums = [(name, hashlib.sha256(content).hexdigest()) for name, content in files.items()]
        self.files = {"catalogue.json": json.dumps(sums).encode(), **files}
        self.failing, self.seed = failing, seed
        self.asked: Counter[str] = Counter()
        self.moods: Counter[str] = Counter()
        self.counting = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def mood(self, name: str) -> str:
        """Choose what happens to this request."""
        with self.counting:
            self.asked[name] += 1
            dice = random.Random(f"{self.seed} {name} {self.asked[name]}")
            mood = dice.choice(["unavailable", "slow", "spoiled"]) if dice.random() < self.failing else "good"
            self.moods[mood] += 1
        return mood


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: UnreliableServer

    def do_GET(self) -> None:
        """Answer well, late, with garbage, or not at all."""
        name = self.path.removeprefix("/")
        mood = self.server.mood(name)
        time.sleep(0.5 if mood == "slow" else 0.02)
        if mood == "unavailable":
            self.send_error(503)
            return
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.swapcase() if mood == "spoiled" else content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(files: dict[str, bytes], failing: float, seed: int) -> Iterator[UnreliableServer]:
    """Serve files as long as the `with` block lasts."""
    with UnreliableServer(files, failing, seed) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def modules(most: int) -> dict[str, bytes]:
    """Return some modules of the standard library by file name."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return {path.name: path.read_bytes() for path in paths[:most]}


# ---- the program ---------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Read the options, start the server, download everything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="async", choices=["local", "thread", "process", "async"])
    parser.add_argument("--workers", type=int, default=50, help="how many downloads at once (processes: 2)")
    parser.add_argument("--small", action="store_true", help="20 files only")
    parser.add_argument("--failing", type=float, default=0.2, help="the share of requests that do not go well")
    parser.add_argument("--seed", type=int, default=0, help="of the server's failures and of the jitter")
    parser.add_argument("--folder", type=Path, help="where the files go; by default they are thrown away")
    options = parser.parse_args(arguments)

    many = {"max_workers": 2 if options.backend == "process" else options.workers, "backend": options.backend}
    executor = LocalExecutor() if options.backend == "local" else ParallelExecutor(**many)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    kept = nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory()
    files = modules(20 if options.small else 150)
    with serving(files, options.failing, options.seed) as server, executor, kept as folder:
        pipeline = download_pipeline(server.url, Path(folder))
        result = pipeline.run(executor=executor, seed=options.seed, raise_on_failure=True)

    told = ", ".join(f"{times} {mood}" for mood, times in server.moods.most_common())
    attempts = sum(item.attempts for item in result.step_results["download"].items)
    print(f"{len(result['download'])} files, {result['size']:,} bytes, the largest is {result['longest']}")
    print(f"{attempts} attempts in {result.duration_seconds:.2f} s; requests: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
