import pytest

from blinkcoll.topology.gpu_models import arch_of_model, arch_of_nvidia_device
from blinkcoll.topology.rates import pcie_generation_of


@pytest.mark.parametrize(
    ("model", "arch"),
    [
        ("Tesla P100-SXM2-16GB", "sm_60"), ("Tesla V100-SXM2-16GB", "sm_70"), ("Tesla V100S-PCIE-32GB", "sm_70"), ("NVIDIA TITAN V", "sm_70"),
        ("Tesla T4", "sm_75"), ("NVIDIA GeForce RTX 2080 Ti", "sm_75"), ("Quadro RTX 8000", "sm_75"), ("NVIDIA A100-SXM4-80GB", "sm_80"),
        ("A100-PCIE-40GB", "sm_80"), ("NVIDIA A30", "sm_80"), ("NVIDIA A40", "sm_86"), ("NVIDIA A10G", "sm_86"), ("NVIDIA RTX A6000", "sm_86"),
        ("NVIDIA GeForce RTX 3090", "sm_86"), ("NVIDIA GeForce RTX 4090", "sm_89"), ("NVIDIA L4", "sm_89"), ("NVIDIA L40S", "sm_89"),
        ("NVIDIA RTX 6000 Ada Generation", "sm_89"), ("NVIDIA H100 80GB HBM3", "sm_90"), ("NVIDIA H20-3e", "sm_90"), ("NVIDIA H200", "sm_90"),
        ("NVIDIA GH200 480GB", "sm_90"), ("NVIDIA B200", "sm_100"), ("NVIDIA GB200", "sm_100"), ("NVIDIA B300 SXM6 AC", "sm_103"),
        ("NVIDIA GeForce RTX 5060 Ti", "sm_120"), ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "sm_120"),
        ("AMD Instinct MI210", "gfx90a"), ("AMD Instinct MI250X", "gfx90a"), ("AMD Instinct MI300X", "gfx942"), ("AMD Instinct MI325X", "gfx942"),
        ("AMD Instinct MI355X", "gfx950"), ("AMD Instinct MI100", "gfx908"), ("", ""), ("Matrox G200", ""),
    ],
)  # fmt: skip
def test_models_are_told_by_their_names(model, arch):
    assert arch_of_model(model) == arch


@pytest.mark.parametrize(("device", "arch"), [("0x1db5", "sm_70"), ("0x20b0", "sm_80"), ("0x2330", "sm_90"), ("0x2901", "sm_100"), ("0x2684", "sm_89"), ("0x2204", "sm_86"), ("0xffff", ""), ("x", "")])
def test_devices_are_told_by_their_pci_ids(device, arch):
    assert arch_of_nvidia_device(device) == arch


@pytest.mark.parametrize(("arch", "generation"), [("sm_60", 3), ("sm_75", 3), ("sm_80", 4), ("sm_89", 4), ("sm_90", 5), ("sm_120", 5), ("gfx90a", 4), ("gfx942", 5), ("", None)])
def test_pcie_generations(arch, generation):
    assert pcie_generation_of(arch) == generation
