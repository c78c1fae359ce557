"""Keeping freed memory for the next image or training step."""

import ctypes

# mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER_TRIM, NO_MAPPINGS = -1, 0


def keep_freed_memory(most: int = NEVER_TRIM) -> None:
    """Have glibc keep freed memory for the rest of the process instead of returning it to the system.

    A program that allocates and frees large arrays for each image or training step otherwise gets every array newly
    mapped, and the system clears all its pages. With other C libraries than glibc, this does nothing.

    Args:
        most: bytes to keep at the end of the heap; by default all.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, NO_MAPPINGS)
        mallopt(M_TRIM_THRESHOLD, most)
