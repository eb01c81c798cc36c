"""``ray start``, however busy the machine is: with the patience of `posebatch.run.workers.ray_start`.

Without it, a raylet ends when one of its agents has not named its port within 15 s.
"""

import sys

from ray.scripts.scripts import main

from posebatch.run.workers.ray_start import LIMITS, _prepared_for_a_busy_machine

if __name__ == "__main__":
    sys.argv[1:1] = ["start"]
    with _prepared_for_a_busy_machine(LIMITS, say=print, check=lambda: None):
        main()
