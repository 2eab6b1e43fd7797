"""What a customer, or a game that a customer has taken over, must not reach.

The game's own container plants whatever its user may make in the disk; the session then tries every
operation on it. Carol's disk is on the same node as Alice's, Bob's is on another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import asyncssh
import pytest
from sftp_cluster import OTHER_HASH, PASSWORD, Server, eventually, in_sftp_pod

pytestmark = pytest.mark.cluster

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
Operation = Callable[[asyncssh.SFTPClient, str], Awaitable[object]]


async def _read(sftp: asyncssh.SFTPClient, path: str) -> object:
    async with sftp.open(path, "rb") as file:
        return await file.read()


async def _write(sftp: asyncssh.SFTPClient, path: str) -> object:
    async with sftp.open(path, "r+b") as file:
        await file.write(b"attacked")
    return "written"


# Each follows a link in the last place of its path.
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
    """Try each operation on each path; gives those that did anything but fail."""

    async def all_of_them() -> list[str]:
        worked = []
        async with server.connect() as connection, connection.start_sftp_client() as sftp:
            for path in paths:
                for name, operation in operations.items():
                    try:
                        found = await operation(sftp, path)
                    except asyncssh.SFTPError:
                        continue
                    worked.append(f"{name} {path}: {found!r}")
        return worked

    return asyncio.run(all_of_them())


def test_the_operations_do_work_where_they_may(alice: Server) -> None:
    """The control of the tests below: on a folder and a file of one's own nearly all succeed."""
    alice.game(
        "rm -rf control stolen*; mkdir control; cd control; echo own | tee secret.txt other.txt ../file > ../own.txt"
    )
    worked = {line.split(" /")[0] for line in _tried(alice, ["/files/control", "/files/file"])}
    assert worked == set(FOLLOWING) - {"change owner"}
    alice.game("rm -rf control stolen* file")


def test_symbolic_links_lead_nowhere_outside(alice: Server, carol: Server) -> None:
    """Out of the chroot there is nothing that a link could name, whatever is done to it."""
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
    assert alice.game("cat own.txt") == "own\n"
    assert carol.game("cat secret.txt; ls").startswith("carols\n")
    for name in targets:
        alice.openssh(f"rename {name} {name}.renamed", f"rm {name}.renamed")


def test_links_made_by_the_customer_lead_nowhere_outside(alice: Server) -> None:
    async def plant() -> None:
        async with alice.connect() as connection, connection.start_sftp_client() as sftp:
            for name, target in {"made": "/etc/shadow", "made-up": "/../../etc"}.items():
                await sftp.symlink(target, f"/files/{name}")

    asyncio.run(plant())
    assert _tried(alice, ["/files/made", "/files/made-up"]) == []
    alice.openssh("rm made", "rm made-up")


def test_dots_lead_nowhere_outside(alice: Server, carol: Server) -> None:
    """`..` in every place of a path stays below the chroot."""
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
    """Its folders are root's: nothing can be put beside the disk, and the disk's place not be taken."""
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
    """The game swaps a folder for a link to /etc and back, as fast as it can, under a reading session."""
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
                    seen.add(bytes(await _read(sftp, "/files/swap/passwd")))  # type: ignore[call-overload]
                except asyncssh.SFTPError:
                    seen.add(b"(refused)")
        await swapping
        return seen

    assert asyncio.run(read_meanwhile()) == {b"own\n", b"(refused)"}


def test_the_disk_has_no_devices_no_setuid_and_no_programs(alice: Server) -> None:
    """By the mount itself, whoever put them there and however."""
    mounts = in_sftp_pod(alice.node, f"grep ' /srv/sftp/{alice.user}/files ' /proc/self/mountinfo").splitlines()
    assert len(mounts) == 1
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounts[0].split()[5].split(","))


