"""
C{python -m ropewalk PROGRAM.py ARGS..} and C{python -m ropewalk -m MODULE ARGS..}: run a program on
this reactor, without a change to it.
"""

from __future__ import annotations

import argparse
import builtins
import importlib.machinery
import io
import os
import pkgutil
import runpy
import sys
import types

from twisted.internet import default

import ropewalk.reactor


def main() -> None:
    """
    Install the reactor, make it the default one, and run the program as C{__main__}.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ropewalk",
        description="Run a Twisted program on ropewalk's reactor.",
        usage="%(prog)s [--backend NAME] [--accelerate[=NAMES]] (PROGRAM.py | -m MODULE) [ARG ..]",
    )
    parser.add_argument("--backend", choices=["mio", "io_uring"], help="the default is $ROPEWALK_BACKEND, or mio")
    parser.add_argument(
        "--accelerate",
        nargs="?",
        const="all",
        metavar="NAMES",
        help="receivers to parse for, separated by commas; the default is all, and none without the option",
    )
    parser.add_argument("-m", dest="module", metavar="MODULE", help="a module, instead of a file")
    # Everything behind the program's name is the program's.
    known, rest = _split(sys.argv[1:])
    options = parser.parse_args(known)
    if options.module is None and not rest:
        parser.error("a program or -m MODULE is needed")

    ropewalk.install(backend=options.backend, accelerate=options.accelerate)
    # A program that asks for Twisted's default reactor by name means this one. pytest-twisted does.
    default.install = ropewalk.reactor.install
    if options.module is not None:
        sys.argv = [options.module, *rest]
        # As `python -m` does: modules are found in the present folder.
        sys.path[0] = os.getcwd()
        runpy.run_module(options.module, run_name="__main__", alter_sys=True)
        return
    sys.argv = rest
    path = os.path.abspath(rest[0])
    sys.path[0] = os.path.dirname(path)
    if pkgutil.get_importer(path) is not None:
        # A folder, or an archive.
        runpy.run_path(rest[0], run_name="__main__")
        return
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as e:
        parser.error(f"can't open file {path!r}: {e.strerror}")
    _run(compile(source, path, "exec"), path)


def _run(program: types.CodeType, path: str) -> None:
    """
    Run a program as C{python PROGRAM.py} does: its module is C{__main__} up to the end of the
    process, and its C{__file__} is absolute. C{runpy.run_path} does neither.
    """
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    vars(module).update(__builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = module
    exec(program, vars(module))


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """
    Split a command line into ours and the program's.
    """
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        argument = arguments[position]
        position += 1
        if argument == "-m":
            return arguments[: position + 1], arguments[position + 1 :]
        if argument == "--backend":
            position += 1
    return arguments[:position], arguments[position:]


if __name__ == "__main__":
    main()
