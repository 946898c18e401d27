"""Runs a command until a given process is gone: `guard.py PID COMMAND…`. Stops it on SIGTERM, too."""

import os
import signal
import subprocess
import sys
import time


def main() -> int:
    owner_pid, argv = int(sys.argv[1]), sys.argv[2:]
    child = subprocess.Popen(argv)

    def stop(*_: object) -> None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    while child.poll() is None:
        try:
            os.kill(owner_pid, 0)
        except ProcessLookupError:
            stop()
        time.sleep(0.5)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
