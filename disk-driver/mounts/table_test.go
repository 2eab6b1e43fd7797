package mounts

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 7:0 / /pool rw,relatime shared:19 master:2 - xfs /dev/loop0 rw,inode64
31 30 7:1 / /pool/mounts/pvc-1 rw,nosuid,nodev - xfs /dev/loop1 rw
32 22 7:1 / /pods/a\040b/\134mount rw unbindable - xfs /dev/loop1 rw
33 31 7:2 / /pool/mounts/pvc-1 rw - xfs /dev/loop2 rw
`

// A line's optional fields can be none or several, and odd characters in paths are escaped.
func TestParse(t *testing.T) {
	found, err := parse(table)
	if err != nil {
		t.Fatal(err)
	}
	expected := []Mount{
		{unix.Mkdev(254, 0), "/", true},
		{unix.Mkdev(7, 0), "/pool", true},
		{unix.Mkdev(7, 1), "/pool/mounts/pvc-1", false},
		{unix.Mkdev(7, 1), `/pods/a b/\mount`, false},
		{unix.Mkdev(7, 2), "/pool/mounts/pvc-1", false},
	}
	if !reflect.DeepEqual(found, expected) {
		t.Fatalf("got %v", found)
	}
	for _, text := range []string{"22 1 254:0 / / rw shared:1 ext4 /dev/vda rw\n", "22 1 x / / rw - ext4 /dev/vda rw\n"} {
		if _, err := parse(text); err == nil {
			t.Fatalf("%q was read", text)
		}
	}
}

// The upper one of two mounts at a path counts; a path lies in the mount of the nearest folder above it.
func TestLookups(t *testing.T) {
	all, _ := parse(table)
	if mount, found := At(all, "/pool/mounts/pvc-1"); !found || mount.Device != unix.Mkdev(7, 2) {
		t.Fatalf("got %v", mount)
	}
	if _, found := At(all, "/pool/mounts"); found {
		t.Fatal("nothing is mounted there")
	}
	if of := Of(all, unix.Mkdev(7, 1)); len(of) != 2 {
		t.Fatalf("got %v", of)
	}
	for path, expected := range map[string]string{"/pool/mounts": "/pool", "/poolside": "/", "/": "/"} {
		if mount, _ := Over(all, path); mount.Point != expected {
			t.Fatalf("%s lies in %s", path, mount.Point)
		}
	}
}
