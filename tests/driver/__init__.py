"""The disk driver, compiled and driven on a pool of its own. `disk-driver/integration` has the tests, in Go."""
