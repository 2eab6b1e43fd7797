package service

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/pool"
	"gameservers.local/disk-driver/xfs"
)

// ControllerGetCapabilities is what this part of the service can do.
func (s *Service) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	response := &csi.ControllerGetCapabilitiesResponse{}
	for _, kind := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
	} {
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: kind}},
		})
	}
	return response, nil
}

// CreateVolume makes a disk on this node. Its id is the name that is asked for.
func (s *Service) CreateVolume(ctx context.Context, asked *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := check(asked.GetVolumeCapabilities()...); err != nil {
		return nil, err
	}
	if err := checkParameters(asked.GetParameters()); err != nil {
		return nil, err
	}
	size, limit, err := size(asked.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	source, err := source(asked.GetVolumeContentSource())
	if err != nil {
		return nil, err
	}
	if err := s.here(asked.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	disk, err := s.disks.Create(ctx, asked.GetName(), size, limit, source)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:      disk.ID,
		CapacityBytes: disk.Size,
		// File access finds the disk by this, with or without a pod.
		VolumeContext:      map[string]string{"folder": s.disks.Pool().Mount(disk.ID)},
		ContentSource:      asked.GetVolumeContentSource(),
		AccessibleTopology: []*csi.Topology{s.topology()},
	}}, nil
}

// DeleteVolume removes a disk for good.
func (s *Service) DeleteVolume(ctx context.Context, asked *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if asked.GetVolumeId() == "" {
		return nil, missing("volume id")
	}
	return &csi.DeleteVolumeResponse{}, s.disks.Remove(ctx, asked.GetVolumeId())
}

// ValidateVolumeCapabilities says whether a disk could be used in a way.
func (s *Service) ValidateVolumeCapabilities(
	_ context.Context, asked *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if asked.GetVolumeId() == "" {
		return nil, missing("volume id")
	}
	if len(asked.GetVolumeCapabilities()) == 0 {
		return nil, missing("volume capability")
	}
	if _, err := s.disk(asked.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := check(asked.GetVolumeCapabilities()...); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeContext:      asked.GetVolumeContext(),
			VolumeCapabilities: asked.GetVolumeCapabilities(),
			Parameters:         asked.GetParameters(),
		},
	}, nil
}

// GetCapacity is what can still be promised on this node. A disk takes its whole size from it, so the largest disk that
// fits is as large.
func (s *Service) GetCapacity(_ context.Context, asked *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	wrong := len(asked.GetVolumeCapabilities()) > 0 && check(asked.GetVolumeCapabilities()...) != nil
	if wrong || !s.isHere(asked.GetAccessibleTopology()) {
		return &csi.GetCapacityResponse{}, nil
	}
	room, err := s.disks.Pool().Room()
	if err != nil {
		return nil, err
	}
	return &csi.GetCapacityResponse{
		AvailableCapacity: room.Free,
		MaximumVolumeSize: wrapperspb.Int64(room.Free / unit * unit),
		MinimumVolumeSize: wrapperspb.Int64(xfs.MinimumSize),
	}, nil
}

func (s *Service) topology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{Topology: s.node}}
}

func (s *Service) disk(id string) (pool.Disk, error) {
	disk, found := s.disks.Pool().Disk(id)
	if !found {
		return disk, fault.New(fault.NotFound, "node %s has no disk %s", s.node, id)
	}
	return disk, nil
}

func missing(what string) error { return fault.New(fault.Invalid, "the %s is missing", what) }
