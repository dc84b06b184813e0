"""What a run says about where it came from."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

import tensorscope

# Variables that change what a training does. Everything else may be a secret, and stays out.
_VARIABLES = frozenset(
    {
        "CUBLAS_WORKSPACE_CONFIG",
        "CUDA_DEVICE_ORDER",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "LOCAL_WORLD_SIZE",
        "MKL_NUM_THREADS",
        "NVIDIA_TF32_OVERRIDE",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "PYTHONHASHSEED",
        "ROCR_VISIBLE_DEVICES",
        "SLURM_JOB_ID",
        "TORCHDYNAMO_DISABLE",
        "TORCHELASTIC_RESTART_COUNT",
        "TORCHELASTIC_RUN_ID",
        "TORCH_COMPILE_DISABLE",
        "ZE_AFFINITY_MASK",
    }
)
_FAMILIES = ("NCCL_", "PYTORCH_")
_SECRET = ("KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH")

_PATIENCE = 5.0  # seconds for one git command
_MOST_FILES = 50  # changed files that are named
_ELSEWHERE = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"})


def environment() -> dict[str, Any]:
    """JSON-able facts about this process and machine; memory is in bytes. No accelerator is woken."""
    return {
        "created": time.time(),
        "argv": [str(argument) for argument in getattr(sys, "argv", [])],
        "folder": _working_folder(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "tensorscope": tensorscope.__version__,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count() or 1,
        "memory": _memory(),
        "accelerators": _accelerators(),
        "threads": torch.get_num_threads(),
        "seed": torch.initial_seed(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "rank": rank(),
        "local_rank": _number("LOCAL_RANK", 0),
        "world_size": _world_size(),
        "variables": {name: os.environ[name] for name in sorted(os.environ) if _is_told(name)},
    }


def rank() -> int:
    """This process's rank among those of one training; 0 where there is only one."""
    return torch.distributed.get_rank() if _in_group() else _number("RANK", 0)


def launch() -> str | None:
    """What the processes of one launch by `torchrun` have in common and no other has; None outside of one.

    Processes of several machines have no parent in common: there the rendezvous has to be named (`--rdzv-id`).
    """
    if _world_size() < 2:
        return None
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    common = [os.environ.get(name, "") for name in names]
    if _number("GROUP_WORLD_SIZE", 1) < 2:
        common.append(str(os.getppid()))
    return ":".join(common)


def git_facts(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What git says of the repository around a folder; to be called on any thread, at leisure.

    Nothing is written there, no lock taken, no hook run. Git is started with `posix_spawn` and answers into a file: a
    process that forks meanwhile could keep a pipe open, for which this thread would then wait.

    Args:
        folder: where the program's code is.

    Returns:
        `commit`, `branch`, `dirty` (whether tracked files are changed), `changed` (their names, at most 50) and
        `remote` (its address without user, password and query); what does not exist, such as the commit of a new
        repository or the branch of a detached head, is left out. Empty without git or a repository.
    """
    git = shutil.which("git")
    if git is None:
        return {}
    status = _said(git, folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no", "-z")
    facts = _of_status(status) if status is not None else _of_head(git, folder)
    remotes = _said(git, folder, "config", "--get-regexp", r"^remote\..*\.url$") if facts else None
    lines = [line.partition(" ") for line in (remotes or "").splitlines()]
    addresses = {name: without_credentials(address) for name, _, address in lines}
    remote = addresses.get("remote.origin.url") or next(iter(addresses.values()), "")
    return facts | ({"remote": remote} if remote else {})


def without_credentials(address: str) -> str:
    """A remote's address without user, password and query; empty if it cannot be understood."""
    if "://" not in address:
        return address  # a path, or `git@host:path`, which cannot hold a password
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


# --- git ---------------------------------------------------------------------------------------------------------


def _said(git: str, folder: str | os.PathLike[str], *command: str) -> str | None:
    """What a git command prints; None if it fails or takes too long."""
    environ = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    environ |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # A monitor of the repository's own is a program that would be run.
    whole = [git, "-C", os.fspath(folder), "-c", "core.fsmonitor=false", *command]
    try:
        with tempfile.TemporaryFile() as answer:
            done = subprocess.run(
                whole,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env=environ,
                timeout=_PATIENCE,
                close_fds=False,  # else this is no `posix_spawn`; Python's own descriptors are closed all the same
                check=False,
            )
            answer.seek(0)
            return answer.read().decode(errors="replace") if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _of_status(status: str) -> dict[str, Any]:
    lines = status.split("\0")
    headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    # `1 XY sub mH mI mW hH hI path`; a rename has its score before the path, an unmerged file a third mode and hash.
    places = {"1": 8, "2": 9, "u": 10}
    changed = [line.split(" ", places[line[0]])[-1] for line in lines if line[:1] in places and line[1:2] == " "]
    facts: dict[str, Any] = {}
    if headers.get("branch.oid", "(initial)") != "(initial)":
        facts["commit"] = headers["branch.oid"]
    if headers.get("branch.head", "(detached)") != "(detached)":
        facts["branch"] = headers["branch.head"]
    return facts | {"dirty": bool(changed), "changed": changed[:_MOST_FILES]}


def _of_head(git: str, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Without a work tree, or one so large that its status takes too long."""
    commit = _said(git, folder, "rev-parse", "--verify", "HEAD")
    branch = _said(git, folder, "symbolic-ref", "--short", "HEAD")
    return {name: said.strip() for name, said in (("commit", commit), ("branch", branch)) if said}


# --- the machine -------------------------------------------------------------------------------------------------


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return ""


def _cpu() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            named = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _accelerators() -> list[dict[str, Any]]:
    """Kind, count and names; the names only of what the program uses already, since asking for them would wake it."""
    found = []
    for kind in ("cuda", "mps", "xpu"):
        module = getattr(torch, kind)
        try:
            count = int(module.device_count())
        except RuntimeError:  # a driver that does not work
            count = 0
        if count:
            awake = kind != "mps" and module.is_initialized()
            names = [str(module.get_device_name(index)) for index in range(count)] if awake else []
            found.append({"kind": kind, "count": count, "names": names})
    return found


# --- the training's processes ------------------------------------------------------------------------------------


def _in_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _world_size() -> int:
    return torch.distributed.get_world_size() if _in_group() else _number("WORLD_SIZE", 1)


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else default


def _is_told(name: str) -> bool:
    return (name in _VARIABLES or name.startswith(_FAMILIES)) and not any(word in name for word in _SECRET)
