"""Shared by the tests: fakes of the interfaces, proxies, servers on loopback, waiting."""
