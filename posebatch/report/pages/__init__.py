"""HTML pages about an output: of a run, and of each video with a player. Each is one file that needs no other."""
