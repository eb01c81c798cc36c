"""How each track moves: smoothed joints, angles, speeds, and how far they can be trusted."""
