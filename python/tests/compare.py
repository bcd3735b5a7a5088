"""
Compares the outcomes of Twisted's reactor tests: C{compare.py EPOLL.json OURS.json ..}.

Each test that passes on Twisted's epoll reactor has to pass on ours. A test that fails there too,
in the same job, says nothing about a reactor: a container forbids changing the user, for instance.
"""

from __future__ import annotations

import json
import sys

# 297 pass today. Far fewer mean that the runs have missed the tests.
LEAST_PASSES = 280


def main(files: list[str]) -> int:
    runs = []
    for name in files:
        with open(name) as file:
            runs.append(json.load(file))
    epoll = runs[0]
    worse = 0
    for name, ours in zip(files, runs):
        passes = sum(outcome == "pass" for outcome, _ in ours.values())
        print(f"{name}: {passes} of {len(ours)} pass")
        if passes < LEAST_PASSES:
            print(f"  fewer than {LEAST_PASSES}")
            worse += 1
        for test in sorted(epoll.keys() | ours.keys()):
            expected = epoll.get(test, ["missing", ""])[0]
            outcome, text = ours.get(test, ["missing", ""])
            if outcome != "pass" and outcome != expected:
                worse += 1
                print(f"  {test}: {outcome}, on epoll: {expected}\n{text}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
