"""Process 1 of a node: containerd and the kubelet in namespaces that die with it.

It runs as `unshare … python3 local/node_init.py CONFIG.json`; with `pool` after that, inside a node that an earlier
commit has started, it mounts the node's pool alone. The mount namespace is private, so
none of its mounts is seen outside; the PID namespace makes the kernel end every process of the
node, containers included, when this one ends. CONFIG.json has `name`, `folder` (the node's data),
`bin` (the folder of the kubelet), `cgroup` (this node's root cgroup, as in `/gameserver-node1`).
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

#: Folders of a real machine that each node has for itself; what is under /run dies with the node.
FOLDERS = (
    "/etc/kubernetes",
    "/etc/cni",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
    "/opt/local-path-provisioner",
)
#: Where the node has its pool of disks: a file system in a file of the node's data.
POOL = "/var/lib/gameserver-disks"
#: What the pool promises to disks; the file takes only what is in use.
POOL_BYTES = 200 << 30
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
#: How long the games get to save their worlds when the node is stopped, in seconds.
GRACE_SECONDS = 60
#: How long the kernel may take to give up the pool of a node that was killed, in seconds.
POOL_SECONDS = 30

_MS_BIND, _MS_REC, _MS_SHARED = 4096, 16384, 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "none", flags: int = 0) -> None:
    """mount(2); raises OSError."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def prepare(config: dict[str, str]) -> None:
    """Give the node its host name, its folders and its place in the cgroups."""
    _libc.sethostname(config["name"].encode(), len(config["name"]))
    mount("tmpfs", "/run", "tmpfs")
    for folder in ("/run/containerd", "/run/netns", "/run/lock"):
        Path(folder).mkdir(parents=True)
    for folder in FOLDERS:
        own = Path(config["folder"]) / folder.lstrip("/")
        own.mkdir(parents=True, exist_ok=True)
        Path(folder).mkdir(parents=True, exist_ok=True)
        mount(str(own), folder, flags=_MS_BIND)
    pool(config)
    # The kubelet's mounts must reach the containers that are started after them, and containerd lets
    # a container take part in the mounts of a volume folder only where these are shared.
    for shared in ("/var/lib/kubelet", "/opt/local-path-provisioner"):
        mount("none", shared, flags=_MS_REC | _MS_SHARED)
    # What the node's data holds of an earlier boot but belongs to no running process any more.
    Path("/var/lib/kubelet/cpu_manager_state").unlink(missing_ok=True)
    Path("/var/lib/kubelet/memory_manager_state").unlink(missing_ok=True)
    for controller in Path("/sys/fs/cgroup").iterdir():
        group = controller / config["cgroup"].lstrip("/")
        if not (controller / "cgroup.procs").exists():
            continue
        group.mkdir(exist_ok=True)
        if controller.name == "cpuset":
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (group / setting).write_text((controller / setting).read_text())
        system = group / "system"
        system.mkdir(exist_ok=True)
        if controller.name == "cpuset":
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (system / setting).write_text((group / setting).read_text())
        (system / "cgroup.procs").write_text("1")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def pool(config: dict[str, str]) -> None:
    """Mount the node's pool of disks at POOL if it is not there; the first time it is made, with nothing in it.

    The loop device goes with the mount, and the mount with the node's namespace: a killed node leaves neither.

    Raises:
        subprocess.CalledProcessError: it cannot be made, or not be mounted within POOL_SECONDS.
    """
    if os.path.ismount(POOL):
        return
    image = Path(config["folder"]) / "pool.img"
    if not image.exists():
        unfinished = image.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        with unfinished.open("wb") as file:
            file.truncate(POOL_BYTES)
        # A snapshot of a disk is a reflink of its file.
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", unfinished], check=True)
        unfinished.rename(image)
    Path(POOL).mkdir(parents=True, exist_ok=True)
    # `discard` gives what an erased disk took back to the machine.
    command = ["mount", "-t", "xfs", "-o", "loop,discard,nodev,nosuid", str(image), POOL]
    deadline = time.monotonic() + POOL_SECONDS
    # XFS refuses a second mount of the pool, which a node that was just killed may still have.
    while subprocess.run(command, check=time.monotonic() > deadline).returncode != 0:
        time.sleep(0.5)
    # The disks in it are mounted by the driver's container, and must appear on the node and in other containers.
    mount("none", POOL, flags=_MS_REC | _MS_SHARED)


