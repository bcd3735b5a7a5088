"""
Runs Twisted's own tests of all that is built on its receivers, with Twisted's parsing and with
native parsing, and compares the outcome of each test: C{receiver_suites.py FOLDER}, where the
folder is for files. Both run at once, each in a process of its own.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

MODULES = [
    "twisted.protocols.test",
    "twisted.test.test_protocols",
    "twisted.test.test_ftp",
    "twisted.test.test_memcache",
    "twisted.test.test_ident",
    "twisted.test.test_finger",
    "twisted.test.test_postfix",
    "twisted.test.test_sip",
    "twisted.test.test_amp",
    "twisted.test.test_policies",
    "twisted.test.test_stateful",
    "twisted.test.test_loopback",
    "twisted.mail.test",
    "twisted.names.test",
    "twisted.positioning.test",
    "twisted.web.test.test_http",
    "twisted.web.test.test_newclient",
    "twisted.web.test.test_agent",
    "twisted.web.test.test_proxy",
    "twisted.web.test.test_webclient",
    "twisted.web.test.test_web",
    "twisted.words.test",
    "twisted.runner.test",
    "twisted.conch.test.test_telnet",
]

# 3,585 pass. Far fewer mean that the runs have missed the tests.
LEAST_PASSES = 3300


def run(kind: str, outcomes: str, work: str) -> None:
    """
    Run the tests, and write their outcomes.
    """
    from ropewalk import accelerate

    if kind == "native":
        accelerate.on()
        assert len(accelerate.active()) == 3, accelerate.active()

    from twisted.trial import reporter, runner

    found: dict[str, str] = {}

    class Notebook(reporter.MinimalReporter):
        def addSuccess(self, test: Any) -> None:
            found.setdefault(test.id(), "pass")

        def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
            found.setdefault(test.id(), "pass")

        def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
            found.setdefault(test.id(), "pass")

        def addSkip(self, test: Any, reason: Any) -> None:
            found[test.id()] = "skip"

        def addFailure(self, test: Any, fail: Any) -> None:
            found[test.id()] = f"fail\n{fail}"

        def addError(self, test: Any, error: Any) -> None:
            found[test.id()] = f"fail\n{error}"

    suite = runner.TestLoader().loadByNames(MODULES, recurse=True)
    runner.TrialRunner(Notebook, workingDirectory=work).run(suite)
    pathlib.Path(outcomes).write_text(json.dumps(found))


def main(folder: str) -> int:
    kinds = ["twisted", "native"]
    root = pathlib.Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    files = {kind: root / f"receivers-{kind}.json" for kind in kinds}
    children = []
    for kind in kinds:
        files[kind].unlink(missing_ok=True)
        command = [sys.executable, __file__, kind, str(files[kind]), str(root / f"receivers-{kind}")]
        children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    for child in children:
        child.wait()
    expected, native = (json.loads(files[kind].read_text()) for kind in kinds)
    passes = [sum(outcome == "pass" for outcome in outcomes.values()) for outcomes in (expected, native)]
    print(f"{passes[0]} of {len(expected)} pass with Twisted's parsing, {passes[1]} with native parsing")
    worse = 0
    for test in sorted(expected.keys() | native.keys()):
        before, after = expected.get(test, "missing"), native.get(test, "missing")
        if after != "pass" and after.split("\n")[0] != before.split("\n")[0]:
            worse += 1
            print(f"  {test}: {after}")
    if passes[0] < LEAST_PASSES:
        print(f"  fewer than {LEAST_PASSES} pass")
        worse += 1
    return 1 if worse else 0


if __name__ == "__main__":
    if len(sys.argv) == 4:
        run(*sys.argv[1:])
    else:
        sys.exit(main(sys.argv[1]))
