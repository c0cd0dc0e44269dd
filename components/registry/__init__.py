"""What becomes of a trained Critic and Artist: one package on disk, and the rule by which it becomes champion."""
