"""``python -m d365sync.service FOLDER`` writes the files shipped for service managers; `make docs` keeps them.

IO: files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from d365sync.service.units import SHIPPED

if __name__ == "__main__":
    for name, text in SHIPPED.items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8", newline="\n")
