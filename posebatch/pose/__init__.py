"""Frames to persons: detection, crops, heatmaps, keypoints."""
