"""SIGTERM does not end a worker process: it is noted, in the crash folder too, while the main thread waits in C."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, os, signal, sys, threading, time
from posebatch.run.workers.crash_reports import read_crash_report
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.termination import TerminationNotice

notice = TerminationNotice()
noted = threading.Event()
notice.listen(lambda: (heartbeat.note_termination(), noted.set()))
crash_dir = heartbeat.start(600, 1e12)

def terminate():
    assert not notice.is_given
    os.kill(os.getpid(), signal.SIGUSR1)  # another signal is no notice
    os.kill(os.getpid(), signal.SIGTERM)
    assert noted.wait(20) and notice.is_given
    print(read_crash_report(crash_dir).was_ending, flush=True)
    os._exit(0)

signal.signal(signal.SIGUSR1, lambda *_: None)
threading.Thread(target=terminate).start()
ctypes.CDLL(None).sleep(60)  # the main thread runs no Python
"""


def test_notice_comes_while_the_main_thread_runs_no_python():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
