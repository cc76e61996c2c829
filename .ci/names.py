"""Fail if two modules or two classes of the package have the same name: a name must make sense alone."""

import ast
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "python" / "flowyml"


def main() -> str | None:
    """Return a message with all names that are used twice, or None."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE.parent)
        if not file.stem.startswith("__"):
            places[f"module {file.stem}"].append(str(path))
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ClassDef):
                places[f"class {node.name}"].append(f"{path}:{node.lineno}")
    doubles = [f"{name} exists {len(at)} times: {', '.join(at)}" for name, at in places.items() if len(at) > 1]
    return "\n".join(doubles) or None


if __name__ == "__main__":
    sys.exit(main())
