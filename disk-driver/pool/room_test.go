package pool

import (
	"errors"
	"strings"
	"testing"

	"gameservers.local/disk-driver/fault"
)

// Of a pool of 1000, 20 stay for its own records; more than its size is promised only where the operator says so.
func TestFree(t *testing.T) {
	for _, one := range []struct {
		name                string
		overcommit          float64
		reserved, available int64
		free                int64
	}{
		{"empty", 1, 0, 1000, 980},
		{"promised", 1, 300, 1000, 680},
		{"promised and written", 1, 300, 700, 680},
		{"all promised", 1, 980, 1000, 0},
		{"smaller than it was", 1, 1500, 1000, 0},
		{"filled by something else", 1, 300, 100, 100},
		{"twice as much", 2, 1500, 900, 480},
		{"half of it", 0.5, 100, 1000, 380},
	} {
		limits := Limits{Overcommit: one.overcommit, ReservePercent: 2}
		if free := limits.free(Room{Size: 1000, Reserved: one.reserved}, one.available); free != one.free {
			t.Errorf("%s: %d are free, and not %d", one.name, free, one.free)
		}
	}
}

// The snapshots of one disk share its allowance; those of others do not count.
func TestAllowance(t *testing.T) {
	pool := &Pool{limits: Limits{AllowancePercent: 50}, snapshots: map[string]Snapshot{
		"a": {Disk: "disk", Bytes: 300}, "b": {Disk: "other", Bytes: 900},
	}}
	if err := pool.allowance(Disk{ID: "disk", Size: 1000}, 200); err != nil {
		t.Fatal(err)
	}
	err := pool.allowance(Disk{ID: "disk", Size: 1000}, 201)
	var told *fault.Error
	if !errors.As(err, &told) || told.Kind != fault.NoRoom {
		t.Fatalf("got %v", err)
	}
}

// What could name another file, or one of the pool's own, is no id.
func TestCheckID(t *testing.T) {
	for _, id := range []string{"pvc-0b1", "snapshot-1.2", "A_b", strings.Repeat("a", 200)} {
		if err := CheckID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"", ".", "..", ".new-1", "a/b", "a\n", "ä", "a b", strings.Repeat("a", 201)} {
		if CheckID(id) == nil {
			t.Errorf("%q is taken for an id", id)
		}
	}
}

func TestHuman(t *testing.T) {
	for bytes, expected := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 50: "1024.0 TiB"} {
		if text := human(bytes); text != expected {
			t.Errorf("%d bytes are %s, and not %s", bytes, text, expected)
		}
	}
}
