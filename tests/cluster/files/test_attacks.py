"""A customer, or a game that a customer has taken over, must not reach anything outside the server's own disk.

The game's container puts everything that its user can create on the disk, and the session tries every operation on it.
Carol's disk is on the same node as Alice's, Bob's is on another.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh

from tests.cluster.commands import on_node
from tests.cluster.files.servers import OTHER_HASH, OTHER_PASSWORD, PASSWORD, Server, eventually, in_sftp_pod

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
Operation = Callable[[asyncssh.SFTPClient, str], Awaitable[object]]


async def _read(sftp: asyncssh.SFTPClient, path: str) -> bytes:
    async with sftp.open(path, "rb") as file:
        # In the types of asyncssh a file reads text, whatever its mode.
        content: Any = await file.read()
        return bytes(content)


async def _write(sftp: asyncssh.SFTPClient, path: str) -> object:
    async with sftp.open(path, "r+b") as file:
        await file.write(b"attacked")
    return "written"


# Each operation follows a link at the end of its path.
FOLLOWING: dict[str, Operation] = {
    "read": _read,
    "write": _write,
    "stat": lambda sftp, path: sftp.stat(path),
    "chmod": lambda sftp, path: sftp.chmod(path, 0o777),
    "utime": lambda sftp, path: sftp.utime(path, (0, 0)),
    "truncate": lambda sftp, path: sftp.truncate(path, 0),
    "list": lambda sftp, path: sftp.listdir(path),
    "change owner": lambda sftp, path: sftp.chown(path, 0, 0),
    "make a folder": lambda sftp, path: sftp.mkdir(path + "/attacked-folder"),
    "write below": lambda sftp, path: _create(sftp, path + "/attacked"),
    "rename out": lambda sftp, path: sftp.rename("/files/own.txt", path + "/attacked-name"),
    "rename in": lambda sftp, path: sftp.rename(path + "/other.txt", "/files/stolen-name"),
    "hard link": lambda sftp, path: sftp.link(path + "/secret.txt", "/files/stolen"),
    "delete below": lambda sftp, path: sftp.remove(path + "/secret.txt"),
    "link below": lambda sftp, path: sftp.symlink("/etc/passwd", path + "/attacked-link"),
}


async def _create(sftp: asyncssh.SFTPClient, path: str) -> object:
    async with sftp.open(path, "wb") as file:
        await file.write(b"attacked")
    return "written"


def _tried(server: Server, paths: list[str], operations: dict[str, Operation] = FOLLOWING) -> list[str]:
    """Try each operation on each path, and return those that did not fail."""

    async def all_of_them() -> list[str]:
        worked = []
        async with server.connect() as connection, connection.start_sftp_client() as sftp:
            for path in paths:
                for name, operation in operations.items():
                    try:
                        result = await operation(sftp, path)
                    except asyncssh.SFTPError:
                        continue
                    worked.append(f"{name} {path}: {result!r}")
        return worked

    return asyncio.run(all_of_them())


def _tried_by_openssh(server: Server, paths: list[str], folder: Path) -> list[str]:
    """Try the same with OpenSSH's sftp, as far as it has commands, and return those that were not refused."""
    (folder / "up").write_text("attacked")
    commands = [
        command
        for path in paths
        for command in (
            f"get {path} {folder}/down",
            f"put {folder}/up {path}",
            f"ls {path}/",
            f"chmod 777 {path}",
            f"mkdir {path}/attacked-folder",
            f"rename {path}/other.txt stolen-name",
            f"ln {path}/secret.txt stolen",
            f"rm {path}/secret.txt",
            f"ln -s /etc/passwd {path}/attacked-link",
        )
    ]
    # With "-" before a command, sftp continues after its failure. It prints each command, then its error.
    output = server.openssh(*(f"-{command}" for command in commands)).splitlines()
    shown = [number for number, line in enumerate(output) if line.startswith("sftp> -")]
    answers = [output[start:end] for start, end in zip(shown, [*shown[1:], None], strict=True)]
    assert len(answers) == len(commands)
    refused = ("No such file", "not found", "Permission denied", "Failure", "ouldn't", "an't", "not a regular file")
    return [
        answer[0].removeprefix("sftp> -")
        for answer in answers
        if not any(word in line for line in answer[1:] for word in refused)
    ]


