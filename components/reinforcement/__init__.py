"""Stage III, coordinated reinforcement: rewards, rollouts, GRPO for the Critic, DiffusionNFT for the Artist."""
