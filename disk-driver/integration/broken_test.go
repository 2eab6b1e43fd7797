//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// A disk whose file system is damaged stays as it is, with an error that says what to do; the others work.
func TestADamagedDiskIsKeptAndNotMounted(t *testing.T) {
	r := newRig(t, 8*gib)
	for _, id := range []string{"pvc-1", "pvc-2"} {
		r.must(r.create(id, gib, nil))
		r.write(filepath.Join(r.mount(id), "world"), id)
	}
	r.kill()
	r.run("umount", r.mount("pvc-1"))
	r.eventually("its loop device is free", func() bool { return r.loops() == 1 })
	repair := r.damage(filepath.Join(r.pool, "disks/pvc-1/disk.img"))
	r.start()
	if text := r.logged(); !strings.Contains(text, `"not_mounted":1`) || !strings.Contains(text, "a disk is not mounted") {
		t.Fatal("the log does not say it")
	}
	r.refused(r.publish("pvc-1"), codes.Internal, "xfs_repair")
	if exists(r.pod("pvc-1")) || r.loops() != 1 {
		t.Fatal("something is left of the attempt")
	}
	r.must(r.publish("pvc-2"))
	// The provisioner may not have heard of it yet, and ask again: after a final error, it would never delete it.
	r.refused(r.create("pvc-1", gib, nil), codes.Aborted, "xfs_repair")
	if !exists(filepath.Join(r.pool, "disks/pvc-1/disk.img")) {
		t.Fatal("the disk is gone")
	}
	repair()
	r.must(r.create("pvc-1", gib, nil))
	r.must(r.publish("pvc-1"))
	if text := r.read(filepath.Join(r.pod("pvc-1"), "world")); text != "pvc-1" {
		t.Fatalf("the world is %q", text)
	}
	r.must(r.unpublish("pvc-1"))
	r.must(r.remove("pvc-1"))
}

// A new disk that cannot be mounted is removed again: external-provisioner takes the error for final, and deletes nothing.
func TestANewDiskThatCannotBeMountedIsNotKept(t *testing.T) {
	r := newRig(t, 8*gib)
	r.must(r.create("pvc-1", gib, nil))
	r.write(filepath.Join(r.mount("pvc-1"), "world"), "saved")
	r.must(r.snapshot("snapshot-1", "pvc-1"))
	r.must(r.remove("pvc-1"))
	repair := r.damage(filepath.Join(r.pool, "snapshots/snapshot-1/snapshot.img"))
	free := r.free()
	for range 2 {
		r.refused(r.create("pvc-2", gib, fromSnapshot("snapshot-1")), codes.Internal, "is removed again")
	}
	if exists(filepath.Join(r.pool, "disks/pvc-2")) || exists(r.mount("pvc-2")) || len(r.rests()) > 0 {
		t.Fatal("something is left of the disk")
	}
	r.eventually("its loop device is free", func() bool { return r.loops() == 0 })
	if left := r.free(); left != free {
		t.Fatalf("%d bytes could be promised before, and %d can now", free, left)
	}
	if text := r.get("/metrics"); !strings.Contains(text, "\ngameserver_disks_not_mounted 0\n") {
		t.Fatalf("it counts as a disk that is not mounted:\n%s", text)
	}
	repair()
	r.must(r.create("pvc-2", gib, fromSnapshot("snapshot-1")))
	if text := r.read(filepath.Join(r.mount("pvc-2"), "world")); text != "saved" {
		t.Fatalf("the world is %q", text)
	}
}

// damage spoils the file system in a file, which is not mounted, and returns what repairs it.
func (r *rig) damage(path string) func() {
	r.Helper()
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	r.must(err)
	defer image.Close()
	superblock := make([]byte, 512)
	_, err = image.ReadAt(superblock, 0)
	r.must(err)
	_, err = image.WriteAt(make([]byte, 400), 100)
	r.must(err)
	r.must(image.Sync())
	return func() {
		r.Helper()
		image, err := os.OpenFile(path, os.O_RDWR, 0)
		r.must(err)
		defer image.Close()
		_, err = image.WriteAt(superblock, 0)
		r.must(err)
		r.must(image.Sync())
	}
}

