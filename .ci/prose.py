"""Count turns of phrase that the documentation avoids, in docstrings, comments, messages and Markdown files.

`prose.py` fails if a count is above its limit in prose-limits.json; `prose.py --lower` lowers the limits to the
counts. `prose.py PATH ...` lists the places in these files and directories, for the person who edits them.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

LIMITS = Path(__file__).with_name("prose-limits.json")
# What to write instead, and the pattern, in which a space matches any white space.
PHRASES = {
    "name the thing instead of 'what is', 'what has', 'what comes'": (
        r"what (is|are|was|were|has|have|had|comes?|came|goes|it|they|steps?|an?|the|of|there|ends?|runs?|stays?|may"
        r"|must|can|cannot|needs?|follows?)"
    ),
    "'if' for conditions instead of 'where there is'": (
        r"where (there (is|are|was|were)|that is|this is|it is not|nobody|nothing|none|possible|one can|no)"
    ),
    "'return True if' instead of 'tell whether'": (
        r"(tells?|told|telling|says?|said|saying) (whether|what|which|who|why|how|where|so|nothing)|^whether"
    ),
    "name the component instead of 'nobody', 'whoever'": r"nobody|somebody|anybody|everybody|whoever",
    "repeat the noun instead of 'those that', 'all that'": r"(those|all) (that|who|which|whose|of which)",
    "'is notified', 'is called with', instead of 'is told', 'is asked'": (
        r"(is|are|was|were|be|been|being|gets?) (told|asked)"
    ),
    "'comes from' and 'comes with': use a verb": r"(comes?|came) (of|from|with|to|back)",
    "'next to', 'in addition to' instead of 'beside'": r"beside",
    "'continues' instead of 'goes on'": r"(goes|went|going|go|gone) on",
    "'everything else', 'other' instead of 'all else', 'nothing else'": r"(all|what|nothing|whatever) else",
    "'releases' instead of 'lets go of'": r"(lets?|letting) go|let_go",
    "'again', 'also' instead of 'anew', 'likewise', 'all the same'": r"anew|likewise|all the same",
    "'permanently' instead of 'for good'": r"for good",
    "'is in', 'is stored in' instead of 'stands in', 'lies in'": r"(stands?|stood|standing|lies|lie|lying) in",
    "'string', 'directory', 'integer'": r"texts|a text|folders?|whole numbers?",
    "'at most', 'within', 'manually', 'itself'": r"at the (most|latest|least)|by hand|on its own account",
    "'is not a' instead of 'is no'": r"(is|are|was|were) no",
}
PATTERNS = {
    advice: re.compile(rf"\b(?:{pattern.replace(' ', chr(92) + 's+')})\b", re.IGNORECASE)
    for advice, pattern in PHRASES.items()
}


def sources(paths: list[Path]) -> Iterator[Path]:
    """Yield the Python and Markdown files that are checked."""
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix in {".py", ".pyi", ".md"})
        else:
            yield path


def passages(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the prose of a file in pieces, each with the number of its first line."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        yield 1, re.sub(r"^```.*?^```", lambda code: "\n" * code[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    yield from comments(text)


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments of a Python source, those of adjacent lines as one."""
    block: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] != first + len(block):
                yield first, "\n".join(block)
                block = []
            if not block:
                first = token.start[0]
            block.append(token.string.lstrip("# "))
    if block:
        yield first, "\n".join(block)


def findings(paths: list[Path]) -> dict[str, list[str]]:
    """Return the places of each phrase, apart for Python and for Markdown."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in sources(paths):
        kind = "Markdown" if file.suffix == ".md" else "Python"
        for line, prose in passages(file):
            for advice, pattern in PATTERNS.items():
                for match in pattern.finditer(prose):
                    at = line + prose.count("\n", 0, match.start())
                    around = " ".join(prose[max(0, match.start() - 30) : match.end() + 30].split())
                    places[f"{kind}: {advice}"].append(f"{file}:{at}: {around}")
    return places


def show(places: dict[str, list[str]]) -> None:
    """Print the places of each phrase."""
    for advice, lines in places.items():
        print(f"{advice}: {len(lines)}", *lines, sep="\n    ")


def main(arguments: list[str]) -> int:
    """List the places in the given paths, or compare all of them with the limits."""
    lower = arguments == ["--lower"]
    if arguments and not lower:
        show(findings([Path(path) for path in arguments]))
        return 0
    places = findings([ROOT / "python" / "flowyml", ROOT / "docs", ROOT / "README.md"])
    limits = json.loads(LIMITS.read_text())
    over = {advice: lines for advice, lines in places.items() if len(lines) > limits.get(advice, 0)}
    if over:
        show(over)
        print("The limits:", *(f"{advice}: {limits.get(advice, 0)}" for advice in over), sep="\n    ")
    if lower:
        counts = {advice: min(limit, len(places[advice])) for advice, limit in limits.items()}
        LIMITS.write_text(json.dumps(counts, indent=2) + "\n")
    return bool(over)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
