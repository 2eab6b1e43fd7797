package service

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/xfs"
)

// A size is rounded up to whole MiB, never below the smallest disk and never above the limit.
func TestSize(t *testing.T) {
	const gib = int64(1) << 30
	for _, one := range []struct {
		required, limit, size int64
		kind                  fault.Kind
	}{
		{0, 0, gib, 0},
		{0, 500 << 20, 500 << 20, 0},
		{5 * gib, 0, 5 * gib, 0},
		{5*gib + 1, 0, 5*gib + 1<<20, 0},
		{1, 0, xfs.MinimumSize, 0},
		{5*gib + 1, 5*gib + 2, 0, fault.OutOfRange},
		{1, 1 << 20, 0, fault.OutOfRange},
		{1 << 62, 0, 0, fault.OutOfRange},
		{2 * gib, gib, 0, fault.Invalid},
		{-1, 0, 0, fault.Invalid},
	} {
		size, _, err := size(&csi.CapacityRange{RequiredBytes: one.required, LimitBytes: one.limit})
		if err != nil && fault.Of(err) != one.kind || err == nil && (one.kind != 0 || size != one.size) {
			t.Errorf("%d to %d: %d, %v", one.required, one.limit, size, err)
		}
	}
}

// A disk is a file system for one node.
func TestCheck(t *testing.T) {
	mount := func(kind string, mode csi.VolumeCapability_AccessMode_Mode, flags ...string) *csi.VolumeCapability {
		return &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{
				Mount: &csi.VolumeCapability_MountVolume{FsType: kind, MountFlags: flags},
			},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		}
	}
	const writer = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	for _, kind := range []string{"", "xfs"} {
		if err := check(mount(kind, writer)); err != nil {
			t.Error(err)
		}
	}
	for _, refused := range []*csi.VolumeCapability{
		mount("ext4", writer), mount("", writer, "suid"),
		mount("", csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER), {AccessMode: mount("", writer).AccessMode},
		{AccessType: &csi.VolumeCapability_Block{}, AccessMode: mount("", writer).AccessMode},
	} {
		if err := check(mount("", writer), refused); fault.Of(err) != fault.Invalid {
			t.Errorf("%v: %v", refused, err)
		}
	}
	if check() == nil {
		t.Error("no capability was taken")
	}
}

// The sidecars' own parameters are let through, and no others.
func TestCheckParameters(t *testing.T) {
	if err := checkParameters(map[string]string{"csi.storage.k8s.io/pvc/name": "server-1"}); err != nil {
		t.Error(err)
	}
	if err := checkParameters(map[string]string{"replicas": "3"}); fault.Of(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}

// Calls that only ask are not logged; the others with what they are about.
func TestSubject(t *testing.T) {
	for expected, request := range map[string]any{
		"pvc-1":      &csi.CreateVolumeRequest{Name: "pvc-1"},
		"pvc-2":      &csi.NodeExpandVolumeRequest{VolumeId: "pvc-2"},
		"pvc-3":      &csi.NodePublishVolumeRequest{VolumeId: "pvc-3"},
		"snapshot-1": &csi.DeleteSnapshotRequest{SnapshotId: "snapshot-1"},
	} {
		if of := subject(request); of != expected {
			t.Errorf("%T is about %q", request, of)
		}
	}
	for _, request := range []any{&csi.NodeGetVolumeStatsRequest{VolumeId: "pvc-1"}, &csi.ProbeRequest{}, &csi.GetCapacityRequest{}} {
		if of := subject(request); of != "" {
			t.Errorf("%T is logged as %q", request, of)
		}
	}
}
