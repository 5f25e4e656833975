"""Programs that start at once: a server imports everything, and a fork of it becomes the program.

The fork runs the program's file as `__main__` and ends as the interpreter ends, so signals find what they would find in
a process of its own, but for the seconds of the imports.
"""

import json
import os
import runpy
import select
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PROGRAMS = ("train", "reconstruct", "preprocess_mesh")
_LATE = ("training.level", "training.curves", "pyvips", "tifffile", "zarr")  # what they import when they need it


class Forks:
    """A server, which runs one program at a time."""

    def __init__(self, environment: dict[str, str]):
        self.server = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.soak.forks"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def start(
        self, command: list[str], folder: Path, said: Path | None = None, visit_points: int | None = None
    ) -> "Forked":
        """Run a program in a folder.

        Inputs
            command: the program's file, and its arguments
            said: folder for out.txt and error.txt, which hold what it prints; None for the folder it runs in
            visit_points: of a visit at most, in place of the CPU's usual ones
        """
        request = [command, str(folder), str(said or folder), visit_points]
        self.server.stdin.write(json.dumps(request).encode() + b"\n")
        return Forked(int(self.server.stdout.readline()), self.server)

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()


class Forked:
    """A running program; it waits as `subprocess.Popen` does."""

    def __init__(self, pid: int, server: subprocess.Popen):
        self.pid = pid
        self.server = server
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self.server.stdout], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout)
            self.returncode = int(self.server.stdout.readline())
        return self.returncode


def serve() -> list[str]:
    """Fork for every request; returns in the forks, with the command that they are to become."""
    for name in (*_PROGRAMS, *_LATE):
        __import__(name)
    for line in sys.stdin:
        command, folder, said, visit_points = json.loads(line)
        child = os.fork()
        if child == 0:
            settle(Path(folder), Path(said), visit_points)
            return command
        print(child)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.exit()


def settle(folder: Path, said: Path, visit_points: int | None) -> None:
    """In a fork: its session, folder, streams and temporary files are its own."""
    from training import trainer

    os.setsid()
    os.chdir(folder)
    tempfile.tempdir = None  # which the imports may have chosen
    out, error = (os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("out.txt", "error.txt"))
    for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), out, error)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if visit_points is not None:
        trainer._VISIT_POINTS = {"cpu": visit_points}


if __name__ == "__main__":
    sys.argv = serve()
    runpy.run_path(sys.argv[0], run_name="__main__")
