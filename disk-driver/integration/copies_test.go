//go:build integration

package integration

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// record is a line with its number; each has the same length, so a torn one is seen.
func record(number int64) string {
	return fmt.Sprintf("record %012d of the world, whole and in its order\n", number)
}

// append appends records and brings each to the disk, as a careful game does, until it is told to stop. The number says
// which one is the last that is safe.
func (r *rig) append(path string, safe *atomic.Int64) (stop func()) {
	file, err := os.Create(path)
	r.must(err)
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer file.Close()
		for number := int64(1); ; number++ {
			select {
			case <-ending:
				return
			default:
			}
			if _, err := file.WriteString(record(number)); err != nil {
				r.Errorf("record %d: %v", number, err)
				return
			}
			if err := file.Sync(); err != nil {
				r.Errorf("record %d: %v", number, err)
				return
			}
			safe.Store(number)
		}
	}()
	return func() { close(ending); <-ended }
}

// records are how many whole records a file begins with; an error if there is anything else than a torn last one.
func records(path string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines, count := bufio.NewReader(file), int64(0)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return count, nil
		}
		count++
		if line != record(count) {
			return 0, fmt.Errorf("record %d is %q", count, line)
		}
	}
}

// checkImage replays the journal of a copy of an image, and looks for damage.
func (r *rig) checkImage(image string) {
	r.Helper()
	copied, point := filepath.Join(r.pool, "copy.img"), filepath.Join(r.folder, "copy")
	r.run("cp", "--reflink=always", image, copied)
	r.must(os.MkdirAll(point, 0o700))
	r.run("mount", "-o", "loop,nouuid", copied, point)
	r.run("umount", point)
	r.run("xfs_repair", "-n", copied)
	r.must(os.Remove(copied))
}

// What was safe when a snapshot was asked for is in it, while the game writes on; and the copy has no damage.
func TestASnapshotHasAllThatWasSafe(t *testing.T) {
	r := newRig(t, 20*gib)
	r.must(r.create("pvc-1", gib, nil))
	r.must(r.publish("pvc-1"))
	var safe, log atomic.Int64
	defer r.append(filepath.Join(r.pod("pvc-1"), "world"), &safe)()
	defer r.append(filepath.Join(r.pod("pvc-1"), "log"), &log)()
	for i := range 4 {
		time.Sleep(100 * time.Millisecond)
		snapshot, disk := fmt.Sprintf("snapshot-%d", i), fmt.Sprintf("pvc-copy-%d", i)
		world, lines := safe.Load(), log.Load()
		from := fromSnapshot(snapshot)
		if i%2 == 0 {
			r.must(r.snapshot(snapshot, "pvc-1"))
			r.checkImage(filepath.Join(r.pool, "snapshots", snapshot, "snapshot.img"))
		} else {
			from = fromDisk("pvc-1")
		}
		r.must(r.create(disk, gib, from))
		for name, expected := range map[string]int64{"world": world, "log": lines} {
			found, err := records(filepath.Join(r.mount(disk), name))
			r.must(err)
			if found < expected {
				t.Fatalf("%d records of %s were safe, and the copy has %d", expected, name, found)
			}
		}
	}
	if safe.Load() < 20 {
		t.Fatalf("only %d records were written", safe.Load())
	}
}

// A copy takes no time, whatever is on the disk, and lives on without what it was made from.
func TestCopiesOfOneGibibyteInUnderASecond(t *testing.T) {
	r := newRig(t, 20*gib)
	r.must(r.create("pvc-1", 2*gib, nil))
	r.run("dd", "if=/dev/zero", "of="+r.mount("pvc-1")+"/world", "bs=1M", "count=1024", "conv=fsync", "status=none")
	r.write(filepath.Join(r.mount("pvc-1"), "name"), "pvc-1")
	timed := func(what string, call func() error) {
		begun := time.Now()
		r.must(call())
		took := time.Since(begun)
		t.Logf("%s: %v", what, took)
		if took > time.Second {
			t.Fatalf("%s took %v", what, took)
		}
	}
	used := r.used()
	timed("snapshot", func() error { return r.snapshot("snapshot-1", "pvc-1") })
	timed("disk from the snapshot", func() error { return r.create("pvc-2", 3*gib, fromSnapshot("snapshot-1")) })
	timed("clone", func() error { return r.create("pvc-3", 2*gib, fromDisk("pvc-1")) })
	if more := r.used() - used; more > 100*mib {
		t.Fatalf("the copies took %d bytes", more)
	}
	if size := r.size(r.mount("pvc-2")); size < 2900*mib {
		t.Fatalf("the larger disk has %d bytes", size)
	}
	timed("removal", func() error { return r.remove("pvc-1") })
	r.must(r.removeSnapshot("snapshot-1"))
	for _, id := range []string{"pvc-2", "pvc-3"} {
		world, err := os.Stat(filepath.Join(r.mount(id), "world"))
		r.must(err)
		if name := r.read(filepath.Join(r.mount(id), "name")); name != "pvc-1" || world.Size() != gib {
			t.Fatalf("the copy %s is of %s, with %d bytes", id, name, world.Size())
		}
	}
	r.refused(r.create("pvc-4", gib, fromSnapshot("snapshot-1")), codes.NotFound, "")
}

