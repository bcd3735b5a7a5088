"""
Compares the outcomes of tests on several reactors: C{compare.py LEAST EPOLL OURS ..}. A run is a
JSON file, or a folder of them.

Each test that passes on Twisted's epoll reactor has to pass on ours. A test that fails there too,
in the same job, says nothing about a reactor: a container forbids changing the user, for instance.
The run on epoll may be one of only these tests (C{suites.py --again}). LEAST is the number of tests
that have to pass on ours. Far fewer mean that the runs have missed the tests.
"""

from __future__ import annotations

import json
import pathlib
import sys

Outcomes = dict[str, list[str]]


def load(run: str) -> Outcomes:
    path = pathlib.Path(run)
    outcomes: Outcomes = {}
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        outcomes.update(json.loads(file.read_text()))
    return outcomes


def main(least: int, runs: list[str]) -> int:
    epoll = load(runs[0])
    worse = 0
    for run in runs:
        ours = load(run)
        passes = sum(outcome == "pass" for outcome, _ in ours.values())
        print(f"{run}: {passes} of {len(ours)} pass")
        if run != runs[0] and passes < least:
            print(f"  fewer than {least}")
            worse += 1
        for test in sorted(epoll.keys() | ours.keys()):
            expected = epoll.get(test, ["missing", ""])[0]
            outcome, text = ours.get(test, ["missing", ""])
            if outcome != "pass" and outcome != expected:
                worse += 1
                print(f"  {test}: {outcome}, on epoll: {expected}\n{text}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
