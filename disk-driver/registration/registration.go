// Package registration tells the kubelet of the driver, which finds the socket in its folder plugins_registry:
// https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/ has the same protocol.
package registration

import (
	"context"
	"log/slog"

	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Server answers the kubelet's questions.
type Server struct {
	registerapi.UnimplementedRegistrationServer

	// Name of the driver.
	Name string
	// Socket of the driver as the kubelet sees it.
	Socket string
	// Refused gets the kubelet's reason when it does not take the driver.
	Refused func(reason string)
}

// GetInfo is what the kubelet asks first.
func (s *Server) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type:              registerapi.CSIPlugin,
		Name:              s.Name,
		Endpoint:          s.Socket,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus is the kubelet's decision.
func (s *Server) NotifyRegistrationStatus(
	_ context.Context, status *registerapi.RegistrationStatus,
) (*registerapi.RegistrationStatusResponse, error) {
	if !status.GetPluginRegistered() {
		s.Refused(status.GetError())
	} else {
		slog.Info("the kubelet has registered the driver", "name", s.Name)
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
