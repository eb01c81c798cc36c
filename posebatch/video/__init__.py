"""Probe a video, cut it into segments, and decode a segment into `FrameBatch`es.

What a frame *is* must not depend on how a video is cut. So one rule numbers frames everywhere: the frames of the
stream in presentation order, as one sequential decode would give them, with a placeholder for each frame that should
have come out but did not. A segment starts at a keyframe of the container's index, whose position in the index gives
the number of its first frame. The decoder checks what the index promised and raises `IndexDisagreesError` otherwise.
Frames that nobody wants need not be decoded, but count as if they were.

Foreign errors are translated here: no FFmpeg error leaves this package.
"""
