"""Photo in, better photo out: Critic and Artist joined, their edit at full resolution, files and folders."""
