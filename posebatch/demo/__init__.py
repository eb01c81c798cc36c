"""The demo: a sample video with known joints, and the job on it."""
