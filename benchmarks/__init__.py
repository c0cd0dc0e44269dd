"""Every measurement of the project, with its peers, restated competitors and kill tests. Nothing of it ships."""
