"""Turn an archive of videos into tables of human poses.

The job is the command ``posebatch run``; its results are read with `read_poses`, `read_frames` and `read_videos`.
"""

from posebatch.core.version import __version__
from posebatch.dataset.tables.readers import read_frames, read_poses, read_videos

__all__ = ["__version__", "read_frames", "read_poses", "read_videos"]
