//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// A disk can be written by a pod, and in its folder without one; both are the same.
func TestADiskIsMountedWithAndWithoutAPod(t *testing.T) {
	r := newRig(t, 4*gib)
	response, err := r.CreateVolume(context.Background(), &csi.CreateVolumeRequest{
		Name: "pvc-1", CapacityRange: &csi.CapacityRange{RequiredBytes: gib},
		VolumeCapabilities: []*csi.VolumeCapability{writer()},
	})
	r.must(err)
	folder := response.Volume.VolumeContext["folder"]
	if folder != r.mount("pvc-1") || response.Volume.CapacityBytes != gib {
		t.Fatalf("got %v", response.Volume)
	}
	if segment := response.Volume.AccessibleTopology[0].Segments["disk-driver.gameserver/node"]; segment != "node-1" {
		t.Fatalf("got the node %q", segment)
	}
	r.write(filepath.Join(folder, "world"), "saved")
	r.must(r.publish("pvc-1"))
	r.must(r.publish("pvc-1"))
	if text := r.read(filepath.Join(r.pod("pvc-1"), "world")); text != "saved" {
		t.Fatalf("the pod reads %q", text)
	}
	r.must(r.unpublish("pvc-1"))
	r.must(r.unpublish("pvc-1"))
	if exists(r.pod("pvc-1")) {
		t.Fatal("the pod's folder is still there")
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 1 {
		t.Fatalf("the disk has %v", entries)
	}
}

// A pod that may only read its disk cannot write to it, also if the driver was killed between the two steps of the mount.
func TestAReadOnlyDiskIsReadOnly(t *testing.T) {
	r := newRig(t, 4*gib)
	r.must(r.create("pvc-1", gib, nil))
	publish := func() {
		t.Helper()
		_, err := r.node.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{
			VolumeId: "pvc-1", TargetPath: r.pod("pvc-1"), VolumeCapability: writer(), Readonly: true,
		})
		r.must(err)
		if err := os.WriteFile(filepath.Join(r.pod("pvc-1"), "world"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Fatalf("writing gave %v", err)
		}
		r.write(filepath.Join(r.mount("pvc-1"), "world"), "still written without the pod")
	}
	publish()
	publish()
	r.must(r.unpublish("pvc-1"))
	// What such a kill leaves.
	r.must(os.Mkdir(r.pod("pvc-1"), 0o750))
	r.run("mount", "--bind", r.mount("pvc-1"), r.pod("pvc-1"))
	publish()
	r.must(r.unpublish("pvc-1"))
	if exists(r.pod("pvc-1")) {
		t.Fatal("the pod's folder is still there")
	}
}

// A pod's disk is not removed from under it; removed, it leaves nothing.
func TestADiskThatAPodHasIsNotRemoved(t *testing.T) {
	r := newRig(t, 4*gib)
	used, loops := r.used(), r.loops()
	r.must(r.create("pvc-1", gib, nil))
	r.must(r.publish("pvc-1"))
	r.refused(r.remove("pvc-1"), codes.FailedPrecondition, r.pod("pvc-1"))
	r.kill()
	r.start()
	r.refused(r.remove("pvc-1"), codes.FailedPrecondition, r.pod("pvc-1"))
	r.must(r.unpublish("pvc-1"))
	r.must(r.remove("pvc-1"))
	r.must(r.remove("pvc-1"))
	for _, folder := range []string{"disks", "mounts", "snapshots"} {
		if entries, _ := os.ReadDir(filepath.Join(r.pool, folder)); len(entries) > 0 {
			t.Fatalf("%s has %v", folder, entries)
		}
	}
	r.eventually("its loop device is free", func() bool { return r.loops() == loops })
	if left := r.used() - used; left > mib || len(r.rests()) > 0 {
		t.Fatalf("%d bytes are left, and %v", left, r.rests())
	}
}

// File access may still have a mount, with a file open, when a disk is removed: its blocks are free all the same.
func TestBlocksAreFreedWhileTheDiskIsMountedElsewhere(t *testing.T) {
	r := newRig(t, 4*gib)
	used := r.used()
	r.must(r.create("pvc-1", gib, nil))
	r.run("dd", "if=/dev/zero", "of="+r.mount("pvc-1")+"/fill", "bs=1M", "count=300", "conv=fsync", "status=none")
	// Private: what is unmounted here stays mounted there. A writer goes on until it is refused.
	session := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		"exec 3>"+r.mount("pvc-1")+"/open; echo ready; while echo more >&3; do :; done; sleep 60")
	output, err := session.StdoutPipe()
	r.must(err)
	r.must(session.Start())
	defer func() { _ = session.Process.Kill(); _ = session.Wait() }()
	_, err = output.Read(make([]byte, 6))
	r.must(err)
	if r.used()-used < 300*mib {
		t.Fatal("the disk does not hold what was written")
	}
	r.must(r.remove("pvc-1"))
	if r.loops() != 1 {
		t.Fatal("the session has lost its mount: this test shows nothing")
	}
	if left := r.used() - used; left > 2*mib {
		t.Fatalf("%d bytes are not freed", left)
	}
	if free := r.free(); free < 3*gib {
		t.Fatalf("%d bytes can be promised", free)
	}
	r.must(r.create("pvc-1", gib, nil))
	r.write(r.mount("pvc-1")+"/new", "of the new disk")
}

