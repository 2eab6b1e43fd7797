"""`python3 -m local COMMAND`: what the Makefile's targets about the local cluster run."""

import argparse
import os
import shlex
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from local import binaries, cache, cluster, existing, images, nodes, packages, paths, steps


def up() -> None:
    """Everything up to server 1, then what comes next."""
    url = _product("up")
    from local import deploy

    game, sftp = deploy.first_server(url)
    host, port = sftp.rsplit(":", 1)
    print(_NEXT.format(url=url, game=game, sftp_host=host, sftp_port=port, env=shlex.quote(str(paths.ENV))))


def cluster_up() -> None:
    """The cluster and the product in it, without server 1: what the tests need."""
    _product("cluster")


def tools() -> None:
    """Debian's and Python's packages, kubectl and helm: what `make lint` and unit tests need."""
    packages.ensure_debian_basics()
    jobs = steps.Jobs()
    for job in (packages.ensure_debian, packages.ensure_python, binaries.ensure):
        jobs.start(job)
    jobs.finish()


def venv() -> None:
    """Python's packages in `.local/venv`: what `make unit` needs. Works without root and without Debian's packages."""
    packages.ensure_python()


def stop() -> None:
    """End the cluster; its data stays."""
    nodes.refuse_another_checkouts()
    with steps.step("stopping the nodes (the games save their worlds first)"):
        nodes.stop()


def clean() -> None:
    """End the cluster and remove its data."""
    stop()
    with steps.step("removing the cluster's data"):
        cluster.remove_data()
        shutil.rmtree(paths.LOGS, ignore_errors=True)


def helm_docs() -> None:
    """Print the path of the helm-docs binary."""
    print(binaries.helm_docs())


def kwok() -> None:
    """Print the path of the kwok binary."""
    print(binaries.kwok())


_NEXT = """
Minecraft server 1 is up: join {game} with a Minecraft client.

Its files:  sftp -P {sftp_port} server-1@{sftp_host}   (the password: see below)
The API:    {url}        (docs: {url}/docs)
The token, the addresses and the kubeconfig are in {env}:

  . {env}
  curl -X PATCH -H "Authorization: Bearer $API_TOKEN" $API_URL/api/v1/server/1/port/primary
  curl -X PUT   -H "Authorization: Bearer $API_TOKEN" -H 'Content-Type: application/json' \\
       -d '{{"password": true}}' $API_URL/api/v1/server/1/sftp
  curl -X POST  -H "Authorization: Bearer $API_TOKEN" -H 'Content-Type: application/json' \\
       -d '{{"ram_gb": 2, "disk_gb": 10}}' $API_URL/api/v1/server/2/
  curl -H "Authorization: Bearer $API_TOKEN" $API_URL/api/v1/server/2/
  curl -X PATCH -H "Authorization: Bearer $API_TOKEN" $API_URL/api/v1/server/2/stop
  .local/bin/kubectl -n gameservers get pods

make stop ends it all and keeps the worlds; make run brings them back; make clean removes them.
"""


def _product(command: str) -> str:
    """Bring up all but server 1; returns the API's address."""
    if "--prepared" not in sys.argv:
        if os.environ.get("CLUSTER") != "current":
            nodes.refuse_unified_cgroups()
        _prepare(for_tests=command == "cluster")
        _in_venv(command)
    from local import deploy

    built = {**images.project(binaries.ensure()), "store": images.store()}
    if os.environ.get("CLUSTER") == "current":
        kubeconfig, address, built = existing.kubeconfig(), existing.node_address(), existing.deliver(built)
    else:
        kubeconfig, address = paths.KUBECONFIG, cluster.wanted_nodes()[0].address
        with steps.step("installing the disk driver"):
            deploy.disks(kubeconfig, built)
    with steps.step("installing the store of the backups"):
        deploy.store(kubeconfig, built)
    with steps.step("installing the API"):
        deploy.api(kubeconfig, built)
    with steps.step("installing file access"):
        deploy.sftp(kubeconfig, built)
    return deploy.write_env(kubeconfig, address)


def _prepare(for_tests: bool) -> None:
    """Install, compile and build what is missing, and bring the local cluster up, in parallel if possible.

    Compiling keeps all cores busy and installing packages mostly waits, so they run at the same time. The cluster
    starts as soon as Kubernetes is compiled, while its addons still compile.

    Args:
        for_tests: whether what only the tests need is installed too: their clients, and metrics-server.
    """
    packages.ensure_debian_basics()
    jobs = steps.Jobs()
    debian = jobs.start(packages.ensure_debian)
    jobs.start(packages.ensure_python)
    compiled = jobs.start(binaries.ensure)
    packaged = jobs.after(debian, images.without_binaries)
    if for_tests:
        jobs.after(debian, packages.ensure_clients)

    def nodes_up() -> list[nodes.Node]:
        packaged.result()
        return cluster.up(compiled.result())

    def project_images() -> list[images.Image]:
        packaged.result()
        return list(images.project(compiled.result()).values())

    if os.environ.get("CLUSTER") == "current":
        jobs.start(project_images)
        jobs.finish()
        return
    started = jobs.start(nodes_up)
    jobs.after(compiled, binaries.addons)

    def imported() -> None:
        # After the control plane's images, which the cluster's start waits for.
        ready = started.result()
        built = project_images()
        with steps.step("importing the project's images into the nodes"):
            cluster.load(dict.fromkeys(ready, tuple(built)))

    jobs.start(imported)
    jobs.start(lambda: cluster.addons(started.result()))
    if for_tests:
        jobs.start(lambda: cluster.metrics(started.result()))
    jobs.finish()


def _in_venv(command: str) -> None:
    """Continue in the project's virtual environment, with the cluster prepared."""
    python = packages.ensure_python() / "bin" / "python"
    if Path(sys.prefix).resolve() != python.parent.parent.resolve():
        os.execv(python, [str(python), "-m", "local", command, "--prepared"])


_COMMANDS = {
    "up": up,
    "cluster": cluster_up,
    "tools": tools,
    "venv": venv,
    "stop": stop,
    "clean": clean,
    "helm-docs": helm_docs,
    "kwok": kwok,
}


def main() -> int:
    """Run the command that was asked for; returns 1, with a message, if a step failed, and 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python3 -m local", description=__doc__)
    parser.add_argument("command", choices=_COMMANDS)
    # Set by _in_venv: the machine's Python has prepared the cluster.
    parser.add_argument("--prepared", action="store_true", help=argparse.SUPPRESS)
    command = parser.parse_args().command
    nodes.reach_directly()
    try:
        # The virtual environment has a lock of its own: `make unit` need not wait for another checkout's `make run`.
        with nullcontext() if command == "venv" else cache.lock("local"):
            _COMMANDS[command]()
    except steps.StepFailed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
