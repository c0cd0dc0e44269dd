"""Judges of r_comp: does an edit follow the Critic's suggestions? By measured attributes, or by a multimodal model."""
