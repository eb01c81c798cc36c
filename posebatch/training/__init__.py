"""Training of the two networks: examples, augmentation, losses, and a loop that survives a kill."""
