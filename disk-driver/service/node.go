package service

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"gameservers.local/disk-driver/fault"
)

// NodeGetInfo is the node's name, which is its topology too.
func (s *Service) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: s.node, AccessibleTopology: s.topology()}, nil
}

// NodeGetCapabilities is what this part of the service can do.
func (s *Service) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	response := &csi.NodeGetCapabilitiesResponse{}
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
	} {
		response.Capabilities = append(response.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: kind}},
		})
	}
	return response, nil
}

// NodePublishVolume mounts a disk where a pod finds it.
func (s *Service) NodePublishVolume(
	ctx context.Context, asked *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	if err := needed(asked.GetVolumeId(), "target path", asked.GetTargetPath()); err != nil {
		return nil, err
	}
	if asked.GetVolumeCapability() == nil {
		return nil, missing("volume capability")
	}
	if err := check(asked.GetVolumeCapability()); err != nil {
		return nil, err
	}
	readOnly := asked.GetReadonly() ||
		asked.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
	return &csi.NodePublishVolumeResponse{},
		s.disks.Publish(ctx, asked.GetVolumeId(), asked.GetTargetPath(), readOnly)
}

// NodeUnpublishVolume undoes NodePublishVolume. The disk stays mounted at its own place.
func (s *Service) NodeUnpublishVolume(
	ctx context.Context, asked *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := needed(asked.GetVolumeId(), "target path", asked.GetTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, s.disks.Unpublish(ctx, asked.GetVolumeId(), asked.GetTargetPath())
}

// NodeExpandVolume makes a disk larger while a pod uses it.
func (s *Service) NodeExpandVolume(
	ctx context.Context, asked *csi.NodeExpandVolumeRequest,
) (*csi.NodeExpandVolumeResponse, error) {
	if err := needed(asked.GetVolumeId(), "volume path", asked.GetVolumePath()); err != nil {
		return nil, err
	}
	if _, err := s.disk(asked.GetVolumeId()); err != nil {
		return nil, err
	}
	if wanted := asked.GetVolumeCapability(); wanted != nil {
		if err := check(wanted); err != nil {
			return nil, err
		}
	}
	bytes := int64(0)
	limit := asked.GetCapacityRange().GetLimitBytes()
	if asked.GetCapacityRange().GetRequiredBytes() != 0 {
		var err error
		if bytes, limit, err = size(asked.GetCapacityRange()); err != nil {
			return nil, err
		}
	}
	if disk, _ := s.disk(asked.GetVolumeId()); limit != 0 && disk.Size > limit {
		return nil, fault.New(fault.OutOfRange, "disk %s has %d bytes: disks do not shrink", disk.ID, disk.Size)
	}
	bytes, err := s.disks.Grow(ctx, asked.GetVolumeId(), asked.GetVolumePath(), bytes)
	return &csi.NodeExpandVolumeResponse{CapacityBytes: bytes}, err
}

// NodeGetVolumeStats is a disk's use, in bytes and in files.
func (s *Service) NodeGetVolumeStats(
	_ context.Context, asked *csi.NodeGetVolumeStatsRequest,
) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := needed(asked.GetVolumeId(), "volume path", asked.GetVolumePath()); err != nil {
		return nil, err
	}
	folder, err := s.disks.Published(asked.GetVolumeId(), asked.GetVolumePath())
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	stat, err := folder.Usage()
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{
			Unit:      csi.VolumeUsage_BYTES,
			Total:     int64(stat.Blocks) * stat.Bsize,
			Used:      int64(stat.Blocks-stat.Bfree) * stat.Bsize,
			Available: int64(stat.Bavail) * stat.Bsize,
		},
		{
			Unit:      csi.VolumeUsage_INODES,
			Total:     int64(stat.Files),
			Used:      int64(stat.Files - stat.Ffree),
			Available: int64(stat.Ffree),
		},
	}}, nil
}

func needed(id, name, path string) error {
	if id == "" {
		return missing("volume id")
	}
	if path == "" {
		return missing(name)
	}
	return nil
}
