"""The champion in service: who it is by the registry, and the copy of its package that is kept while it is read."""
