"""Processes of this machine, by their ids."""

from pathlib import Path


def state_of(pid: int) -> str:
    """The letter of a process's state, as in ps; "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        # It may also go while that is read.
        return ""


def alive(pid: int) -> bool:
    """Whether a process has not ended; one that nobody has waited for has."""
    return state_of(pid) not in ("", "Z")
