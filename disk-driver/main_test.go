package main

import "testing"

// Flags that make no sense together stop the start.
func TestParse(t *testing.T) {
	if set, err := parse([]string{"--node", "node-1"}); err != nil || set.limits.Overcommit != 1 || set.http != ":9810" {
		t.Fatalf("got %v, %v", set, err)
	}
	for _, arguments := range [][]string{
		{}, {"--node", "n", "more"}, {"--node", "n", "--overcommit", "0"}, {"--node", "n", "--reserve-percent", "-1"},
		{"--node", "n", "--registration", "/r.sock"}, {"--nod", "n"},
	} {
		if _, err := parse(arguments); err == nil {
			t.Errorf("%q was taken", arguments)
		}
	}
}
