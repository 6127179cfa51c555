"""What a process that prepares pictures does when it starts."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_OLD_LARGEST = 2**25  # bytes; glibc before 2.35 refuses more


def keep_memory(worker: int = 0) -> None:
    """Have this process keep the memory that it frees, where the C library is glibc; elsewhere nothing changes.

    Every picture takes and frees arrays of megabytes. By default glibc hands each back to the system and gets it again page by
    page, zeroed, which can take longer than the work on it. With this, a process holds on to what its largest batch has
    needed. It is meant as ``worker_init_fn`` of a DataLoader; a program that does little else may call it itself.

    Args:
        worker: Its number, which DataLoader hands over; it makes no difference.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # Refused, it would stay at 128 kB: with the other one set, glibc no longer raises it by itself.
        libc.mallopt(_MMAP_THRESHOLD, 2**30) or libc.mallopt(_MMAP_THRESHOLD, _OLD_LARGEST)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
