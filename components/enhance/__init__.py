"""Photo in, better photo out: the full-resolution transfer, the Crafter that joins Critic and Artist, the commands."""
