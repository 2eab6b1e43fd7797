//go:build integration

package integration

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// What is promised is taken from the room whole, and no more is promised than there is.
func TestOnlyTheRoomThatThereIsIsPromised(t *testing.T) {
	r := newRig(t, 4*gib)
	free := r.free()
	if free < 3900*mib || free > 4*gib-4*gib/50 {
		t.Fatalf("an empty pool of 4 GiB promises %d bytes", free)
	}
	r.must(r.create("pvc-1", gib, nil))
	if now := r.free(); now != free-gib {
		t.Fatalf("a disk of 1 GiB took %d bytes", free-now)
	}
	r.refused(r.create("pvc-2", 3*gib, nil), codes.ResourceExhausted, "the pool of this node has no room: 3.0 GiB asked for")
	r.must(r.create("pvc-2", 2*gib, nil))
	r.must(r.publish("pvc-2"))
	r.refused(r.grow("pvc-2", 3*gib), codes.ResourceExhausted, "no room")
	if size := r.size(r.mount("pvc-2")); size > 2*gib {
		t.Fatalf("the disk grew to %d", size)
	}
	r.kill()
	r.start()
	if now := r.free(); now != free-3*gib {
		t.Fatalf("after a restart %d bytes are promised", free-now)
	}
	r.must(r.remove("pvc-1"))
	if now := r.free(); now != free-2*gib {
		t.Fatalf("after a removal %d bytes are promised", free-now)
	}
}

// Snapshots are counted with what they held; all of one disk together hold no more than the allowance.
func TestSnapshotsAreCounted(t *testing.T) {
	r := newRig(t, 8*gib, "--snapshot-allowance-percent", "60")
	r.must(r.create("pvc-1", gib, nil))
	fill := func(name string) {
		r.run("dd", "if=/dev/zero", "of="+r.mount("pvc-1")+"/"+name, "bs=1M", "count=200", "conv=fsync", "status=none")
	}
	fill("fill")
	free := r.free()
	r.must(r.snapshot("snapshot-1", "pvc-1"))
	held := free - r.free()
	if held < 200*mib || held > 280*mib {
		t.Fatalf("a snapshot of 200 MiB is counted with %d bytes", held)
	}
	// The disk rewrites everything: the account was right from the start.
	fill("fill")
	r.must(r.snapshot("snapshot-2", "pvc-1"))
	r.refused(r.snapshot("snapshot-3", "pvc-1"), codes.ResourceExhausted, "may hold 614.4 MiB together")
	r.must(r.removeSnapshot("snapshot-1"))
	r.must(r.snapshot("snapshot-3", "pvc-1"))
	r.must(r.remove("pvc-1"))
	r.must(r.removeSnapshot("snapshot-2"))
	r.must(r.removeSnapshot("snapshot-3"))
	if now := r.free(); now != free+gib {
		t.Fatalf("%d bytes can be promised, and not %d", now, free+gib)
	}
}

// Deleted files are given back to the pool.
func TestDeletedFilesAreGivenBack(t *testing.T) {
	r := newRig(t, 4*gib)
	r.must(r.create("pvc-1", gib, nil))
	used := r.used()
	r.run("dd", "if=/dev/zero", "of="+r.mount("pvc-1")+"/fill", "bs=1M", "count=300", "conv=fsync", "status=none")
	// What mkfs had set aside in advance may be given back meanwhile.
	if r.used() < used+250*mib {
		t.Fatal("nothing was written")
	}
	r.must(os.Remove(r.mount("pvc-1") + "/fill"))
	// The file system frees them in the background, and tells the pool with the next write to its journal.
	r.eventually("the blocks are free", func() bool {
		r.run("sync", "-f", r.mount("pvc-1"))
		return r.used() < used+20*mib
	})
}

// Prometheus reads the account, and the kubelet that the driver is well.
func TestMetrics(t *testing.T) {
	r := newRig(t, 4*gib)
	r.must(r.create("pvc-1", gib, nil))
	r.must(r.snapshot("snapshot-1", "pvc-1"))
	if text := r.get("/healthz"); text != "ok\n" {
		t.Fatal(text)
	}
	text := r.get("/metrics")
	for _, line := range []string{
		"\ngameserver_disks 1\n", "\ngameserver_disk_snapshots 1\n", "\ngameserver_disks_not_mounted 0\n",
		"# TYPE gameserver_disk_pool_bytes gauge\n",
	} {
		if !strings.Contains(text, line) {
			t.Fatalf("%q is not in\n%s", line, text)
		}
	}
}

// get is what the driver answers to a request by HTTP.
func (r *rig) get(path string) string {
	r.Helper()
	address := regexp.MustCompile(`"address":"([^"]+)"`).FindStringSubmatch(r.logged())[1]
	response, err := http.Get("http://" + address + path)
	r.must(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	r.must(err)
	return string(text)
}

// A pool that cannot share blocks between files is refused, with what to do.
func TestAPoolWithoutReflinkIsRefused(t *testing.T) {
	r := newRig(t, gib)
	refused := func(flags ...string) string {
		command := exec.Command(os.Getenv("DISK_DRIVER"), append([]string{"--node", "node-1"}, flags...)...)
		output, err := command.CombinedOutput()
		if err == nil {
			t.Fatalf("the driver started with %q", flags)
		}
		return string(output)
	}
	pool := filepath.Join(r.folder, "pods", "pool")
	r.must(os.Mkdir(pool, 0o755))
	if text := refused("--pool", pool); !strings.Contains(text, "mkfs.xfs") {
		t.Fatal(text)
	}
	r.kill()
	r.run("mount", "--make-private", r.pool)
	if text := refused("--pool", r.pool); !strings.Contains(text, "mountPropagation Bidirectional") {
		t.Fatal(text)
	}
	r.must(os.Symlink(r.pool, filepath.Join(r.folder, "link")))
	if text := refused("--pool", filepath.Join(r.folder, "link")); !strings.Contains(text, "without links") {
		t.Fatal(text)
	}
}
