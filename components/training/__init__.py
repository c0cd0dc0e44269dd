"""What every stage shares (the loop, checkpoints, tracking) and the coordinated stage III."""
