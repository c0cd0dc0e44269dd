"""Annotation: views of photos and the verdicts that the Critic learns, written offline or by a large model."""
