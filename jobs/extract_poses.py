"""The job for ``ray job submit``: ``python jobs/extract_poses.py ARGUMENTS`` is ``posebatch run ARGUMENTS``."""

import sys

from posebatch.cli.entry import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
