"""Serving: limits, the service that turns picture bytes into an enhanced photo and a verdict, and its HTTP face."""
