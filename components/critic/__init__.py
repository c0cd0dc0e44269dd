"""The Image Critic: it looks at a photo and writes its reasoning, edit suggestions and a score."""