def test_the_operations_do_work_where_they_may(alice: Server, tmp_path: Path) -> None:
    """Nearly all operations succeed on the customer's own folder and file. This is the control of the tests below."""
    alice.game(
        "rm -rf control stolen*; mkdir control; cd control; echo own | tee secret.txt other.txt ../file > ../own.txt"
    )
    worked = {line.split(" /")[0] for line in _tried(alice, ["/files/control", "/files/file"])}
    assert worked == set(FOLLOWING) - {"change owner"}
    alice.game("rm -rf control stolen*; mkdir control; echo own | tee control/secret.txt > control/other.txt")
    by_openssh = [line.split()[0] for line in _tried_by_openssh(alice, ["control", "file"], tmp_path)]
    assert sorted(by_openssh) == ["chmod", "chmod", "get", "ln", "ln", "ls", "mkdir", "put", "put", "rename", "rm"]
    alice.game("rm -rf control stolen* file")


def test_symbolic_links_lead_nowhere_outside(alice: Server, carol: Server, tmp_path: Path) -> None:
    """No operation on a link leads out of the chroot, whatever the link points to."""
    carol.game("echo carols | tee other.txt > secret.txt")
    alice.game("echo own > own.txt")
    targets = {
        "shadow": "/etc/shadow",
        "users": "/var/lib/extrausers/shadow",
        "carol": f"/srv/sftp/{carol.user}/files",
        "carol-up": f"../../{carol.user}/files",
        "root": "/proc/1/root",
        "cwd": "/proc/self/cwd",
        "token": TOKEN,
        "volumes": "/host/opt/local-path-provisioner",
        "host-key": "/etc/ssh/host-key/ssh_host_ed25519_key",
        "dots": "../../../../../../../etc/shadow",
    }
    for name, target in targets.items():
        alice.game(f"ln -sfn {target} {name}")
    assert _tried(alice, [f"/files/{name}" for name in targets]) == []
    assert _tried_by_openssh(alice, list(targets), tmp_path) == []
    assert alice.game("cat own.txt") == "own\n"
    assert carol.game("cat secret.txt; ls").startswith("carols\n")
    for name in targets:
        alice.openssh(f"rename {name} {name}.renamed", f"rm {name}.renamed")


def test_links_made_by_the_customer_lead_nowhere_outside(alice: Server) -> None:
    """A link that the SFTP session itself creates does not lead out of the chroot."""

    async def plant() -> None:
        async with alice.connect() as connection, connection.start_sftp_client() as sftp:
            for name, target in {"made": "/etc/shadow", "made-up": "/../../etc"}.items():
                await sftp.symlink(target, f"/files/{name}")

    asyncio.run(plant())
    assert _tried(alice, ["/files/made", "/files/made-up"]) == []
    alice.openssh("rm made", "rm made-up")


def test_dots_lead_nowhere_outside(alice: Server, carol: Server) -> None:
    """`..` anywhere in a path stays inside the chroot."""
    alice.game("echo own > own.txt")
    paths = [
        "../../../../etc/shadow",
        "/../../etc/shadow",
        "/files/../../../etc/shadow",
        "/files/./../..//etc/shadow",
        f"/files/../../{carol.user}/files",
        f"/../{carol.user}/files",
        f"..//..//{carol.user}",
    ]
    assert _tried(alice, paths) == []