// A copy is at least as large as what it is made from.
func TestACopyIsNotSmaller(t *testing.T) {
	r := newRig(t, 20*gib)
	r.must(r.create("pvc-1", 2*gib, nil))
	r.must(r.snapshot("snapshot-1", "pvc-1"))
	r.must(r.create("pvc-2", gib, fromSnapshot("snapshot-1")))
	if size := r.size(r.mount("pvc-2")); size < 1900*mib {
		t.Fatalf("the copy has %d bytes", size)
	}
	_, err := r.CreateVolume(context.Background(), &csi.CreateVolumeRequest{
		Name: "pvc-3", CapacityRange: &csi.CapacityRange{RequiredBytes: gib, LimitBytes: gib},
		VolumeCapabilities: []*csi.VolumeCapability{writer()}, VolumeContentSource: fromDisk("pvc-1"),
	})
	r.refused(err, codes.OutOfRange, "")
}

// A disk grows while a game writes to it, which notices nothing.
func TestADiskGrowsWhileItIsWritten(t *testing.T) {
	r := newRig(t, 20*gib)
	r.must(r.create("pvc-1", small, nil))
	r.must(r.publish("pvc-1"))
	var safe atomic.Int64
	stop := r.append(filepath.Join(r.pod("pvc-1"), "world"), &safe)
	for size := 2 * small; size <= 10*small; size += 2 * small {
		before := safe.Load()
		r.must(r.grow("pvc-1", size))
		r.must(r.grow("pvc-1", size))
		for _, point := range []string{r.pod("pvc-1"), r.mount("pvc-1")} {
			if found := r.size(point); found < size-100*mib || found > size {
				t.Fatalf("%s has %d bytes of %d", point, found, size)
			}
		}
		r.eventually("the game writes on", func() bool { return safe.Load() > before+5 })
	}
	stop()
	found, err := records(filepath.Join(r.pod("pvc-1"), "world"))
	r.must(err)
	if found != safe.Load() {
		t.Fatalf("%d records were written, and there are %d", safe.Load(), found)
	}
	r.must(r.grow("pvc-1", small))
	r.refused(r.grow("pvc-1", 30*gib), codes.ResourceExhausted, "no room")
	r.refused(r.grow("pvc-2", gib), codes.NotFound, "pvc-2")
	_, err = r.node.NodeExpandVolume(context.Background(), &csi.NodeExpandVolumeRequest{
		VolumeId: "pvc-1", VolumePath: r.pod("pvc-1"), CapacityRange: &csi.CapacityRange{LimitBytes: small},
	})
	r.refused(err, codes.OutOfRange, "do not shrink")
}

// An owner of a full disk can delete files, and save into them; growth gives room at once.
func TestAFullDisk(t *testing.T) {
	r := newRig(t, 20*gib)
	r.must(r.create("pvc-1", gib, nil))
	r.must(r.create("pvc-2", gib, nil))
	r.must(r.publish("pvc-1"))
	pod := r.pod("pvc-1")
	r.must(os.Chmod(pod, 0o777))
	r.write(filepath.Join(pod, "world"), strings.Repeat("old", 100_000))
	r.must(os.Chmod(filepath.Join(pod, "world"), 0o666))
	as := func(script string) {
		r.Helper()
		// From where it is: a user cannot go through the test's own folders.
		r.run("sh", "-c", "cd "+pod+" && exec setpriv --reuid 1000 --regid 1000 --clear-groups sh -c '"+script+"'")
	}
	as("i=0; while dd if=/dev/zero of=fill$i bs=64k count=2000 conv=fsync status=none 2>/dev/null; do i=$((i+1)); done;" +
		" while echo x 2>/dev/null > small$i; do i=$((i+1)); done")
	stats, err := r.node.NodeGetVolumeStats(context.Background(),
		&csi.NodeGetVolumeStatsRequest{VolumeId: "pvc-1", VolumePath: pod})
	r.must(err)
	bytes, files := stats.Usage[0], stats.Usage[1]
	if bytes.Unit != csi.VolumeUsage_BYTES || bytes.Available > mib || bytes.Total < 900*mib || bytes.Total > gib ||
		bytes.Used+bytes.Available != bytes.Total {
		t.Fatalf("got %v", bytes)
	}
	t.Logf("a full disk: %v", stats.Usage)
	if files.Unit != csi.VolumeUsage_INODES || files.Used < 10 {
		t.Fatalf("got %v", files)
	}
	as("printf new | dd of=world conv=notrunc,fsync status=none")
	if text := r.read(filepath.Join(pod, "world")); !strings.HasPrefix(text, "newold") {
		t.Fatalf("the world is %q", text[:10])
	}
	r.must(r.snapshot("snapshot-1", "pvc-1"))
	r.must(r.grow("pvc-1", gib+300*mib))
	as("dd if=/dev/zero of=more bs=1M count=200 conv=fsync status=none")
	r.run("sh", "-c", "dd if=/dev/zero of="+pod+"/fill bs=1M 2>/dev/null || true")
	as("rm fill0 && echo saved > after && sync after")
	// The neighbour has all of its own room.
	r.run("dd", "if=/dev/zero", "of="+r.mount("pvc-2")+"/fill", "bs=1M", "count=900", "conv=fsync", "status=none")
}
