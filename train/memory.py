"""Keep the memory that a training step frees, for the next step."""

import ctypes

# mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER_TRIM, NO_MAPPINGS = -1, 0


def keep_freed_memory() -> None:
    """Have glibc keep freed memory rather than return it to the system, for the rest of the process.

    A step on a CPU frees and asks for gigabytes, tensor by tensor. By default each large tensor is mapped anew, and the
    system clears every page of it. With another C library than glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, NO_MAPPINGS)
        mallopt(M_TRIM_THRESHOLD, NEVER_TRIM)