def test_the_chroot_itself_cannot_be_changed(alice: Server) -> None:
    """The chroot's own folders belong to root, so nothing can be created next to the disk or put in its place."""
    operations: dict[str, Operation] = {
        "write beside": lambda sftp, path: _create(sftp, "/attacked"),
        "write in dev": lambda sftp, path: _create(sftp, "/dev/attacked"),
        "rename the disk": lambda sftp, path: sftp.rename("/files", "/moved"),
        "remove the log": lambda sftp, path: sftp.remove("/dev/log"),
        "make a folder": lambda sftp, path: sftp.mkdir("/attacked"),
        "chmod the chroot": lambda sftp, path: sftp.chmod("/", 0o777),
        "hard link": lambda sftp, path: sftp.link("/dev/log", "/files/log"),
        "link": lambda sftp, path: sftp.symlink("/etc", "/attacked"),
    }
    assert _tried(alice, ["/"], operations) == []


def test_a_link_swapped_in_while_the_session_reads_gains_nothing(alice: Server) -> None:
    """A session reads while the game swaps a folder for a link to /etc and back, as fast as it can."""
    alice.game("mkdir -p real && echo own > real/hostname && echo own > real/passwd")
    swap = (
        "for i in $(seq 1500); do ln -sfn real swap; ln -sfn /etc swap; ln -sfn ../../../etc swap; done;"
        " ln -sfn real swap"
    )

    async def read_meanwhile() -> set[bytes]:
        seen: set[bytes] = set()
        swapping = asyncio.create_task(asyncio.to_thread(alice.game, swap))
        async with alice.connect() as connection, connection.start_sftp_client() as sftp:
            while not swapping.done():
                try:
                    seen.add(await _read(sftp, "/files/swap/passwd"))
                except asyncssh.SFTPError:
                    seen.add(b"(refused)")
        await swapping
        return seen

    assert asyncio.run(read_meanwhile()) == {b"own\n", b"(refused)"}


def test_the_disk_has_no_devices_no_setuid_and_no_programs(alice: Server) -> None:
    """The mount's own options forbid them, no matter how they got there."""
    mounts = in_sftp_pod(alice.node, f"grep ' /srv/sftp/{alice.user}/files ' /proc/self/mountinfo").splitlines()
    assert len(mounts) == 1
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounts[0].split()[5].split(","))


def test_only_the_chroots_mount_of_a_disk_can_be_written(alice: Server) -> None:
    """In the SFTP pod, the node's folder of volumes is mounted read-only."""
    output = in_sftp_pod(alice.node, "touch /host/opt/local-path-provisioner/attacked 2>&1 || true")
    assert "Read-only file system" in output


def test_a_device_on_the_disk_cannot_be_opened(alice: Server, tmp_path: Path) -> None:
    """No operation opens a device. Root creates it on the node, because the game and SFTP cannot."""
    refused = "mknod device c 1 5 2>&1 || true"
    assert "Operation not permitted" in alice.game(refused)
    nodes = {"zero": "c 1 5", "memory": "c 1 1", "disk": "b 254 0"}
    for name, numbers in nodes.items():
        on_node(alice.node, f"mknod -m 666 {alice.folder}/{name} {numbers}")
    # The control: on the node itself the device works, where the disk is mounted without nodev.
    control = (
        f"folder=$(mktemp -d); mount --bind {alice.folder} $folder; mount -o remount,bind,dev $folder;"
        " head -c 4 $folder/zero | od -An -tx1; umount $folder; rmdir $folder"
    )
    assert on_node(alice.node, control).split() == ["00"] * 4
    opening = {name: FOLLOWING[name] for name in ("read", "write", "chmod", "list", "write below")}
    assert _tried(alice, [f"/files/{name}" for name in nodes], opening) == []
    for name in nodes:
        assert "not a regular file" in alice.openssh(f"-get {name} {tmp_path}/device")
        alice.openssh(f"rename {name} {name}.renamed", f"rm {name}.renamed")


