"""Training of the two networks: examples, augmentation, losses, and a loop that resumes after a kill."""
