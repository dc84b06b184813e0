"""Compiles the statistics kernel while the package is built; without a compiler the package works, only slower."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("tensorscope/live/kernel.cpp")
LIBRARY = Path("tensorscope/live/_kernel.so")
# No `-ffast-math`: NaN and Inf are what is looked for.
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")


class KernelHook(BuildHookInterface):
    """Puts `_kernel.so` beside its source and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, or say that nothing was compiled."""
        if self.target_name != "wheel" or sys.platform == "win32":
            return
        source, library = Path(self.root) / SOURCE, Path(self.root) / LIBRARY
        fresh = library.with_suffix(".new")
        command = [os.environ.get("CXX", "c++"), *FLAGS, str(source), "-o", str(fresh)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"statistics will be slower, the kernel was not compiled: {error}")
            return
        fresh.replace(library)
        build_data["artifacts"].append(str(LIBRARY))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
