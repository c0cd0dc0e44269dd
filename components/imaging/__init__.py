"""The one room that reads and writes pictures: decoders, encoders, profiles, metadata; `photo` is what others call."""
