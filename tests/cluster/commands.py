"""Programs that the tests run: kubectl, helm."""

import subprocess


def run(*command: str, stdin: str | None = None, timeout: float | None = None) -> str:
    """Run a command and return what it prints.

    Raises:
        AssertionError: it failed; the message has its stderr.
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
