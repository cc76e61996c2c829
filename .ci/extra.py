"""Print the requirements of extras in pyproject.toml, one a line: `extra.py test lint`.

They are read from the file and not asked for as `flowyml[test]`, because an index has another package of that name.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
for extra in sys.argv[1:]:
    print(*project["optional-dependencies"][extra], sep="\n")
