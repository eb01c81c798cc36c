"""Probe a video, cut it into segments, and decode a segment into `FrameBatch`es.

A frame must have the same number however the video is cut. So one rule numbers frames everywhere: in presentation
order, as one sequential decode gives them, with a placeholder for each frame that should have come out but did not.
A segment starts at a keyframe of the container's index; its position in the index gives the number of its first frame.
The decoder checks the index against the stream and raises `IndexDisagreesError` where they differ. Frames that are not
sampled need not be decoded, but they are counted.

Errors of FFmpeg are translated here, and none leaves this package.
"""
