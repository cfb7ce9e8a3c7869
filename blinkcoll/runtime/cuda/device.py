"""The device layer: what the CUDA executor needs of a machine with GPUs, as an interface.

The driver implements it where there is one; tests implement it by an emulator that executes the same PTX. Addresses are
valid in every kernel on every device (peer access), as CUDA's unified addressing makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class DeviceLayer(Protocol):
    """Memory and kernels of several GPUs that can reach each other's memory.

    ``whole_lines``: whether a store of 128 bytes by neighbouring lanes of a warp arrives at another GPU whole, as NVLink
    has it from Volta on. Where it is not known to, kernels are built to do without (``csrc/cuda/whole_lines.h``).
    """

    whole_lines: bool

    def allocate(self, nbytes: int, device: int, name: str) -> int:
        """The address of ``nbytes`` zero bytes on ``device``, aligned to 256 bytes; ``name`` is for reports."""

    def multicast(self, addresses: Sequence[int], nbytes: int) -> int:
        """A multicast object over allocations of ``nbytes``, one a device, and its mapping: an address for ``multimem``.

        Allocations must be such as can be bound to one (``cuMulticastBindMem``: whole granules of the driver's). Raises
        where a device or the switches cannot.
        """

    def allocate_host(self, nbytes: int, cpu: str, name: str) -> int:
        """The address of ``nbytes`` zero bytes of pinned memory of a CPU, mapped by every device, aligned to 256 bytes."""

    def free(self, address: int) -> None:
        """Give back what :meth:`allocate` or :meth:`allocate_host` returned."""

    def write(self, address: int, data: bytes) -> None:
        """Copy host bytes to an address; complete on return."""

    def read(self, address: int, nbytes: int) -> bytes:
        """Copy bytes from an address to the host."""

    def load(self, ptx: str) -> object:
        """A module that :meth:`launch` takes kernels from."""

    def launch(self, module: object, kernel: str, *, device: int, grid: int, block: int, argument: bytes) -> None:
        """Queue a kernel with one argument, passed by value; kernels of different devices run concurrently."""

    def synchronize(self) -> None:
        """Wait until every queued kernel has ended; raise what stopped one."""
