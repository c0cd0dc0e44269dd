"""Adapters: one module for each public dataset, reading it exactly as published. `README.md` shows how to add one."""
