"""The verdict: the text that the Image Critic writes, its grammar, and the one prompt that asks for it."""