// A disk that has shut itself down after an error works again at the pod's next start.
func TestADiskThatWasShutDownIsRepairedByTheNextStart(t *testing.T) {
	r := newRig(t, 8*gib)
	r.must(r.create("pvc-1", gib, nil))
	r.must(r.publish("pvc-1"))
	r.write(filepath.Join(r.pod("pvc-1"), "world"), "saved")
	r.run("xfs_io", "-x", "-c", "shutdown", r.pod("pvc-1"))
	if err := os.WriteFile(filepath.Join(r.pod("pvc-1"), "more"), nil, 0o600); err == nil {
		t.Fatal("the disk still works: this test shows nothing")
	}
	// It can be copied, with all that was safe.
	r.must(r.snapshot("snapshot-1", "pvc-1"))
	r.must(r.create("pvc-2", gib, fromSnapshot("snapshot-1")))
	r.must(r.unpublish("pvc-1"))
	r.must(r.publish("pvc-1"))
	for _, folder := range []string{r.pod("pvc-1"), r.mount("pvc-2")} {
		if text := r.read(filepath.Join(folder, "world")); text != "saved" {
			t.Fatalf("the world is %q", text)
		}
		r.write(filepath.Join(folder, "more"), "written")
	}
}

// Where more was promised than there is, a full pool is told to the game as an error; what was safe before stays so, and
// the disk works again when there is room.
func TestAPoolThatIsReallyFull(t *testing.T) {
	r := newRig(t, gib, "--overcommit", "3")
	r.must(r.create("pvc-1", gib, nil))
	r.must(r.create("pvc-2", gib, nil))
	r.must(r.publish("pvc-1"))
	var safe atomic.Int64
	stop := r.append(filepath.Join(r.pod("pvc-1"), "world"), &safe)
	r.eventually("some records are safe", func() bool { return safe.Load() > 20 })
	stop()
	// The neighbour takes all there is, and is told when it is gone.
	told := fill(filepath.Join(r.mount("pvc-2"), "fill"), 950*mib)
	if told == nil {
		t.Fatal("950 MiB fit: this test shows nothing")
	}
	t.Logf("the neighbour was told: %v", told)
	told = fill(filepath.Join(r.pod("pvc-1"), "more"), 100*mib)
	if told == nil {
		t.Fatal("100 MiB more fit")
	}
	t.Logf("the game was told: %v", told)
	// Something foreign takes what is left, to the last block.
	_ = exec.Command("dd", "if=/dev/zero", "of="+r.pool+"/foreign", "bs=4k", "conv=fsync").Run()
	if err := os.WriteFile(r.pool+"/one-more", make([]byte, 4096), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("a block is left: %v", err)
	}
	_ = os.Remove(r.pool + "/one-more")
	// Only a driver that runs can remove disks.
	r.kill()
	r.start()
	r.must(r.unpublish("pvc-1"))
	r.must(r.remove("pvc-2"))
	r.must(r.publish("pvc-1"))
	found, err := records(filepath.Join(r.pod("pvc-1"), "world"))
	r.must(err)
	if found < safe.Load() {
		t.Fatalf("%d records were safe, and there are %d", safe.Load(), found)
	}
	r.must(fill(filepath.Join(r.pod("pvc-1"), "again"), 100*mib))
	r.must(r.unpublish("pvc-1"))
	r.kill()
	r.run("umount", r.mount("pvc-1"))
	r.eventually("its loop device is free", func() bool { return r.loops() == 0 })
	r.run("xfs_repair", "-n", filepath.Join(r.pool, "disks/pvc-1/disk.img"))
}

// fill writes so many bytes and brings each MiB to the disk.
func fill(path string, bytes int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	block := []byte(strings.Repeat("x", int(mib)))
	for written := int64(0); written < bytes; written += mib {
		if _, err := file.Write(block); err != nil {
			return fmt.Errorf("after %d MiB: %w", written/mib, err)
		}
		if err := file.Sync(); err != nil {
			return fmt.Errorf("after %d MiB: %w", written/mib, err)
		}
	}
	return nil
}
