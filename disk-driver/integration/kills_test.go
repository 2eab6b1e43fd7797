//go:build integration

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// kills is how often the driver is killed.
func kills() int {
	if number, err := strconv.Atoi(os.Getenv("KILLS")); err == nil {
		return number
	}
	return 60
}

// expected is what has to be there: the disks with their sizes, and the snapshots.
type expected struct {
	sizes     map[string]int64
	snapshots map[string]bool
}

// The driver is killed at any point of a call. Each time: no disk or snapshot is lost that was there, none is left that
// was not finished, and the same call then succeeds.
func TestKillsLoseNothingAndLeakNothing(t *testing.T) {
	r := newRig(t, 60*gib)
	used := r.used()
	want := expected{map[string]int64{}, map[string]bool{}}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	finished, interrupted := 0, 0
	for i := range kills() {
		what, call, done := r.choose(random, want, i)
		result := make(chan error, 1)
		go func() { result <- call() }()
		// From before it begins to after it ends: calls take 5 to 50 ms.
		time.Sleep(time.Duration(random.IntN(25_000)) * time.Microsecond)
		r.kill()
		if <-result == nil {
			finished++
		} else {
			interrupted++
		}
		r.start()
		if rests := r.rests(); len(rests) > 0 {
			t.Fatalf("kill %d, %s: %v is left", i, what, rests)
		}
		if err := call(); err != nil {
			t.Fatalf("kill %d, %s: %v", i, what, err)
		}
		done()
		r.compare(want, fmt.Sprintf("kill %d, %s", i, what))
	}
	t.Logf("%d calls were interrupted, %d ended before the kill", interrupted, finished)
	if interrupted < kills()/10 {
		t.Fatal("hardly any call was interrupted")
	}
	for id := range want.snapshots {
		r.must(r.removeSnapshot(id))
	}
	for id := range want.sizes {
		_ = r.unpublish(id)
		r.must(r.remove(id))
	}
	r.eventually("all loop devices are free", func() bool { return r.loops() == 0 })
	if left := r.used() - used; left > 2*mib {
		t.Fatalf("%d bytes are left", left)
	}
}

// choose is a call, and what it changes.
func (r *rig) choose(random *rand.Rand, want expected, i int) (what string, call func() error, done func()) {
	disks, snapshots := keys(want.sizes), keys(want.snapshots)
	id := fmt.Sprintf("pvc-%d", i)
	mark := func() { r.write(filepath.Join(r.mount(id), "name"), id) }
	choice := random.IntN(7)
	switch {
	case choice == 0 && len(disks) > 3:
		victim := disks[random.IntN(len(disks))]
		return "remove", func() error { return r.remove(victim) }, func() { delete(want.sizes, victim) }
	case choice == 1 && len(disks) > 0:
		source, snapshot := disks[random.IntN(len(disks))], fmt.Sprintf("snapshot-%d", i)
		return "snapshot", func() error { return r.snapshot(snapshot, source) }, func() { want.snapshots[snapshot] = true }
	case choice == 2 && len(snapshots) > 1:
		victim := snapshots[random.IntN(len(snapshots))]
		return "remove a snapshot", func() error { return r.removeSnapshot(victim) },
			func() { delete(want.snapshots, victim) }
	case choice == 3 && len(snapshots) > 0:
		source := fromSnapshot(snapshots[random.IntN(len(snapshots))])
		return "from a snapshot", func() error { return r.create(id, 8*small, source) },
			func() { want.sizes[id] = 8 * small; mark() }
	case choice == 4 && len(disks) > 0:
		source := disks[random.IntN(len(disks))]
		return "clone", func() error { return r.create(id, want.sizes[source], fromDisk(source)) },
			func() { want.sizes[id] = want.sizes[source]; mark() }
	case choice == 5 && len(disks) > 0:
		grown := disks[random.IntN(len(disks))]
		size := min(want.sizes[grown]+small, 8*small)
		return "grow", func() error {
			if err := r.publish(grown); err != nil {
				return err
			}
			if err := r.grow(grown, size); err != nil {
				return err
			}
			return r.unpublish(grown)
		}, func() { want.sizes[grown] = size }
	}
	return "create", func() error { return r.create(id, small, nil) }, func() { want.sizes[id] = small; mark() }
}

// compare looks whether exactly what is wanted is there, whole.
func (r *rig) compare(want expected, when string) {
	r.Helper()
	for id, size := range want.sizes {
		name, err := os.ReadFile(filepath.Join(r.mount(id), "name"))
		if err != nil || string(name) != id {
			r.Fatalf("%s: disk %s is %q: %v", when, id, name, err)
		}
		if found := r.size(r.mount(id)); found > size || found < size-120*mib {
			r.Fatalf("%s: disk %s has %d bytes of %d", when, id, found, size)
		}
	}
	for folder, names := range map[string][]string{
		"disks": keys(want.sizes), "mounts": keys(want.sizes), "snapshots": keys(want.snapshots),
	} {
		entries, err := os.ReadDir(filepath.Join(r.pool, folder))
		r.must(err)
		if len(entries) != len(names) {
			r.Fatalf("%s: %d entries in %s, and not %d", when, len(entries), folder, len(names))
		}
	}
	r.eventually(when+": each disk has one loop device", func() bool { return r.loops() == len(want.sizes) })
	own := 0
	for _, line := range r.mounted() {
		if strings.Contains(line, r.pool+"/mounts/") {
			own++
		}
	}
	if own != len(want.sizes) {
		r.Fatalf("%s: %d mounts of %d disks", when, own, len(want.sizes))
	}
}

func keys[T any](of map[string]T) []string {
	var all []string
	for key := range of {
		all = append(all, key)
	}
	return all
}
