"""The Photographic Artist: it edits the photo, conditioned on the Critic's hidden states, by rectified flow."""
