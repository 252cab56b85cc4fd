"""How memory is handed out in a process that trains or grows; it is told when the process starts."""

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30)}
"""Environment variables for glibc, which else gives a step's memory back to the system, only to fault it in again in
the next one: a tenth to a fifth of a small model's step on a CPU. What is freed of 32 MiB or more, the most that glibc
takes here, is still given back. Other C libraries do not read them."""
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""For torch: large tensors are made of large pages, where the system has them to give. A growth touches every tensor
once, so that small pages are mostly faults; a step of training gains nothing by it and takes more memory."""
