"""
Runs Twisted's own tests of reactors (C{twisted.internet.test}) on one reactor class, and writes the
outcome of each test as JSON.

Twisted makes a test case for each class that C{ReactorBuilder} lists. A test whose reactor cannot
be made is skipped by Twisted, whatever the reason. So a skip is no success here: C{compare.py}
holds the outcomes against those of Twisted's epoll reactor.
"""

from __future__ import annotations

import argparse
import gc
import sys
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


def main() -> int:
    parser = argparse.ArgumentParser(description="Run Twisted's reactor tests on a reactor class.")
    parser.add_argument("reactor", help="the full name of the class")
    parser.add_argument("outcomes", help="the file to write")
    parser.add_argument("--work", required=True, help="a folder for the tests' files")
    parser.add_argument("--collect", action="store_true", help="collect garbage at every allocation")
    options = parser.parse_args()

    # The list is read when the test modules are imported.
    from twisted.internet.test.reactormixins import ReactorBuilder

    ReactorBuilder._reactors[:] = [options.reactor]

    import outcomes
    from twisted.trial import runner

    name = options.reactor.rsplit(".", 1)[1]
    suffix = f"_{name}Tests"
    chosen = [
        case
        for case in outcomes.load(["twisted.internet.test"])
        if isinstance(case, runner.ErrorHolder)
        or (f"{suffix}." in case.id() and not case.id().endswith(f".{LEFT_OUT}"))
    ]
    if options.collect:
        # The modules are left out of the collections.
        gc.collect()
        gc.freeze()
        gc.set_threshold(1)
    found = outcomes.record(chosen, options.work)
    # The names of both runs are to be the same.
    outcomes.write({test.replace(suffix, "_Tests"): outcome for test, outcome in found.items()}, options.outcomes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
