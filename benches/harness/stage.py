"""Our server with functions `small` and `big`, whose handler is the backend of all who are compared."""
import contextlib, os, pathlib

from .engine import Engine
from .peers import BIG, SMALL, Backend
from .server import Folder, Tinyfaas, release


class Stage:
    """What benches of front doors share: the backend, and files with the bodies that are sent."""

    def __init__(self, folder):
        self.folder = folder
        self.backend = Backend(folder)
        self.engine = Engine(folder, self.backend.sockets)
        self.questions = {"small": f"{folder}/question-small", "big": f"{folder}/question-big"}
        for name, size in (("small", SMALL), ("big", BIG)):
            pathlib.Path(self.questions[name]).write_bytes(b"x" * size)

    @contextlib.contextmanager
    def tinyfaas(self, *flags):
        """Our server, ready to be called."""
        folder = f"{self.folder}/tinyfaas-{len(os.listdir(self.folder))}"
        # As many connections to the handler as the others may make.
        with Tinyfaas(release(), folder, [*self.engine.flags, "--concurrency", "128", *flags]) as server:
            for name in self.backend.sockets:
                server.deploy(name, "python3", {"fn.py": "\n"})
            yield server


@contextlib.contextmanager
def stage():
    with Folder() as folder:
        made = Stage(folder)
        try:
            yield made
        finally:
            made.engine.stop()
            made.backend.server.stop()
