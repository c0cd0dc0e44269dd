"""What becomes of a trained Critic and Artist: the model card, and the rule by which a package becomes champion."""
