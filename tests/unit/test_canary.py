"""The searcher for secrets finds them: a test that leaves, logs or prints one fails, and does not show it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = "'eyJhbGciOiJIUzI1NiIsIn.eyJhdWQiOiJodHRwczovL2.x'"
LEAKS = {
    "file": "(tmp_path / 'mirror.db').write_bytes(b'x a-secret-of-ours x')",
    "token_in_a_file": f"(tmp_path / 'journal.db-wal').write_text({TOKEN})",
    "log": "structlog.get_logger().debug('sent', headers='a-secret-' 'of-ours')",
    "traceback": "crash()",
    "log_of_a_library": "logging.getLogger('msal').warning('a-secret-' 'of-ours')",
    "printed": "print('a-secret-' 'of-ours')",
    "printed_as_an_error": f"sys.stderr.write({TOKEN})",
    "report": "left = 'a-secret-' + 'of-ours'; assert left == 'something else'",
}
HEAD = """
import logging
import sys
import structlog
from tests import canary

def crash():
    try:
        raise ValueError('a-secret-' 'of-ours')
    except ValueError:
        structlog.get_logger().exception('crashed')

def test_nothing(tmp_path):
    canary.plant("a-secret-" "of-ours", tmp_path)
"""


def test_a_test_that_gives_a_secret_away_fails_without_showing_it(tmp_path: Path) -> None:
    tests = [
        f'\ndef test_{name}(tmp_path):\n    canary.plant("a-secret-" "of-ours", tmp_path)\n    {leak}\n'
        for name, leak in LEAKS.items()
    ]
    (tmp_path / "test_leaks.py").write_text(HEAD + "".join(tests), encoding="utf-8")
    options = ["-q", "-rfE", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "tests.conftest", str(tmp_path / "test_leaks.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert set(re.findall(r"^(?:FAILED|ERROR) \S+::test_(\w+)", done.stdout, re.MULTILINE)) == LEAKS.keys()
    assert "a-secret-of-ours" not in done.stdout.replace("b'x a-secret-of-ours x'", "") + done.stderr
    assert TOKEN.strip("'") not in re.sub(
        r"^.*(write|debug|raise ValueError)\(.*$", "", done.stdout, flags=re.MULTILINE
    )
