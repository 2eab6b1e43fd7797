// Package service answers the calls of the Container Storage Interface:
// https://github.com/container-storage-interface/spec/blob/v1.9.0/spec.md
package service

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"gameservers.local/disk-driver/disks"
)

const (
	// Driver is the driver's name in StorageClasses and PersistentVolumes.
	Driver = "disk-driver.gameserver"
	// Topology is the key of the topology segment: a disk is on one node.
	Topology = Driver + "/node"
)

// Version is of the product; the linker sets it.
var Version = "0.0.0"

// Service answers for one node.
type Service struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	node  string
	disks *disks.Disks
}

// New is the service of a node.
func New(node string, of *disks.Disks) *Service { return &Service{node: node, disks: of} }

// GetPluginInfo is the driver's name and version.
func (s *Service) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: Driver, VendorVersion: Version}, nil
}

// Probe says that the driver works.
func (s *Service) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// GetPluginCapabilities says that disks are bound to nodes, and grow while in use.
func (s *Service) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	var capabilities []*csi.PluginCapability
	for _, kind := range []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE,
		csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	} {
		capabilities = append(capabilities, &csi.PluginCapability{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: kind}},
		})
	}
	capabilities = append(capabilities, &csi.PluginCapability{
		Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}},
	})
	return &csi.GetPluginCapabilitiesResponse{Capabilities: capabilities}, nil
}
