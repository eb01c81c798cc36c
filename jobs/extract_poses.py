"""The job for ``ray job submit``: ``python jobs/extract_poses.py ARGUMENTS`` is ``posebatch run ARGUMENTS``."""

import sys
from pathlib import Path

# the checkout that came with the job goes before whatever the cluster has installed
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from posebatch.cli.entry import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