def test_a_setuid_file_gives_no_rights(alice: Server) -> None:
    """A setuid file gives no rights, whether it comes from SFTP, from the game, or from root on the node."""
    alice.openssh("put /usr/bin/id setuid", "chmod 6755 setuid", "ls -l setuid")
    assert alice.game("stat -c '%u %g' setuid; ./setuid -u; cp setuid by-game; chmod 6755 by-game; ./by-game -u") == (
        "1000 1000\n1000\n1000\n"
    )
    on_node(alice.node, f"install -o root -g root -m 6755 /usr/bin/id {alice.folder}/roots")
    # The game gains no rights from it, and the SFTP pod runs no program from a customer's disk.
    assert alice.game("stat -c %a:%u roots; ./roots -u") == "6755:0\n1000\n"
    for name in ("setuid", "by-game", "roots"):
        assert "denied" in in_sftp_pod(alice.node, f"/srv/sftp/{alice.user}/files/{name} 2>&1 || true").lower()

    async def changed() -> list[str]:
        async with alice.connect() as connection, connection.start_sftp_client() as sftp:
            worked = []
            for name, operation in {"write": _write, "chmod": FOLLOWING["chmod"]}.items():
                with contextlib.suppress(asyncssh.SFTPError):
                    worked.append(f"{name}: {await operation(sftp, '/files/roots')!r}")
            return worked

    assert asyncio.run(changed()) == []
    alice.openssh("rm setuid", "rm by-game", "rm roots")


def test_a_hard_link_cannot_join_two_disks(alice: Server, carol: Server, tmp_path: Path) -> None:
    """Each disk is its own mount, in the game and in SFTP, and link(2) does not cross mounts, not even for root.

    Nor does a session's chroot or a game's container have a path to a file of another server.
    """
    carol.game("echo carols > secret.txt")
    output = in_sftp_pod(
        alice.node, f"ln /srv/sftp/{carol.user}/files/secret.txt /srv/sftp/{alice.user}/files/stolen 2>&1 || true"
    )
    assert "cross-device link" in output
    for source in ("/etc/passwd", f"/srv/sftp/{carol.user}/files/secret.txt", "../../etc/passwd"):
        assert "No such file" in alice.openssh(f"-ln {source} stolen")
    assert _tried(alice, ["/etc", f"/srv/sftp/{carol.user}/files"], {"hard link": FOLLOWING["hard link"]}) == []
    assert alice.game("ln /etc/passwd stolen 2>&1 || ls stolen 2>&1 || true").count("stolen") >= 1
    assert "No such file" in alice.openssh(f"-get stolen {tmp_path}/stolen") + alice.game("ls stolen 2>&1 || true")


def test_a_fifo_hangs_its_own_session_only(alice: Server) -> None:
    """A session that reads a FIFO hangs, and another session of the same server works."""
    alice.game("rm -f pipe; mkfifo pipe; echo own > own.txt")

    async def both() -> bytes:
        async with alice.connect() as stuck, stuck.start_sftp_client() as hanging:
            opening = asyncio.create_task(_read(hanging, "/files/pipe"))
            done, _ = await asyncio.wait({opening}, timeout=1)
            assert not done
            async with alice.connect() as other, other.start_sftp_client() as sftp:
                text = await _read(sftp, "/files/own.txt")
            opening.cancel()
            stuck.abort()
            return text

    assert asyncio.run(both()) == b"own\n"
    alice.openssh("rm pipe")


def test_credentials_open_no_other_user(alice: Server, bob: Server, carol: Server) -> None:
    """Alice's key and password open no other user, on her node and on Bob's, and no user of the image exists."""

    async def login(through: Server, username: str, **credentials: Any) -> str:
        try:
            async with through.connect(username=username, **credentials):
                return "logged in"
        except asyncssh.PermissionDenied:
            return "denied"

    carol.set_account(keys=[carol.public_key], password_hash=OTHER_HASH)
    # A change of Carol's account cuts off a login that is under way, so wait until it is done.
    hers = {"client_keys": None, "password": OTHER_PASSWORD}
    eventually(lambda: asyncio.run(login(carol, carol.user, **hers)) == "logged in", 10, "Carol has her new password")
    for through in (alice, bob):
        for username in (carol.user, "server-1", "root", "nobody", "sshd", "server-", "games"):
            assert asyncio.run(login(through, username, client_keys=[alice.key])) == "denied"
            assert asyncio.run(login(through, username, client_keys=None, password=PASSWORD)) == "denied"
    assert asyncio.run(login(bob, bob.user, client_keys=[alice.key])) == "denied"


