"""Pictures for people: skeletons on frames, GIFs."""
