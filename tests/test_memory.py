"""Freed memory stays with a process that asked for it."""

import subprocess
import sys

PAGES_OF_A_TENSOR = 64 * 2**20 // 4096
SCRIPT = """
import resource, sys
import torch
if sys.argv[1] == "kept":
    from xwam.train.memory import keep_freed_memory
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 * 2**20)
before = faults()
for _ in range(10):
    torch.ones(16 * 2**20)
print(faults() - before)
"""


def faults(how: str) -> int:
    """Pages that ten tensors of 64 MB touch for the first time, after others of their size were freed."""
    return int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True).stdout)


def test_what_is_freed_is_used_again():
    # Where the system gives huge pages at once, even the plain way has few faults.
    assert faults("kept") <= min(faults("plain"), 2 * PAGES_OF_A_TENSOR)
