"""The models: Image Critic and Photographic Artist, their adapters, flow and sampling, and the package of both."""
