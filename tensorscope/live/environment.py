"""What a run says about where it came from."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """JSON-able facts about this process and machine."""
    return {
        "created": time.time(),
        "argv": sys.argv,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "seed": torch.initial_seed(),
        "threads": torch.get_num_threads(),
        "rank": rank(),
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
    }


def rank() -> int:
    """This process's rank among those of one training; 0 outside of `torchrun`."""
    return int(os.environ.get("RANK", "0"))
