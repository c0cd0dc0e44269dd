"""Rewards of stage III. Each is one function and one entry of the table of its module, `artist` or `critic`."""
