"""Reading and writing the layout of the authors' release, and sampling as it samples."""