class Node:
    """The node's two daemons, kept running until a SIGTERM."""

    def __init__(self, config: dict[str, str]) -> None:
        self._config = config
        self._folder = Path(config["folder"])
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._not_before: dict[str, float] = {}
        self.stopping = False

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM."""
        self.stopping = True

    def run(self) -> None:
        """Start what isn't running, reap what ended, until told to stop."""
        while not self.stopping:
            self._ensure("containerd", ["containerd", "--config", str(self._folder / "containerd.toml")])
            # kubeadm writes the kubelet's config, then waits for systemd to start it.
            if Path("/var/lib/kubelet/config.yaml").exists() and Path(CONTAINERD_SOCKET).exists():
                self._ensure("kubelet", self._kubelet())
            self._reap()
            time.sleep(0.2)
        self._shut_down()

    def _kubelet(self) -> list[str]:
        flags = [
            f"{self._config['bin']}/kubelet",
            "--config=/var/lib/kubelet/config.yaml",
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
            f"--cgroup-root={self._config['cgroup']}",
        ]
        environment = Path("/var/lib/kubelet/kubeadm-flags.env")
        if environment.exists():
            flags += environment.read_text().split('"')[1].split()
        return flags

    def _ensure(self, name: str, command: list[str]) -> None:
        daemon = self._daemons.get(name)
        if daemon is not None and daemon.poll() is None:
            return
        if time.monotonic() < self._not_before.get(name, 0):
            return
        with (self._folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._not_before[name] = time.monotonic() + 1

    def _reap(self) -> None:
        """Collect the orphans that process 1 inherits; Popen.poll collects the daemons."""
        own = {daemon.pid for daemon in self._daemons.values()}
        while True:
            try:
                done = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if done is None:
                return
            if done.si_pid in own:
                for daemon in self._daemons.values():
                    daemon.poll()
                return
            os.waitpid(done.si_pid, 0)

    def _shut_down(self) -> None:
        """End all as the kubelet would: SIGTERM, then time for the games to save their worlds.

        Only the games are waited for: the API server alone would take a minute to let its watches go.
        """
        self._end("kubelet")
        for task in self._running():
            subprocess.run(["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGTERM", task], capture_output=True)
        games = self._games()
        deadline = time.monotonic() + GRACE_SECONDS
        while games & self._running() and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.2)
        self._end("containerd")

    def _running(self) -> set[str]:
        """The containers that have a running process."""
        listed = subprocess.run(["ctr", "-n", "k8s.io", "tasks", "ls"], capture_output=True, text=True)
        rows = [line.split() for line in listed.stdout.splitlines()[1:]]
        return {row[0] for row in rows if len(row) == 3 and row[2] == "RUNNING"}

    def _games(self) -> set[str]:
        """The containers of game servers, whose name the chart gives."""
        named = 'labels."io.kubernetes.container.name"==game'
        listed = subprocess.run(
            ["ctr", "-n", "k8s.io", "containers", "ls", "-q", named], capture_output=True, text=True
        )
        return set(listed.stdout.split())

    def _end(self, name: str) -> None:
        daemon = self._daemons.get(name)
        if daemon is None or daemon.poll() is not None:
            return
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()


def main() -> None:
    """Run the node that the configuration names, until SIGTERM; or mount its pool."""
    config: dict[str, str] = json.loads(Path(sys.argv[1]).read_text())
    if sys.argv[2:] == ["pool"]:
        pool(config)
        return
    node = Node(config)
    signal.signal(signal.SIGTERM, node.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    prepare(config)
    (Path(config["folder"]) / "prepared").touch()
    node.run()


if __name__ == "__main__":
    main()
