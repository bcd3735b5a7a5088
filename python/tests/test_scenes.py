"""
Twisted's semantics to the letter: each scene of L{PROGRAMS} prints the same on Twisted's epoll
reactor and on ours. Log lines, their prefixes and the reasons of losses are part of it.
"""

from __future__ import annotations

import concurrent.futures
import re
from unittest import TestCase, main

from ropewalk_test import BACKENDS, HERE, program

PROGRAMS = ["scenarios.py", "scenes_unix.py", "scenes_tls.py"]
KINDS = [*BACKENDS, "asyncio"]

# An exception in the wait of asyncio's loop leaves the loop, on Twisted's asyncio reactor too.
LEFT_OUT = {("asyncio", "interrupted")}

# Two connections are independent, and so is the order of their events in these scenes. Some begin
# with a timer ("[-]"), and on a busy machine two timers of different connections fire in either
# order.
UNORDERED = re.compile(r"^(?:\[(?:-|(?:\w+,)?(?:client|\d+,(?:127\.0\.0\.1)?))\] )?(server|client) ")


def scenes() -> dict[str, str]:
    """
    Map each scene to its program. Scenes are functions without arguments.
    """
    found = {}
    for each in PROGRAMS:
        for name in re.findall(r"^def (\w+)\(\):", (HERE / "programs" / each).read_text(), re.M):
            found[name] = each
    return found


def play(kind: str, name: str, file: str) -> str:
    played = program([file, kind, name])
    return played.stdout + played.stderr


class Scenes(TestCase):
    maxDiff = None

    def test_every_scene_is_the_same_on_every_reactor(self) -> None:
        names = scenes()
        self.assertGreaterEqual(len(names), 30)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            played = {
                (kind, name): pool.submit(play, kind, name, file)
                for name, file in names.items()
                for kind in ["epoll", *KINDS]
            }
        for name in names:
            expected = played["epoll", name].result().splitlines()
            self.assertEqual(expected[-1:], ["end"], expected)
            for kind in KINDS:
                if (kind, name) in LEFT_OUT:
                    continue
                with self.subTest(scene=name, reactor=kind):
                    self.assertEqual(parts(expected), parts(played[kind, name].result().splitlines()))


def parts(lines: list[str]) -> dict[str, list[str]]:
    """
    Split a scene into the events of its server, those of its client, and the others.
    """
    split: dict[str, list[str]] = {"server": [], "client": [], "others": []}
    for line in lines:
        found = UNORDERED.match(line)
        split[found[1] if found else "others"].append(line)
    return split


if __name__ == "__main__":
    main()