def test_a_session_leads_nowhere_else(alice: Server) -> None:
    """A session cannot forward connections, in either direction, and has no shell, tty, agent or X11."""

    async def ways() -> list[str]:
        open_ways = []
        async with alice.connect() as connection:
            for host, port in (
                (alice.addresses[0], 22),
                (alice.addresses[0], 10250),
                (alice.addresses[0], 6443),
                ("127.0.0.1", 2022),
            ):
                try:
                    await connection.open_connection(host, port)
                    open_ways.append(f"forwarding to {host}:{port}")
                except asyncssh.ChannelOpenError:
                    pass
            try:
                await connection.forward_remote_port("", 0, "127.0.0.1", 9)
                open_ways.append("forwarding back")
            except asyncssh.ChannelListenError:
                pass
            try:
                await connection.open_unix_connection("/dev/log")
                open_ways.append("a Unix socket")
            except asyncssh.ChannelOpenError:
                pass
            try:
                await connection.create_process(term_type="xterm", x11_forwarding=True, x11_display="127.0.0.1:9")
                open_ways.append("X11")
            except asyncssh.ChannelOpenError:
                pass
            for options in ({"command": "id"}, {"command": "/bin/sh -c id"}, {"term_type": "xterm"}):
                try:
                    process = await connection.create_process(**options)
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.write("id\n")
                        process.stdin.write_eof()
                    output = str((await process.wait(timeout=10)).stdout)
                    if "uid=" in output:
                        open_ways.append(f"a shell by {options}")
                    if "term_type" in options:
                        open_ways.append("a tty")
                except asyncssh.ChannelOpenError:
                    pass
        return open_ways

    assert asyncio.run(ways()) == []


def test_openssh_gets_nothing_but_sftp(alice: Server) -> None:
    """ssh gets no forwarding in either direction, no agent, no tty and no command."""
    address, free = alice.addresses[0], _free_port()
    ways = {
        ("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"): "remote port forwarding failed",
        ("-W", f"{address}:10250"): "administratively prohibited",
        ("-tt", "-A"): "PTY allocation request failed",
    }
    for options, refusal in ways.items():
        with alice.ssh("-o", "LogLevel=INFO", *options) as trying:
            assert refusal in trying.communicate(timeout=20)[0]
    for command in ("id", "/bin/sh -c id"):
        with alice.ssh("-T", command=command) as trying:
            assert "uid=" not in trying.communicate(timeout=20)[0]
    with alice.ssh("-N", "-L", f"{free}:{address}:6443") as listening:
        try:
            # The client listens, but sshd does not forward, so each connection to it is cut off.
            eventually(lambda: _cut_off(free), 20, "the forwarded port leads nowhere")
        finally:
            listening.kill()
    settings = in_sftp_pod(alice.node, "/usr/sbin/sshd -T -f /etc/ssh/sshd_config").splitlines()
    assert {"disableforwarding yes", "permittty no", "permittunnel no", "permituserrc no"} <= set(settings)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _cut_off(port: int) -> bool:
    """Whether a local port accepts a connection and closes it without data. Raises OSError if nobody listens."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


def test_guessing_is_slowed_for_its_target_alone(alice: Server, bob: Server) -> None:
    """After many wrong passwords the right one is refused for a while. Keys and other servers still work."""

    async def login(server: Server, password: str) -> bool:
        try:
            async with server.connect(client_keys=None, password=password):
                return True
        except asyncssh.PermissionDenied:
            return False

    # All at once, because one guess every ten seconds is allowed. sshd takes 400 connections before their login.
    async def guess() -> None:
        assert not any(await asyncio.gather(*(login(alice, f"guess-{number}") for number in range(15))))

    asyncio.run(guess())
    eventually(lambda: not asyncio.run(login(alice, PASSWORD)), 2, "the right password is refused")
    assert alice.reachable()
    assert asyncio.run(login(bob, PASSWORD))
    eventually(lambda: asyncio.run(login(alice, PASSWORD)), 30, "the right password works again")
