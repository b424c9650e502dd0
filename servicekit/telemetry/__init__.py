"""What is seen of a process: its log, metrics and traces."""
