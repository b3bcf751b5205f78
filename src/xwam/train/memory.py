"""Memory of a training process on a CPU: what a step frees is there for the next."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""
NEVER, NONE = -1, 0


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed; False where there is another allocator, which is left as it is.

    Else it hands large tensors back to the system when they are freed, and the system clears the pages of the next ones
    again before they are written: a sixth of the time of nano's step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, NONE)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
