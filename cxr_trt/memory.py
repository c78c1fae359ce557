"""Keep freed memory for the next image or training step."""

import ctypes

# mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER_TRIM, NO_MAPPINGS = -1, 0


def keep_freed_memory(most: int = NEVER_TRIM) -> None:
    """Have glibc keep freed memory rather than return it to the system, for the rest of the process.

    What frees and asks for large arrays again and again, an image or a training step at a time, has each of them mapped
    anew by default, and the system clears every page of it. With another C library than glibc nothing happens.

    Args:
        most: bytes at the end of the heap that are kept; all by default.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, NO_MAPPINGS)
        mallopt(M_TRIM_THRESHOLD, most)
