"""What each line of ``doctor`` means and how to mend it, as a document made of the checks: ``docs/doctor.md``.

Pure; run as a program it prints the document.
"""

from __future__ import annotations

import sys

from d365sync.doctor.case import Case
from d365sync.doctor.check import Step
from d365sync.doctor.steps import STEPS

HEAD = """\
# What doctor says

Written by `make docs` from the checks themselves.

`d365sync doctor` looks at everything that a run needs and changes nothing. Each line is OK, WARN or FAIL, what was
found, and what mends it. One that fails hides no other; those that cannot be asked without it say
`not checked: needs …`, and name what to mend first. `--json` gives the lines as one document; `topic` there is the
first column below.

The exit code is the greatest of those of the failures: 1 failed, 2 configuration, 5 try again later, 6 sign-in or
privileges; 0 if nothing failed. With `--strict` a warning counts as a failure (1).

Run it as the user and with the environment of the service: what may be read, and which proxy is used, differ.

| line | what it means | how to mend it |
|---|---|---|
"""


def page() -> str:
    """Return the document."""
    return HEAD + "".join(map(_row, STEPS))


def _row(step: Step[Case]) -> str:
    needs = f" Needs {', '.join(step.needs)}." if step.needs else ""
    return f"| `{step.topic}` | {step.means}{needs} | {step.mend} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
