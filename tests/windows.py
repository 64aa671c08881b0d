"""Windows, as far as Linux can play it: what the kit asks of the system is refused where Windows would refuse it.

`install` does so in a process and in all that it starts (kernels, dask workers), by a sitecustomize.py. Libraries have
Windows ways of their own, which Linux cannot run: what only a library asks for is granted.
"""

import builtins
import functools
import io
import multiprocessing
import os
import re
import resource
import signal
import sys
from pathlib import Path
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

import psutil

HOME = r"C:\Users\Firstname Lastname\Documents\prffn"
"""In the place of which the emulated folder stands, for the length of paths."""

REFUSED: dict[str, Any] = {
    "modules": ("_posixsubprocess", "crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog",
                "termios", "tty"),
    "os": ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "O_TMPFILE", "WNOHANG", "chown", "chroot",
           "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getloadavg", "getpgid",
           "getpgrp", "getpriority", "getsid", "getuid", "initgroups", "killpg", "lchown", "mkfifo", "mknod", "nice",
           "openpty", "posix_fallocate", "posix_spawn", "pread", "pwrite", "register_at_fork", "sched_getaffinity",
           "sched_setaffinity", "setgid", "setpgid", "setsid", "setuid", "statvfs", "sync", "sysconf", "uname", "wait",
           "umask"),  # which is there, and whose modes mean nothing
    "signal": ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2",
               "alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait"),
    "start methods": ("fork", "forkserver"),
    "letters of names": re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$'),
    "names": re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE),
    "length of paths": 260,
    "folders": ("/proc", "/sys", "/dev"),
}  # fmt: skip
"""What the kit is refused. Besides: symbolic links, which take a privilege; to replace, rename or remove a file that
the process still has open; to rename onto a file; a second name that differs by case only; text without its encoding.
"""

SAID: dict[str, dict[str, Any]] = {
    "sys": {"platform": "win32"},
    "os": {"name": "nt"},
    "signal": {"SIGBREAK": signal.SIGTTIN},  # both are number 21
}
"""What the kit is told in their place."""

SITE = "import sys; sys.path.append({here!r}); import windows; windows.install({package!r}, {root!r})\n"


