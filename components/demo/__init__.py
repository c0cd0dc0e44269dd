"""A web page on this machine: drop a photo in, see the Critic's verdict, compare before and after, keep the result."""
