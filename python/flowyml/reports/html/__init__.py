"""The page of a run: one HTML file that needs nothing else, no script, no network.

```
Facts (numbers, names, a timeline, a picture of the graph) ──page()──▶ pieces of HTML
    lanes.py   bars for each worker, folded       gantt.py   their picture
    tables.py  tables and words, escaped          style.py   light, dark, narrow
```

Written by hand and not with a template engine: the page is a dozen short functions, and nobody has to install anything
to get it. Values of steps are not in it, only names, times and errors.
"""

from flowyml.reports.html.page import FailureRow, FunctionRow, ReportData, StepRow, page

__all__ = ["FailureRow", "FunctionRow", "ReportData", "StepRow", "page"]
