"""GPU architectures by what a driver calls a model, and by PCI device id, for sources that name no architecture.

Compute capabilities: NVIDIA's list of CUDA GPUs (developer.nvidia.com/cuda-gpus); gfx targets: ROCm's table of GPU hardware
specifications; device ids: the PCI ID repository (pci-ids.ucw.cz).
"""

from __future__ import annotations

import re

#: A sign in the name, the architecture; the first that fits holds, so longer signs come before their parts.
_MODELS = (
    ("RTX PRO [0-9]+", "sm_120"), ("RTX 50[5-9]0", "sm_120"), ("RTX 40[5-9]0", "sm_89"), ("RTX 30[5-9]0", "sm_86"), ("RTX 20[6-8]0", "sm_75"),
    ("RTX [0-9]{4} Ada", "sm_89"), ("Quadro RTX", "sm_75"), ("TITAN RTX", "sm_75"), ("TITAN V", "sm_70"), ("GV100", "sm_70"),
    ("GB300", "sm_103"), ("B300", "sm_103"), ("GB200", "sm_100"), ("B200", "sm_100"), ("B100", "sm_100"),
    ("GH200", "sm_90"), ("H200", "sm_90"), ("H100", "sm_90"), ("H800", "sm_90"), ("H20", "sm_90"),
    ("L40S?", "sm_89"), ("L20", "sm_89"), ("L4", "sm_89"),
    ("A100", "sm_80"), ("A800", "sm_80"), ("A30", "sm_80"), ("A[2456]000", "sm_86"), ("A40", "sm_86"), ("A10G?", "sm_86"), ("A16", "sm_86"), ("A2", "sm_86"),
    ("T4", "sm_75"), ("V100", "sm_70"), ("P100", "sm_60"), ("GP100", "sm_60"), ("P40", "sm_61"), ("P4", "sm_61"), ("GTX 10[5-8]0", "sm_61"),
    ("MI3[05]5X?", "gfx950"), ("MI3[02][05][AX]?", "gfx942"), ("MI2[015]0X?", "gfx90a"), ("MI100", "gfx908"), ("MI[56]0", "gfx906"), ("Vega 20", "gfx906"),
)  # fmt: skip
#: From, to, architecture.
_DEVICES = (
    (0x15F0, 0x15FF, "sm_60"), (0x1DB0, 0x1DBF, "sm_70"), (0x20B0, 0x20FF, "sm_80"), (0x2200, 0x22FF, "sm_86"), (0x2300, 0x234F, "sm_90"),
    (0x2680, 0x28FF, "sm_89"), (0x2900, 0x293F, "sm_100"),
)  # fmt: skip


def arch_of_model(model: str) -> str:
    """The architecture of a GPU by what its driver calls it (``"Tesla V100-SXM2-16GB"``: ``"sm_70"``), "" where unknown."""
    name = model[:200].replace("-", " ")
    return next((arch for sign, arch in _MODELS if re.search(rf"\b{sign}(?![0-9])", name)), "")


def arch_of_nvidia_device(device: str) -> str:
    """The architecture of an NVIDIA GPU by its PCI device id (``"0x20b0"``: ``"sm_80"``), "" where unknown."""
    number = int(device, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,4}", device) else 0
    return next((arch for least, most, arch in _DEVICES if least <= number <= most), "")
