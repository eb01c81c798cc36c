"""Turn an archive of videos into tables of human poses.

The job is the command ``posebatch run``; its results are read with `read_poses`, `read_frames` and `read_videos`.
"""

from posebatch.tables import read_frames, read_poses, read_videos
from posebatch.version import __version__

__all__ = ["__version__", "read_frames", "read_poses", "read_videos"]
