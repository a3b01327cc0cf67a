"""Training: the mini world, SFT, soups, the reward model and alignment with any KL reference."""
