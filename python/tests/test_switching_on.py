"""
Each way of switching the reactor on, with the tutorial's programs.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from unittest import TestCase, main

from ropewalk_test import BACKENDS, HERE, kill, program

# The plugin of a service. It stands in a folder of its own, because Twisted writes a cache beside
# it.
PLUGIN = """\
from twisted.application.service import ServiceMaker

echo = ServiceMaker("echo", "echo_service", "An echo server.", "echo")
"""

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
                self.ten_clients(port, backend)
                server.terminate()
                self.assertEqual(server.wait(60), 0, "SIGTERM stops the reactor, and the program ends")

    def test_a_program_keeps_its_arguments(self) -> None:
        """Options behind the program's name are the program's, for a file and for a module."""
        for way in (["shows_arguments.py"], ["-m", "shows_arguments"]):
            shown = program(["-m", "ropewalk", "--backend", "mio", *way, "--backend", "x", "-m"])
            self.assertEqual(shown.stdout, "RopewalkReactor ['--backend', 'x', '-m']\n", shown.stderr)

    def test_a_program_is_the_main_module(self) -> None:
        """It has the attributes that Python gives it, up to the end of the process."""
        plain = program(["shows_its_module.py", "x"])
        self.assertEqual(plain.stderr, "")
        shown = program(["-m", "ropewalk", "shows_its_module.py", "x"])
        self.assertEqual((shown.stdout, shown.stderr), (plain.stdout, ""))

    def test_a_command_line_without_a_program_is_refused(self) -> None:
        for arguments, message in [([], "a program or -m MODULE is needed"), (["absent.py"], "can't open file")]:
            refused = program(["-m", "ropewalk", *arguments])
            self.assertEqual(refused.returncode, 2)
            self.assertIn(message, refused.stderr)

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

    def test_trial(self) -> None:
        for option, name in [("ropewalk", "RopewalkReactor"), ("ropewalk-asyncio", "AsyncioRopewalkReactor")]:
            with self.subTest(option=option):
                ran = program(["-m", "twisted.trial", *self.trial(option), "a_trial_case"])
                self.assertIn(name, ran.stdout, ran.stderr)
                self.assertIn("PASSED", ran.stdout)

    def test_the_workers_of_trial(self) -> None:
        """With `-j2` the tests run in two processes, each of which has the reactor."""
        for option, name in [("ropewalk", "RopewalkReactor"), ("ropewalk-asyncio", "AsyncioRopewalkReactor")]:
            with self.subTest(option=option):
                folder = self.folder()
                arguments = ["-m", "twisted.trial", "-j2", *self.trial(option), "meeting_case"]
                ran = program(arguments, MEETING=str(folder))
                self.assertIn("PASSED (successes=2)", ran.stdout, ran.stderr)
                notes = [note.read_text().split() for note in folder.iterdir()]
                self.assertEqual([reactor for _, reactor in notes], [name] * 2)
                self.assertEqual(len({process for process, _ in notes}), 2)

    def test_pytest(self) -> None:
        """pytest-twisted takes the reactor of `python -m ropewalk`, and has it among its
        choices."""
        cases = ["-p", "no:cacheprovider", "pytest_cases.py"]
        plugin = ["-m", "pytest", "-p", "ropewalk.pytest_plugin"]
        for way, name in [
            *((["-m", "ropewalk", "--backend", each, "-m", "pytest"], "RopewalkReactor") for each in BACKENDS),
            ([*plugin, "--reactor=ropewalk"], "RopewalkReactor"),
            ([*plugin, "--reactor=ropewalk-asyncio"], "AsyncioRopewalkReactor"),
        ]:
            with self.subTest(way=way):
                ran = program([*way, *cases], REACTOR=name)
                self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
                self.assertIn("2 passed in", ran.stdout)

    def test_the_list_of_reactors(self) -> None:
        listed = program(["-m", "twisted", "--help-reactors"])
        self.assertIn("ropewalk-asyncio", listed.stdout + listed.stderr)

    def test_twist_and_twistd(self) -> None:
        """A plugin's service runs on the reactor that an option names, and SIGTERM ends it."""
        plugins = self.folder()
        (plugins / "twisted/plugins").mkdir(parents=True)
        (plugins / "twisted/plugins/echo_plugin.py").write_text(PLUGIN)
        path = os.pathsep.join([str(plugins), str(HERE / "programs")])
        for command in [["twist", "--reactor=ropewalk"], ["twistd", "-n", "-r", "ropewalk"]]:
            for backend in BACKENDS:
                with self.subTest(command=command, backend=backend):
                    folder = self.folder()
                    script = str(pathlib.Path(sys.executable).parent / command[0])
                    environment = {**os.environ, "PYTHONPATH": path, "ROPEWALK_BACKEND": backend}
                    with said(folder) as (fifo, note), open(folder / "log", "w+") as log:
                        server = subprocess.Popen(
                            [sys.executable, script, *command[1:], "echo"],
                            env={**environment, "PORT_FILE": fifo},
                            cwd=folder,
                            stdout=log,
                            stderr=log,
                        )
                        self.addCleanup(kill, server)
                        port, _, name = note().split()
                        self.assertEqual(name, "RopewalkReactor")
                        self.ten_clients(port)
                        server.terminate()
                        # Twisted's scripts end by the signal that stopped the reactor.
                        self.assertEqual(server.wait(60), -signal.SIGTERM)
                        log.seek(0)
                        self.assertNotIn("Traceback", log.read())

    def test_a_daemon(self) -> None:
        """`twistd` makes the reactor, forks, and runs the reactor in the child."""
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                folder = self.folder()
                files = [f"--pidfile={folder / 'pid'}", f"--logfile={folder / 'log'}"]
                code = "import sys; from twisted.scripts.twistd import run; run()"
                with said(folder) as (fifo, note):
                    command = ["-c", code, *files, "--reactor=ropewalk", "-y", "daemon.tac"]
                    started = program(command, ROPEWALK_BACKEND=backend, PORT_FILE=fifo)
                    self.assertEqual(started.returncode, 0, started.stderr)
                    port, pid, name = note().split()
                try:
                    self.assertEqual(name, "RopewalkReactor")
                    self.ten_clients(port)
                finally:
                    os.kill(int(pid), signal.SIGKILL)

    def ten_clients(self, port: str, backend: str = "mio") -> None:
        client = program(["-m", "ropewalk", "echo_client.py", port], ROPEWALK_BACKEND=backend)
        self.assertEqual(client.stdout.splitlines(), [*ANSWERS, "RopewalkReactor"], client.stderr)

    def folder(self) -> pathlib.Path:
        """
        Make a folder for this test.
        """
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)

    def trial(self, reactor: str) -> list[str]:
        """
        Make trial's options.
        """
        return [f"--reactor={reactor}", "--temp-directory", str(self.folder() / "trial")]


@contextlib.contextmanager
def said(folder: pathlib.Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """
    Make a file to which a server writes where it listens. Yields its path, and a function that
    waits for the text.
    """
    # Opening a FIFO waits for the other end.
    fifo = folder / "port"
    os.mkfifo(fifo)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        text = pool.submit(fifo.read_text)
        try:
            yield str(fifo), lambda: text.result(60)
        finally:
            # The thread ends, even if the server never came.
            with contextlib.suppress(OSError):
                os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


if __name__ == "__main__":
    main()
