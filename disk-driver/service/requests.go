package service

import (
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"gameservers.local/disk-driver/disks"
	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/xfs"
)

type capability = *csi.VolumeCapability

const (
	// A size is rounded up to whole units of this many bytes.
	unit = 1 << 20
	// The size of a disk whose claim names none.
	usual = 1 << 30
)

// size is the size of a disk that is asked for, and the largest that will do (0: any), in bytes.
func size(asked *csi.CapacityRange) (size, limit int64, err error) {
	required, limit := asked.GetRequiredBytes(), asked.GetLimitBytes()
	if required < 0 || limit < 0 || limit != 0 && limit < required {
		return 0, 0, fault.New(fault.Invalid, "no size is at least %d and at most %d bytes", required, limit)
	}
	size = required
	if required == 0 {
		size = usual
		if limit != 0 {
			size = min(usual, limit/unit*unit)
		}
	}
	size = max(size, xfs.MinimumSize)
	if size > 1<<60 {
		return 0, 0, fault.New(fault.OutOfRange, "a disk of %d bytes is larger than any pool", size)
	}
	size = (size + unit - 1) / unit * unit
	if limit != 0 && size > limit {
		return 0, 0, fault.New(fault.OutOfRange, "sizes are whole MiB, at least %d bytes: none is at least %d and at most %d",
			xfs.MinimumSize, required, limit)
	}
	return size, limit, nil
}

// check refuses what a disk cannot do: to be a block device, or on several nodes.
func check(wanted ...capability) error {
	if len(wanted) == 0 {
		return fault.New(fault.Invalid, "a volume capability is missing")
	}
	for _, one := range wanted {
		mount := one.GetMount()
		switch mode := one.GetAccessMode().GetMode(); {
		case mount == nil:
			return fault.New(fault.Invalid, "disks are file systems: volumeMode has to be Filesystem")
		case mount.GetFsType() != "" && mount.GetFsType() != "xfs":
			return fault.New(fault.Invalid, "disks are XFS, and not %q", mount.GetFsType())
		case len(mount.GetMountFlags()) > 0:
			return fault.New(fault.Invalid, "disks have no mount options to choose: %q", mount.GetMountFlags())
		case mode != csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER &&
			mode != csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:
			return fault.New(fault.Invalid, "a disk is on one node: the access mode has to be ReadWriteOnce, not %s", mode)
		}
	}
	return nil
}

// checkParameters refuses what a StorageClass or VolumeSnapshotClass cannot set; the sidecars' own are let through.
func checkParameters(parameters map[string]string) error {
	for name := range parameters {
		if !strings.HasPrefix(name, "csi.storage.k8s.io/") {
			return fault.New(fault.Invalid, "the class has a parameter %q, and this driver has none", name)
		}
	}
	return nil
}

// source is what a new disk is to be made from.
func source(asked *csi.VolumeContentSource) (disks.Source, error) {
	switch {
	case asked == nil:
		return disks.Source{}, nil
	case asked.GetSnapshot().GetSnapshotId() != "":
		return disks.Source{Snapshot: asked.GetSnapshot().GetSnapshotId()}, nil
	case asked.GetVolume().GetVolumeId() != "":
		return disks.Source{Disk: asked.GetVolume().GetVolumeId()}, nil
	}
	return disks.Source{}, fault.New(fault.Invalid, "a disk is made from a snapshot or from another disk")
}

// here refuses a disk that may only be on other nodes.
func (s *Service) here(asked *csi.TopologyRequirement) error {
	places := append(asked.GetRequisite(), asked.GetPreferred()...)
	for _, place := range places {
		if s.isHere(place) {
			return nil
		}
	}
	if len(places) == 0 {
		return nil
	}
	return fault.New(fault.NoRoom, "this is the driver of node %s, and the disk may not be on it", s.node)
}

func (s *Service) isHere(place *csi.Topology) bool {
	node, named := place.GetSegments()[Topology]
	return !named || node == s.node
}
