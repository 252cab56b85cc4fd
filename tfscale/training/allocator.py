"""Memory allocator settings of processes that train or grow, as environment variables that are set when they start."""

import platform
import re

LARGE_THRESHOLD_SINCE = (2, 36)
"""The glibc from which on 256 MiB are known to be taken; earlier ones refuse more than 32 MiB."""


def allocator() -> dict[str, str]:
    """Environment variables for glibc, which else gives a step's memory back to the system, only to fault it in again
    in the next one: a tenth to a fifth of a small model's step on a CPU, and 5% of a step of 124M parameters, whose
    embedding's gradient has 154 MB. Only what is larger is still given back. Other C libraries do not read them."""
    libc, version = platform.libc_ver()
    numbers = re.match(r"(\d+)\.(\d+)", version)
    large = libc == "glibc" and numbers is not None and tuple(map(int, numbers.groups())) >= LARGE_THRESHOLD_SINCE
    return {
        "MALLOC_MMAP_THRESHOLD_": str((256 if large else 32) * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    }


HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""Variables by which torch allocates large tensors in huge pages, where the system provides them. A growth touches
every tensor once, so with small pages it would mostly wait for page faults; a training step gains nothing and takes
more memory."""
