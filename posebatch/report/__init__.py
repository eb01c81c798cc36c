"""Pictures for people: skeletons drawn on frames, GIFs."""
