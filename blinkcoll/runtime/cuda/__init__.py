"""GPUs: the kernel, its compiler, and the executor that launches it through a device layer."""
