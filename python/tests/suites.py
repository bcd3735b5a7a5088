"""
Runs suites of Twisted, or of libraries that use it, with a global reactor, and writes the outcome of
each test as JSON: C{suites.py REACTOR OUTCOMES.json --work FOLDER NAME ..}.
"""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    parser = argparse.ArgumentParser(description="Run suites with a global reactor.")
    parser.add_argument("reactor", help="the short name of the reactor, as for trial's --reactor")
    parser.add_argument("outcomes", help="the file to write")
    parser.add_argument("--work", required=True, help="a folder for the tests' files")
    parser.add_argument("names", nargs="+", help="modules and packages with tests")
    options = parser.parse_args()

    from twisted.application.reactors import installReactor

    reactor = installReactor(options.reactor)
    chosen = type(reactor)

    # Imported with the reactor in place, because suites import it.
    import outcomes

    found = outcomes.record(outcomes.load(options.names), options.work)
    outcomes.write(found, options.outcomes)

    from twisted.internet import reactor as present

    if type(present) is not chosen or not found:
        print(f"{len(found)} tests ran, and the reactor is {present!r} now")
        return 1
    print(f"{len(found)} tests on {chosen.__name__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
