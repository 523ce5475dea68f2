"""laplace-torch in its own process: what `laplace.py` asks of it."""

import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

WORKER = Path(__file__).with_name("laplace_torch_worker.py")
ABSENT = "not installed"


class PeerError(RuntimeError):
    """laplace-torch raised an error; the message is its own."""


class Peer:
    """A worker process with laplace-torch, or none at all.

    Args:
        python: the interpreter of an environment that has it; None = none.
        job: networks, data and indices; see `laplace_torch_worker.Worker`.
    """

    def __init__(self, python: Path | None, job: dict[str, Any]) -> None:
        self.python = python
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[str] | None = None
        if python is not None:
            torch.save(job, Path(self._folder.name, "job.pt"))
            self._process = self._start()
            self.ask(do="hello")

    def __enter__(self) -> "Peer":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process."""
        if self._process is not None:
            self._end(self._process)
        self._folder.cleanup()

    def ask(self, **request: Any) -> Any:
        """One request's answer.

        Raises:
            PeerError: laplace-torch raised.
        """
        assert self._process is not None
        return self._ask(self._process, request)

    def ask_anew(self, **request: Any) -> Any:
        """The same in a process that has done nothing else: for memory."""
        process = self._start()
        try:
            self._ask(process, {"do": "hello"})
            return self._ask(process, request)
        finally:
            self._end(process)

    def _start(self) -> "subprocess.Popen[str]":
        command = [str(self.python), "-P", "-W", "ignore", str(WORKER), str(Path(self._folder.name, "job.pt"))]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @staticmethod
    def _end(process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)

    @staticmethod
    def _ask(process: "subprocess.Popen[str]", request: dict[str, Any]) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise PeerError(f"the process ended with {process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer
