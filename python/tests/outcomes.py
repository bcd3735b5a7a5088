"""
Runs tests with trial's runner, and keeps the outcome of each, so that C{compare.py} can hold those
of two reactors against each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from twisted.trial import reporter, runner
from twisted.trial.unittest import TestSuite

# The outcome of each test by its name, with the text of a failure or the reason of a skip.
Outcomes = dict[str, tuple[str, str]]


def load(names: Iterable[str]) -> Iterator[Any]:
    """
    Find the test cases of modules and packages. A module that cannot be imported is an
    L{ErrorHolder<runner.ErrorHolder>}, and counts as a failed test.
    """
    return _cases(runner.TestLoader().loadByNames(list(names), recurse=True))


def record(cases: Iterable[Any], work: str) -> Outcomes:
    """
    Run test cases.

    @param work: a folder for the tests' files.
    """
    outcomes: Outcomes = {}

    class Notebook(reporter.MinimalReporter):
        def addSuccess(self, test: Any) -> None:
            outcomes.setdefault(test.id(), ("pass", ""))

        def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
            outcomes.setdefault(test.id(), ("pass", "as expected"))

        def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
            outcomes.setdefault(test.id(), ("pass", "unexpected"))

        def addSkip(self, test: Any, reason: Any) -> None:
            outcomes[test.id()] = ("skip", str(reason))

        def addFailure(self, test: Any, fail: Any) -> None:
            outcomes[test.id()] = ("fail", str(fail))

        def addError(self, test: Any, error: Any) -> None:
            outcomes[test.id()] = ("fail", str(error))

    runner.TrialRunner(Notebook, workingDirectory=work).run(TestSuite(list(cases)))
    return outcomes


def write(outcomes: Outcomes, path: str) -> None:
    """
    Write the outcomes as JSON.
    """
    with open(path, "w") as file:
        json.dump(outcomes, file, indent=1, sort_keys=True)


def _cases(suite: Any) -> Iterator[Any]:
    """
    Walk a tree of test suites.
    """
    try:
        children = iter(suite)
    except TypeError:
        yield suite
    else:
        for child in children:
            yield from _cases(child)
