"""Which systems cxr-trt runs on.

Linux alone: files from outside are read by processes under Linux's limits of memory, time and files
(`cxr_trt.images.worker`), which Windows and macOS do not have.
"""

import sys

ELSEWHERE = {
    "win32": "install it in WSL 2 (`wsl --install`), or run it in a Linux container",
    "darwin": "run it in a Linux container",
}


def why_not_here() -> str | None:
    """Why cxr-trt cannot run on this system, and where it can; None on Linux."""
    if sys.platform == "linux":
        return None
    remedy = ELSEWHERE.get(sys.platform, "run it in a Linux container")
    return f"cxr-trt runs on Linux only, and this is {sys.platform}; {remedy}"
