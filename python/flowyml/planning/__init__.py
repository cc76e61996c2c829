"""From the table of added steps to a validated plan: bindings, dependencies, item counts. Knows no runs."""
