"""
The installed package as tools of Python see it: its version, its metadata, and its files.
"""

from __future__ import annotations

import re
from importlib import metadata
from unittest import TestCase, main

import ropewalk
from ropewalk_test import HERE

REPOSITORY = HERE.parent.parent


def crate_version(manifest: str) -> str:
    found = re.search(r'^version = "(.*)"', (REPOSITORY / manifest).read_text(), re.M)
    assert found
    return found[1]


class Packaging(TestCase):
    def test_there_is_one_version(self) -> None:
        versions = {
            "the crate": crate_version("Cargo.toml"),
            "the crate of the package": crate_version("python/Cargo.toml"),
            "the metadata": metadata.version("ropewalk"),
            "ropewalk.__version__": ropewalk.__version__,
        }
        self.assertEqual(len(set(versions.values())), 1, versions)

    def test_the_metadata(self) -> None:
        about = metadata.metadata("ropewalk")
        self.assertEqual(about["Requires-Python"], ">=3.10")
        self.assertEqual(about["License-Expression"], "MIT")
        self.assertEqual(about.get_all("License-File"), ["LICENSE"])
        self.assertEqual(about.get_all("Requires-Dist"), ["twisted>=24.7"])
        self.assertTrue({"Framework :: Twisted", "Typing :: Typed"} <= set(about.get_all("Classifier") or ()))
        self.assertIn("# ropewalk", about.get_payload())

    def test_the_files(self) -> None:
        """Types and the licence are there, and Twisted's packages are extended, and not
        replaced."""
        files = {str(file) for file in metadata.files("ropewalk") or ()}
        folders = {file.split("/")[0] for file in files} - {f"ropewalk-{ropewalk.__version__}.dist-info"}
        self.assertEqual(folders, {"ropewalk", "twisted"})
        for name in ("py.typed", "_native.pyi", "_native.abi3.so"):
            self.assertIn(f"ropewalk/{name}", files)
        self.assertIn(f"ropewalk-{ropewalk.__version__}.dist-info/licenses/LICENSE", files)
        ours = {file for file in files if file.startswith("twisted/") and "__pycache__" not in file}
        self.assertEqual(ours, {"twisted/plugins/ropewalk_reactor.py"})


if __name__ == "__main__":
    main()