def test_only_the_chroots_mount_of_a_disk_can_be_written(alice: Server) -> None:
    said = in_sftp_pod(alice.node, "touch /host/opt/local-path-provisioner/attacked 2>&1 || true")
    assert "Read-only file system" in said


def test_a_setuid_bit_is_worth_nothing(alice: Server) -> None:
    alice.openssh("put /bin/true setuid", "chmod 4755 setuid", "ls -l setuid")
    assert alice.game("stat -c '%u %g' setuid") == "1000 1000\n"
    assert "denied" in in_sftp_pod(alice.node, f"/srv/sftp/{alice.user}/files/setuid 2>&1 || true").lower()


def test_a_fifo_hangs_its_own_session_only(alice: Server) -> None:
    alice.game("rm -f pipe; mkfifo pipe; echo own > own.txt")

    async def both() -> bytes:
        async with alice.connect() as stuck, stuck.start_sftp_client() as hanging:
            opening = asyncio.create_task(_read(hanging, "/files/pipe"))
            done, _ = await asyncio.wait({opening}, timeout=1)
            assert not done
            async with alice.connect() as other, other.start_sftp_client() as sftp:
                found = await _read(sftp, "/files/own.txt")
            opening.cancel()
            stuck.abort()
            return bytes(found)  # type: ignore[call-overload]

    assert asyncio.run(both()) == b"own\n"
    alice.openssh("rm pipe")


def test_another_servers_name_lets_nobody_in(alice: Server, bob: Server, carol: Server) -> None:
    """Alice's key and password are hers alone, on her node and on Bob's; nor is there a user of the image."""

    async def login(through: Server, username: str, **credentials: object) -> str:
        try:
            async with through.connect(username=username, **credentials):
                return "logged in"
        except asyncssh.PermissionDenied:
            return "denied"

    carol.set_account(keys=[carol.public_key], password_hash=OTHER_HASH)
    for through in (alice, bob):
        for username in (carol.user, "server-1", "root", "nobody", "sshd", "server-", "games"):
            assert asyncio.run(login(through, username, client_keys=[alice.key])) == "denied"
            assert asyncio.run(login(through, username, client_keys=None, password=PASSWORD)) == "denied"
    assert asyncio.run(login(bob, bob.user, client_keys=[alice.key])) == "denied"


def test_there_is_no_way_on_from_a_session(alice: Server) -> None:
    """No forwarding, to the node's kubelet or the API server or back; no shell, no tty, no agent, no X11."""

    async def ways() -> list[str]:
        open_ways = []
        async with alice.connect() as connection:
            for host, port in ((alice.addresses[0], 10250), (alice.addresses[0], 6443), ("127.0.0.1", 2022)):
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
            for options in ({"command": "id"}, {"command": "/bin/sh -c id"}, {"term_type": "xterm"}):
                try:
                    process = await connection.create_process(**options)
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.write("id\n")
                        process.stdin.write_eof()
                    said = str((await process.wait(timeout=10)).stdout)
                    if "uid=" in said:
                        open_ways.append(f"a shell by {options}")
                    if "term_type" in options:
                        open_ways.append("a tty")
                except asyncssh.ChannelOpenError:
                    pass
        return open_ways

    assert asyncio.run(ways()) == []


def test_guessing_is_slowed_for_its_target_alone(alice: Server, bob: Server) -> None:
    """After a dozen wrong passwords the right one is refused for a while; keys, and other servers, are not."""

    async def login(server: Server, password: str) -> bool:
        try:
            async with server.connect(client_keys=None, password=password):
                return True
        except asyncssh.PermissionDenied:
            return False

    async def guess() -> None:
        for number in range(12):
            assert not await login(alice, f"guess-{number}")

    asyncio.run(guess())
    assert not asyncio.run(login(alice, PASSWORD))
    assert alice.reachable()
    assert asyncio.run(login(bob, PASSWORD))
    eventually(lambda: asyncio.run(login(alice, PASSWORD)), 30, "the right password works again")
