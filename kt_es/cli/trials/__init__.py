"""Commands that try the whole system on this machine: demo, bench."""
