//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A game that makes what it likes on its disk reaches nothing else, and its disk is copied and removed like any other.
func TestAHostileTreeStaysInside(t *testing.T) {
	r := newRig(t, 8*gib)
	outside := filepath.Join(r.folder, "outside")
	r.must(os.MkdirAll(filepath.Join(outside, "deep"), 0o755))
	r.write(filepath.Join(outside, "precious"), "whole")
	r.must(r.create("pvc-other", gib, nil))
	r.write(filepath.Join(r.mount("pvc-other"), "precious"), "whole")
	used, loops := r.used(), r.loops()
	r.must(r.create("pvc-1", gib, nil))
	r.must(r.publish("pvc-1"))
	root := r.pod("pvc-1")
	for name, target := range map[string]string{
		"to-outside": outside, "to-root": "/", "to-pool": r.pool, "up": "../../../../../..", "self": "self",
		"lost+found": outside, "disk.img": "/etc/passwd", "disk.json": outside + "/precious", "to-other": r.mount("pvc-other"),
	} {
		r.must(os.Symlink(target, filepath.Join(root, name)))
	}
	r.must(unix.Mkfifo(filepath.Join(root, "fifo"), 0o666))
	r.must(unix.Mknod(filepath.Join(root, "zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
	r.must(unix.Mknod(filepath.Join(root, "loop"), unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0))))
	for _, name := range []string{"new\nline", "tab\t", "\\040", "-rf", "\x01\x02\xff", strings.Repeat("n", 255), ".new-x", " "} {
		r.write(filepath.Join(root, name), name)
	}
	deep := root
	for range 60 {
		deep = filepath.Join(deep, strings.Repeat("d", 60))
		r.must(os.Mkdir(deep, 0o700))
	}
	// Deeper than any path can be spelled.
	r.run("sh", "-c", "cd '"+deep+"' && for i in $(seq 200); do mkdir "+strings.Repeat("e", 60)+" && cd -P "+
		strings.Repeat("e", 60)+" || exit 1; done")
	r.write(filepath.Join(root, "sparse"), "")
	r.must(os.Truncate(filepath.Join(root, "sparse"), 1<<42))
	r.write(filepath.Join(root, "immutable"), "for ever")
	r.must(os.Mkdir(filepath.Join(root, "also-immutable"), 0o000))
	r.run("chattr", "+i", filepath.Join(root, "immutable"), filepath.Join(root, "also-immutable"))
	r.run("chmod", "u+s", filepath.Join(root, "-rf"))
	r.must(os.Link(filepath.Join(root, "tab\t"), filepath.Join(root, "hard")))
	r.run("sh", "-c", "dd if=/dev/zero of="+root+"/fill bs=1M 2>/dev/null; true")
	if _, err := os.Open(filepath.Join(root, "zero")); err == nil {
		t.Fatal("a device on the disk works")
	}

	r.must(r.snapshot("snapshot-1", "pvc-1"))
	r.must(r.create("pvc-2", 2*gib, fromSnapshot("snapshot-1")))
	r.must(r.create("pvc-3", gib, fromDisk("pvc-1")))
	if entries, _ := os.ReadDir(r.mount("pvc-2")); len(entries) < 20 {
		t.Fatalf("the copy has %d entries", len(entries))
	}
	r.kill()
	r.start()
	r.must(r.unpublish("pvc-1"))
	for _, id := range []string{"pvc-1", "pvc-2", "pvc-3"} {
		r.must(r.remove(id))
	}
	r.must(r.removeSnapshot("snapshot-1"))
	r.eventually("their loop devices are free", func() bool { return r.loops() == loops })
	if left := r.used() - used; left > 2*mib {
		t.Fatalf("%d bytes are left", left)
	}
	for _, file := range []string{filepath.Join(outside, "precious"), filepath.Join(r.mount("pvc-other"), "precious")} {
		if text := r.read(file); text != "whole" {
			t.Fatalf("%s is %q", file, text)
		}
	}
	if !exists(filepath.Join(outside, "deep")) || !exists("/etc/passwd") {
		t.Fatal("something outside is gone")
	}
}
