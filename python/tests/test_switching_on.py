"""
Each way of switching the reactor on, with the tutorial's programs.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
from unittest import TestCase, main

from ropewalk_test import BACKENDS, HERE, kill, program

ANSWERS = [f"hello from {number}" for number in range(10)]


class SwitchingOn(TestCase):
    def test_the_programs_of_the_tutorial_run_unchanged(self) -> None:
        """`python -m ropewalk` runs a server and ten clients on each backend."""
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                command = [sys.executable, "-m", "ropewalk", "--backend", backend, str(HERE / "programs/echo_server.py")]
                server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                self.addCleanup(kill, server)
                assert server.stdout is not None
                port, name = server.stdout.readline().split()
                self.assertEqual(name, "RopewalkReactor")
                client = program(["-m", "ropewalk", "echo_client.py", port], ROPEWALK_BACKEND=backend)
                self.assertEqual(client.stdout.splitlines(), [*ANSWERS, "RopewalkReactor"], client.stderr)
                server.terminate()
                self.assertEqual(server.wait(60), 0, "SIGTERM stops the reactor, and the program ends")

    def test_a_program_keeps_its_arguments(self) -> None:
        """Options behind the program's name are the program's, for a file and for a module."""
        for way in (["shows_arguments.py"], ["-m", "shows_arguments"]):
            shown = program(["-m", "ropewalk", "--backend", "mio", *way, "--backend", "x", "-m"])
            self.assertEqual(shown.stdout, "RopewalkReactor ['--backend', 'x', '-m']\n", shown.stderr)

    def test_a_command_line_without_a_program_is_refused(self) -> None:
        refused = program(["-m", "ropewalk"])
        self.assertEqual(refused.returncode, 2)
        self.assertIn("a program or -m MODULE is needed", refused.stderr)

    def test_install(self) -> None:
        """The argument of `install` wins over the environment, which wins over the default."""
        other = BACKENDS[-1]
        for arguments, environment, expected in [
            ([], {"ROPEWALK_BACKEND": ""}, "mio"),
            ([], {"ROPEWALK_BACKEND": other}, other),
            (["mio"], {"ROPEWALK_BACKEND": other}, "mio"),
        ]:
            with self.subTest(arguments=arguments, environment=environment):
                ran = program(["installs_itself.py", *arguments], **environment)
                self.assertEqual(ran.stdout, f"RopewalkReactor {expected} {arguments}\n", ran.stderr)

    def test_an_unknown_backend_is_refused(self) -> None:
        for arguments, environment in [(["poll"], {}), ([], {"ROPEWALK_BACKEND": "poll"})]:
            refused = program(["installs_itself.py", *arguments], **environment)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("poll", refused.stderr.splitlines()[-1])

    def test_a_second_reactor_is_refused(self) -> None:
        ran = program(["-c", "from twisted.internet import reactor\nimport ropewalk\nropewalk.install()"])
        self.assertIn("ReactorAlreadyInstalledError", ran.stderr)

    def test_trial_and_twistd_find_the_plugins(self) -> None:
        for option, name in [("ropewalk", "RopewalkReactor"), ("ropewalk-asyncio", "AsyncioRopewalkReactor")]:
            with self.subTest(option=option), tempfile.TemporaryDirectory() as folder:
                work = str(pathlib.Path(folder) / "trial")
                ran = program(["-m", "twisted.trial", f"--reactor={option}", "--temp-directory", work, "a_trial_case"])
                self.assertIn(name, ran.stdout, ran.stderr)
                self.assertIn("PASSED", ran.stdout)
        listed = program(["-m", "twisted", "--help-reactors"])
        self.assertIn("ropewalk-asyncio", listed.stdout + listed.stderr)

    def test_a_daemon(self) -> None:
        """`twistd` makes the reactor, forks, and runs the reactor in the child."""
        for backend in BACKENDS:
            with self.subTest(backend=backend), tempfile.TemporaryDirectory() as folder:
                # Opening a FIFO waits for the other end.
                fifo, pidfile, logfile = (str(pathlib.Path(folder) / name) for name in ("port", "pid", "log"))
                os.mkfifo(fifo)
                command = [f"--pidfile={pidfile}", f"--logfile={logfile}", "--reactor=ropewalk", "-y", "daemon.tac"]
                code = "import sys; from twisted.scripts.twistd import run; run()"
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    said = pool.submit(pathlib.Path(fifo).read_text)
                    started = program(["-c", code, *command], ROPEWALK_BACKEND=backend, PORT_FILE=fifo)
                    self.assertEqual(started.returncode, 0, started.stderr)
                    port, pid, name = said.result(60).split()
                try:
                    self.assertEqual(name, "RopewalkReactor")
                    with socket.create_connection(("127.0.0.1", int(port)), 60) as peer:
                        peer.sendall(b"hello")
                        self.assertEqual(peer.recv(100), b"hello")
                finally:
                    os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    main()
