"""What a process needs: output files, interrupts, memory, disk space, threads, timing."""
