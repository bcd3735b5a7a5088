"""
Runs suites of Twisted, or of libraries that use it, with a global reactor, and writes the outcome
of each test as JSON: C{suites.py REACTOR OUTCOMES.json --work FOLDER NAME ..}.

With C{--again}, NAME is a folder with the outcomes of earlier runs, and only the tests that did not
pass there are run.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys


def left(folders: list[str]) -> list[str]:
    """
    List the tests that did not pass.
    """
    names = set()
    for folder in folders:
        for file in pathlib.Path(folder).glob("*.json"):
            names.update(test for test, (outcome, _) in json.loads(file.read_text()).items() if outcome != "pass")
    return sorted(names)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run suites with a global reactor.")
    parser.add_argument("reactor", help="the short name of the reactor, as for trial's --reactor")
    parser.add_argument("outcomes", help="the file to write")
    parser.add_argument("--work", required=True, help="a folder for the tests' files")
    parser.add_argument("--again", action="store_true", help="run the tests that did not pass before")
    parser.add_argument("names", nargs="+", help="modules and packages with tests, or folders of outcomes")
    options = parser.parse_args()
    names = left(options.names) if options.again else options.names

    from twisted.application.reactors import installReactor

    reactor = installReactor(options.reactor)
    chosen = type(reactor)

    # Imported with the reactor in place, because suites import it.
    import outcomes

    found = outcomes.record(outcomes.load(names), options.work)
    outcomes.write(found, options.outcomes)

    from twisted.internet import reactor as present

    if type(present) is not chosen or not (found or options.again):
        print(f"{len(found)} tests ran, and the reactor is {present!r} now")
        return 1
    print(f"{len(found)} tests on {chosen.__name__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
