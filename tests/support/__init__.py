"""What the tests stand on: fakes of the edges, proxies, servers on loopback, waiting."""
