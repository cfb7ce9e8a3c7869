"""Running programs: memory, launches, executors for host threads, host processes and GPUs."""
