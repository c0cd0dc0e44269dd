"""What builds things that the product only uses: the tiny base models."""
