"""
Runs Twisted's own tests of reactors (C{twisted.internet.test}) on one reactor class, and writes the
outcome of each test as JSON.

Twisted makes a test case for each class that C{ReactorBuilder} lists. A test whose reactor cannot
be made is skipped by Twisted, whatever the reason. So a skip is no success here: C{compare.py}
holds the outcomes against those of Twisted's epoll reactor.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

# Twisted leaves this test out for classes with the name EPollReactor, and for others by their
# names. Under any other name it waits for two minutes for an event that epoll does not report.
LEFT_OUT = "test_lostFileDescriptor"


class PlainEpollReactor:
    """
    Makes Twisted's epoll reactor, under a name to which Twisted makes no exceptions.
    """

    def __new__(cls) -> Any:
        from twisted.internet.epollreactor import EPollReactor

        return type("PlainEpollReactor", (EPollReactor,), {})()


def cases(suite: Any) -> Iterator[Any]:
    """
    Walk a tree of test suites.
    """
    try:
        children = iter(suite)
    except TypeError:
        yield suite
    else:
        for child in children:
            yield from cases(child)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run Twisted's reactor tests on a reactor class.")
    parser.add_argument("reactor", help="the full name of the class")
    parser.add_argument("outcomes", help="the file to write")
    parser.add_argument("--work", required=True, help="a folder for the tests' files")
    options = parser.parse_args()

    # The list is read when the test modules are imported.
    from twisted.internet.test.reactormixins import ReactorBuilder

    ReactorBuilder._reactors[:] = [options.reactor]

    from twisted.trial import reporter, runner
    from twisted.trial.unittest import TestSuite

    outcomes: dict[str, list[str]] = {}

    class Notebook(reporter.MinimalReporter):
        def addSuccess(self, test: Any) -> None:
            outcomes.setdefault(test.id(), ["pass", ""])

        def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
            outcomes.setdefault(test.id(), ["pass", "as expected"])

        def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
            outcomes.setdefault(test.id(), ["pass", "unexpected"])

        def addSkip(self, test: Any, reason: Any) -> None:
            outcomes[test.id()] = ["skip", str(reason)]

        def addFailure(self, test: Any, fail: Any) -> None:
            outcomes[test.id()] = ["fail", str(fail)]

        def addError(self, test: Any, error: Any) -> None:
            outcomes[test.id()] = ["fail", str(error)]

    name = options.reactor.rsplit(".", 1)[1]
    suffix = f"_{name}Tests"
    found = runner.TestLoader().loadByNames(["twisted.internet.test"], recurse=True)
    # A module that could not be imported is an `ErrorHolder`, and counts as a failed test.
    chosen = [
        case
        for case in cases(found)
        if isinstance(case, runner.ErrorHolder)
        or (f"{suffix}." in case.id() and not case.id().endswith(f".{LEFT_OUT}"))
    ]
    runner.TrialRunner(Notebook, workingDirectory=options.work).run(TestSuite(chosen))

    # The names of both runs are to be the same.
    plain = {test.replace(suffix, "_Tests"): outcome for test, outcome in outcomes.items()}
    with open(options.outcomes, "w") as file:
        json.dump(plain, file, indent=1, sort_keys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
