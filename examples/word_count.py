"""Which words does the Python language reference use? A map-reduce over thousands of small text files.

The reference ships with every interpreter, as the texts of `help()`. Each of its paragraphs becomes a file of its own,
some 2,600 of them. A first step lists the folder, a map counts the words of each file, a reduce adds up the counts.

    python examples/word_count.py                           # all paragraphs, on process workers
    python examples/word_count.py --small --backend thread  # the first 300
    python examples/word_count.py --folder notes            # the .txt files of another folder

It prints how many files and words there were, and the words of at least four letters that stand there most often.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, context, step

if TYPE_CHECKING:
    from collections.abc import Iterator


@step
def files(folder: Path) -> list[Path]:
    """List the text files."""
    return sorted(folder.glob("*.txt"))


@step
def count(path: Path) -> Counter[str]:
    """Count the words of one file."""
    return Counter(re.findall(r"[a-z]+", path.read_text(encoding="utf-8").lower()))


@step
def total(count: Iterator[Counter[str]]) -> Counter[str]:
    """Add up the counts of all files: an `Iterator` hands them over one at a time, and holds none of them."""
    words: Counter[str] = Counter()
    for each in count:
        words.update(each)
    return words


@step
def frequent(total: Counter[str], letters: int) -> list[tuple[str, int]]:
    """Choose the twenty words of at least so many letters that stand there most often."""
    long = [(word, times) for word, times in total.items() if len(word) >= letters]
    return sorted(long, key=lambda each: (-each[1], each[0]))[:20]


def word_count_pipeline(folder: Path, letters: int = 4) -> Pipeline:
    """Build the pipeline: how many files there are is known when it runs."""
    pipeline = Pipeline("word_count", context=context(folder=folder, letters=letters))
    return pipeline.add_step(files).map(count, over="files").add_steps([total, frequent])


def write_paragraphs(folder: Path, most: int | None) -> None:
    """Write each paragraph of the language reference into a file."""
    paragraphs = [text for topic in topics.values() for text in topic.split("\n\n") if text.strip()]
    for number, text in enumerate(paragraphs[:most]):
        (folder / f"paragraph_{number:04}.txt").write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the files, run the pipeline."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="process", choices=["local", "thread", "process", "async"])
    parser.add_argument("--workers", type=int, default=2, help="how many workers")
    parser.add_argument("--small", action="store_true", help="300 paragraphs only")
    parser.add_argument("--folder", type=Path, help="a folder with .txt files, instead of the language reference")
    options = parser.parse_args(arguments)

    many = {"max_workers": options.workers, "backend": options.backend}
    executor = LocalExecutor() if options.backend == "local" else ParallelExecutor(**many)
    made = nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory()
    with executor, made as folder:
        if not options.folder:
            write_paragraphs(Path(folder), 300 if options.small else None)
        result = word_count_pipeline(Path(folder)).run(executor=executor, raise_on_failure=True)

    words = result["total"]
    print(f"{len(result['files']):,} files, {words.total():,} words, {len(words):,} different ones")
    for word, times in result["frequent"]:
        print(f"  {times:>6,} {word}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
