"""Questions to large models behind OpenAI-compatible servers: the connection, pictures in messages, answers on disk."""
