"""The local cluster's add-ons: measurements for the autoscaler, and DNS names of Services."""

from collections.abc import Callable

from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.replicas import NAMESPACE, get
from tests.support.waiting import until


def test_the_autoscaler_knows_what_the_replicas_use(cluster: Cluster) -> None:
    """The API's HorizontalPodAutoscaler has a measured CPU, and every node is measured."""

    def measured() -> bool:
        autoscaler = get(cluster, "horizontalpodautoscaler", "api")
        metrics = autoscaler["status"].get("currentMetrics") or []
        return any("averageUtilization" in metric["resource"]["current"] for metric in metrics)

    until(measured, 90, "no CPU measured; see kubectl describe apiservice v1beta1.metrics.k8s.io")
    nodes = {node["metadata"]["name"] for node in cluster.get("nodes")["items"]}
    assert set(cluster.run("kubectl", "top", "nodes", "--no-headers").split()[::5]) == nodes


def test_the_name_of_a_private_rcon_leads_to_the_console(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A pod reaches the console by the host that the API gives. The test uses the API's own pod, which has Python."""
    server = new_server()
    cluster.create(server, rcon="private")
    cluster.until_state(server, "running")
    console = cluster.done("GET", f"/api/v1/server/{server}/rcon")
    assert console["host"] == f"server-{server}-rcon.{SERVERS_NAMESPACE}.svc"
    address = console["host"], console["port"], console["password"]
    # On standard input, because a command line would show the password.
    program = f"from service.console.rcon import command\nprint(command(*{address!r}, 'list'))"
    pod = ("kubectl", "-n", NAMESPACE, "exec", "-i", "deployment/api", "--")
    assert "players" in cluster.run(*pod, "python3", "-", stdin=program)
    # Pods do not use the machine's own resolver.
    elsewhere = "import socket\ntry: socket.getaddrinfo('example.com', 80)\nexcept socket.gaierror as no: print(no)"
    assert "not known" in cluster.run(*pod, "python3", "-", stdin=elsewhere)
