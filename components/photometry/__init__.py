"""Colour science: what a photo measures, how tone is retouched, and how photos are damaged with known parameters."""
