"""Environment variables that configure the memory allocators of the processes for training and growth."""

import os
import platform
import re

LARGE_THRESHOLD_SINCE = (2, 36)
"""First glibc version that is known to accept 256 MiB for MALLOC_MMAP_THRESHOLD_. Earlier versions reject values above
32 MiB."""

FORMER_NAMES = {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"}
"""Former names of the environment variable PYTORCH_ALLOC_CONF. If the user has set a variable with one of these names,
tfscale does not set PYTORCH_ALLOC_CONF."""


def allocator() -> dict[str, str]:
    """Return environment variables that prevent glibc from returning the memory of a training step to the system, and
    that let segments of CUDA memory grow, so that batches of different sizes do not fragment the memory.

    If glibc returned the memory, the next step would cause page faults. On a CPU, these would take 10% to 20% of the
    time of a step with a small model, and 5% with a model of 124M parameters. Single allocations above 256 MiB (32 MiB
    with an older glibc) and free memory above 4 GiB are still returned. C libraries other than glibc ignore the
    variables whose names begin with MALLOC_.
    """
    libc, version = platform.libc_ver()
    numbers = re.match(r"(\d+)\.(\d+)", version)
    large = libc == "glibc" and numbers is not None and tuple(map(int, numbers.groups())) >= LARGE_THRESHOLD_SINCE
    segments = {} if os.environ.keys() & FORMER_NAMES else {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    return {
        **segments,
        "MALLOC_MMAP_THRESHOLD_": str((256 if large else 32) * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    }


HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""Environment variable that makes torch allocate large tensors in huge pages, if the system supports huge pages. The
variable is set only for growth, which uses each tensor once and would otherwise mostly wait for page faults. In
training, huge pages would take more memory without saving time."""
