"""Training the two networks: examples, augmentation, losses, and a loop that survives being killed."""
