"""The first process of a host: it gives the host a name, files of its own, and an end.

It runs in fresh namespaces (``unshare``). With its standard input it ends, and the kernel then ends all processes of
the host and removes its namespaces, however the test process ended. So nothing is left behind.

``python host_init.py NAME FOLDER``: ``FOLDER`` holds ``tmp``, ``hosts`` and ``resolv.conf``.
"""

import os
import select
import socket
import subprocess
import sys

OWN = (("tmp", "/tmp"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"))


def main(name: str, folder: str) -> None:
    """Set up the host, say so, and collect ended orphans until the input ends."""
    socket.sethostname(name)
    for own, place in OWN:
        subprocess.run(["mount", "--bind", os.path.join(folder, own), os.path.realpath(place)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", "/dev/shm"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.5)[0]:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
