"""The movement of an output in the formats of other programs: a module of pure functions for each family."""
