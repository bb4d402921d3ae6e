"""What every process needs from the machine: files, signals, threads, logs, metrics and TLS certificates."""