// A name stands for one disk, of one size and source, however often and at the same time it is asked for.
func TestCallsAreIdempotentByName(t *testing.T) {
	r := newRig(t, 8*gib)
	var calls sync.WaitGroup
	failures := make([]error, 8)
	for i := range failures {
		calls.Go(func() { failures[i] = r.create("pvc-1", gib, nil) })
	}
	calls.Wait()
	for _, err := range failures {
		r.must(err)
	}
	if r.loops() != 1 {
		t.Fatalf("there are %d loop devices", r.loops())
	}
	r.must(r.create("pvc-1", gib-mib, nil))
	r.refused(r.create("pvc-1", gib+mib, nil), codes.AlreadyExists, "pvc-1")
	r.must(r.create("pvc-2", gib, nil))
	r.must(r.snapshot("snapshot-1", "pvc-1"))
	r.must(r.snapshot("snapshot-1", "pvc-1"))
	r.refused(r.snapshot("snapshot-1", "pvc-2"), codes.AlreadyExists, "snapshot-1")
	r.refused(r.create("pvc-1", gib, fromSnapshot("snapshot-1")), codes.AlreadyExists, "pvc-1")
	r.refused(r.create("pvc-3", gib, fromSnapshot("snapshot-2")), codes.NotFound, "snapshot-2")
	r.refused(r.create("pvc-3", gib, fromDisk("pvc-9")), codes.NotFound, "pvc-9")
	r.refused(r.snapshot("snapshot-3", "pvc-9"), codes.NotFound, "pvc-9")
	for _, name := range []string{"../../etc", ".new-1", "a/b", "", strings.Repeat("a", 201)} {
		r.refused(r.create(name, gib, nil), codes.InvalidArgument, "")
		if err := r.remove(name); name != "" && err != nil {
			t.Fatal(err)
		}
	}
	r.must(r.removeSnapshot("snapshot-1"))
	r.must(r.removeSnapshot("snapshot-1"))
}

// A driver that is killed and started again disturbs nobody: the very mounts stay.
func TestARestartTouchesNoMount(t *testing.T) {
	r := newRig(t, 8*gib)
	for _, id := range []string{"pvc-1", "pvc-2", "pvc-3"} {
		r.must(r.create(id, gib, nil))
	}
	r.must(r.publish("pvc-1"))
	file, err := os.Create(filepath.Join(r.pod("pvc-1"), "game"))
	r.must(err)
	defer file.Close()
	before := r.mounted()
	r.kill()
	r.start()
	if after := r.mounted(); !slices.Equal(before, after) {
		t.Fatalf("the mounts were\n%s\nand are\n%s", strings.Join(before, ""), strings.Join(after, ""))
	}
	_, err = file.WriteString("goes on")
	r.must(err)
	r.must(file.Sync())
	r.must(r.publish("pvc-1"))
	if after := r.mounted(); !slices.Equal(before, after) {
		t.Fatal("a pod's disk was mounted twice")
	}
}

// A node that was off mounts all of its disks again, before any pod asks.
func TestANodeThatWasOffMountsItsDisksAgain(t *testing.T) {
	r := newRig(t, 100*gib)
	disks := number("DISKS", 25)
	name := func(i int) string { return fmt.Sprintf("pvc-%d", i) }
	for i := range disks {
		r.must(r.create(name(i), small, nil))
		r.write(filepath.Join(r.mount(name(i)), "name"), name(i))
	}
	r.kill()
	for i := range disks {
		r.run("umount", r.mount(name(i)))
	}
	// Where no disk is mounted, nothing can be put: a mount would hide it.
	if err := os.WriteFile(filepath.Join(r.mount("pvc-0"), "lost"), nil, 0o600); err == nil {
		t.Fatal("a file could be put where the disk is to be mounted")
	}
	r.eventually("the loop devices are free", func() bool { return r.loops() == 0 })
	begun := time.Now()
	r.start()
	t.Logf("%d disks were mounted in %v", disks, time.Since(begun))
	for i := range disks {
		if text := r.read(filepath.Join(r.mount(name(i)), "name")); text != name(i) {
			t.Fatalf("disk %s is %s", name(i), text)
		}
	}
}

// The kubelet learns of the driver from the driver itself.
func TestTheDriverRegistersWithTheKubelet(t *testing.T) {
	r := newRig(t, 2*gib)
	connection, err := grpc.NewClient("unix://"+r.path("registration.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	r.must(err)
	defer connection.Close()
	kubelet := registerapi.NewRegistrationClient(connection)
	info, err := kubelet.GetInfo(context.Background(), &registerapi.InfoRequest{})
	r.must(err)
	if info.Type != "CSIPlugin" || info.Name != "disk-driver.gameserver" ||
		info.Endpoint != "/var/lib/kubelet/plugins/csi.sock" || !slices.Equal(info.SupportedVersions, []string{"1.0.0"}) {
		t.Fatalf("got %v", info)
	}
	// A driver that is refused ends, so that its container is started again.
	_, _ = kubelet.NotifyRegistrationStatus(context.Background(), &registerapi.RegistrationStatus{Error: "no"})
	if err := <-r.ended; err == nil {
		t.Fatal("the driver ended without an error")
	}
	r.driver = nil
	if _, err := net.Dial("unix", r.path("csi.sock")); err == nil {
		t.Fatal("the driver still serves")
	}
}