def environment(package: Path, root: Path, elsewhere: Path) -> dict[str, str]:
    """The environment variables of a process on this Windows: no compiler, no make and no git on its path, a cp1252
    console. root: the folder whose files are Windows files. elsewhere: for temporary files of libraries."""
    site, temporary, path = (elsewhere / name for name in ("site", "temporary", "path"))
    for folder in (site, temporary, path):
        folder.mkdir(parents=True)
    here = str(Path(__file__).parent)
    (site / "sitecustomize.py").write_text(SITE.format(here=here, package=str(package), root=str(root)))
    kept = {name: value for name, value in os.environ.items() if name not in ("CC", "PYTHONSTARTUP")}
    return kept | {
        "PATH": str(path),
        "TMPDIR": str(temporary),
        "PYTHONPATH": f"{site}{os.pathsep}{package.parent}",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "cp1252",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


LIBRARY = os.path.dirname(os.__file__)
PACKAGES = os.path.join(LIBRARY, "site-packages")


def asks(package: str) -> bool:
    """Whether the kit asks: it called, perhaps through the standard library, what is running now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        standard = file.startswith((LIBRARY, "<frozen")) and "site-packages" not in file
        if file != __file__ and not standard:
            return file.startswith(package)
        frame = frame.f_back
    return False


def install(package: str, root: str) -> None:
    """Refuses from now on. package: the folder of the kit. root: the folder whose files are Windows files."""
    package += os.sep
    _refuse_modules(package)
    for module in (os, signal, sys):
        _refuse_attributes(module, package)
    _refuse_text(package)
    _refuse_to_rename_onto(package)
    _count_memory(package)
    for method in REFUSED["start methods"]:
        multiprocessing.context._concrete_contexts.pop(method)  # type: ignore[attr-defined]
    multiprocessing.set_start_method("spawn", force=True)
    os.linesep = "\r\n"
    sys.addaudithook(_Files(package, root))


def _refuse_modules(package: str) -> None:
    grant = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> ModuleType:
        if name.partition(".")[0] in REFUSED["modules"] and sys._getframe(1).f_code.co_filename.startswith(package):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return grant(name, *rest, **more)

    builtins.__import__ = importing


def _refuse_attributes(module: ModuleType, package: str) -> None:
    name = module.__name__
    refused, said, frame = frozenset(REFUSED.get(name, ())), SAID.get(name, {}), sys._getframe
    special = refused | set(said)

    class Refusing(ModuleType):
        def __getattribute__(self, attribute: str) -> Any:
            if attribute in special and frame(1).f_code.co_filename.startswith(package):
                if attribute in said:
                    return said[attribute]
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            return ModuleType.__getattribute__(self, attribute)

    module.__class__ = Refusing


def _refuse_text(package: str) -> None:
    """The kit must say how text is encoded; where a text's ends of lines are not said, they are those of Windows."""
    grant = io.open

    def opening(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
                errors: str | None = None, newline: str | None = None, *rest: Any, **more: Any) -> Any:  # fmt: skip
        if "b" not in mode:
            if encoding in (None, "locale") and asks(package):
                raise UnicodeError(f"{file}: the kit does not say how this text is encoded")
            if newline is None and "r" not in mode:
                newline = "\r\n"
        return grant(file, mode, buffering, encoding, errors, newline, *rest, **more)

    io.open = builtins.open = opening


def _refuse_to_rename_onto(package: str) -> None:
    grant = os.rename

    def renaming(source: Any, target: Any, **more: Any) -> None:
        if asks(package) and os.path.exists(target):
            raise FileExistsError(17, "Cannot create a file when that file already exists", target)
        grant(source, target, **more)

    os.rename = renaming


def _count_memory(package: str) -> None:
    """psutil has the peak of a process on Windows alone, where nothing else tells it."""
    grant = psutil.Process.memory_info

    @functools.wraps(grant)
    def memory_info(self: psutil.Process) -> Any:
        found = grant(self)
        if not asks(package):
            return found
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return SimpleNamespace(rss=found.rss, vms=found.vms, wset=found.rss, peak_wset=peak)

    psutil.Process.memory_info = memory_info


class _Files:
    """An audit hook: what it raises is what the system answers."""

    def __init__(self, package: str, root: str) -> None:
        self.package, self.root = package, root + os.sep

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = self.path(arguments[0]), arguments[2]
            if path.startswith(REFUSED["folders"]) and not path.startswith(self.root) and asks(self.package):
                raise FileNotFoundError(2, "No such file or directory", path)
            if flags & os.O_CREAT:
                self.check_name(path)
        elif event == "os.mkdir":
            self.check_name(self.path(arguments[0]))
        elif event == "os.remove":
            self.check_closed(self.path(arguments[0]))
        elif event == "os.rename":
            for path in map(self.path, arguments[:2]):
                self.check_closed(path)
            self.check_name(self.path(arguments[1]))
        elif event == "os.symlink" and asks(self.package):
            raise OSError(1314, "A required privilege is not held by the client", arguments[1])

    @staticmethod
    def path(given: str | bytes | os.PathLike[str]) -> str:
        return os.path.abspath(os.fsdecode(given))

    def check_name(self, path: str) -> None:
        """Refuses a name that no file of Windows can have, or that differs from another file's by case only."""
        if not path.startswith(self.root):
            return
        within = path.removeprefix(self.root)
        for name in within.split(os.sep):
            if REFUSED["letters of names"].search(name) or REFUSED["names"].match(name):
                raise OSError(22, "The filename, directory name, or volume label syntax is incorrect", path)
        if len(HOME) + 1 + len(within) >= REFUSED["length of paths"]:
            raise FileNotFoundError(2, "The system cannot find the path specified", path)
        folder, name = os.path.split(path)
        others = os.listdir(folder) if os.path.isdir(folder) and not os.path.lexists(path) else ()
        for other in others:
            if other.casefold() == name.casefold():
                raise FileExistsError(17, f"{other} is the same file", path)

    def check_closed(self, path: str) -> None:
        """Refuses to touch a file that this process has open, or a folder with one in it."""
        if path.startswith(self.root) or asks(self.package):
            for number in os.listdir("/proc/self/fd"):
                try:
                    held = os.readlink(f"/proc/self/fd/{number}")
                except OSError:  # of the listing itself
                    continue
                if held == path or held.startswith(path + os.sep):
                    raise PermissionError(13, "The process cannot access the file because it is being used", path)
