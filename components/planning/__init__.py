"""What a training run of the full-size models needs, before anything is launched."""
