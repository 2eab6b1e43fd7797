// Disk-driver is a CSI driver for a pool of disks on each node. README.md says what it promises.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"gameservers.local/disk-driver/disks"
	"gameservers.local/disk-driver/pool"
	"gameservers.local/disk-driver/registration"
	"gameservers.local/disk-driver/service"
	"gameservers.local/disk-driver/web"
)

type settings struct {
	node, pool, endpoint, registration, kubeletSocket, http string
	limits                                                  pool.Limits
}

func main() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stdout, nil)))
	set, err := parse(os.Args[1:])
	if err == nil {
		err = run(set)
	}
	if err != nil {
		slog.Error("the driver ends", "error", err.Error())
		os.Exit(1)
	}
}

func parse(arguments []string) (settings, error) {
	var set settings
	flags := flag.NewFlagSet("disk-driver", flag.ContinueOnError)
	flags.StringVar(&set.node, "node", "", "the node's name")
	flags.StringVar(&set.pool, "pool", "/var/lib/gameserver-disks", "the pool's folder, at the path that it has on the node")
	flags.StringVar(&set.endpoint, "endpoint", "unix:///csi/csi.sock", "the driver's own socket")
	flags.StringVar(&set.registration, "registration", "", "the socket that the kubelet looks for; none if empty")
	flags.StringVar(&set.kubeletSocket, "kubelet-socket", "", "the driver's socket as the kubelet sees it")
	flags.StringVar(&set.http, "http", ":9810", "where /healthz and /metrics are served; nowhere if empty")
	flags.Float64Var(&set.limits.Overcommit, "overcommit", 1.0, "how much of the pool's size may be promised")
	flags.Float64Var(&set.limits.ReservePercent, "reserve-percent", 2, "percent of the pool that are never promised")
	flags.Float64Var(&set.limits.AllowancePercent, "snapshot-allowance-percent", 100,
		"percent of a disk's size that its snapshots may hold together")
	if err := flags.Parse(arguments); err != nil {
		return set, err
	}
	switch {
	case flags.NArg() > 0:
		return set, fmt.Errorf("unknown arguments: %q", flags.Args())
	case set.node == "":
		return set, errors.New("--node is missing")
	case set.limits.Overcommit <= 0 || set.limits.ReservePercent < 0 || set.limits.AllowancePercent < 0:
		return set, errors.New("--overcommit has to be above 0, and the percents 0 or more")
	case set.registration != "" && set.kubeletSocket == "":
		return set, errors.New("--registration needs --kubelet-socket")
	}
	return set, nil
}

// run serves until SIGTERM. Mounts stay when the driver ends: no pod notices.
func run(set settings) error {
	kept, err := pool.Open(set.pool, set.limits)
	if err != nil {
		return err
	}
	all := disks.New(kept)
	if err := all.Recover(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	failed := make(chan error, 4)
	// A disk that is wanted before its turn is mounted then.
	go all.AttachAll(ctx)

	answers := grpc.NewServer(grpc.UnaryInterceptor(service.Answer))
	node := service.New(set.node, all)
	csi.RegisterIdentityServer(answers, node)
	csi.RegisterControllerServer(answers, node)
	csi.RegisterNodeServer(answers, node)
	if err := serve(answers, strings.TrimPrefix(set.endpoint, "unix://"), failed); err != nil {
		return err
	}
	defer answers.GracefulStop()
	if set.http != "" {
		listener, err := net.Listen("tcp", set.http)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: web.Handler(all), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
		go func() { failed <- server.Serve(listener) }()
		slog.Info("serving http", "address", listener.Addr().String())
	}
	if set.registration != "" {
		registrar := grpc.NewServer()
		defer registrar.Stop()
		registerapi.RegisterRegistrationServer(registrar, &registration.Server{
			Name:   service.Driver,
			Socket: set.kubeletSocket,
			Refused: func(reason string) {
				failed <- fmt.Errorf("the kubelet does not take the driver: %s", reason)
			},
		})
		if err := serve(registrar, set.registration, failed); err != nil {
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		slog.Info("the driver ends, and the disks stay mounted")
		return nil
	}
}

// serve answers calls on a socket, which replaces one that a killed driver has left.
func serve(server *grpc.Server, socket string, failed chan<- error) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() { failed <- server.Serve(listener) }()
	slog.Info("serving", "socket", socket)
	return nil
}
