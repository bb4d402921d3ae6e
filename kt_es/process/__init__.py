"""What every process needs from the machine: files that survive a crash."""
