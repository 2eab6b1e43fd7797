package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gameservers.local/disk-driver/fault"
)

var meanings = map[fault.Kind]codes.Code{
	fault.Internal:   codes.Internal,
	fault.Invalid:    codes.InvalidArgument,
	fault.NotFound:   codes.NotFound,
	fault.Exists:     codes.AlreadyExists,
	fault.NoRoom:     codes.ResourceExhausted,
	fault.InUse:      codes.FailedPrecondition,
	fault.OutOfRange: codes.OutOfRange,
	fault.Busy:       codes.Aborted,
}

// Answer turns the errors of calls into the codes of the CSI specification, and logs each call that may change something.
func Answer(ctx context.Context, request any, call *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	begun := time.Now()
	response, err := next(ctx, request)
	if err != nil {
		if _, known := status.FromError(err); !known {
			err = status.Error(meanings[kind(err)], err.Error())
		}
		slog.Warn("call failed", "call", call.FullMethod, "of", subject(request), "seconds", time.Since(begun).Seconds(),
			"code", status.Code(err).String(), "error", err.Error())
		return nil, err
	}
	if of := subject(request); of != "" {
		slog.Info("call", "call", call.FullMethod, "of", of, "seconds", time.Since(begun).Seconds())
	}
	return response, nil
}

func kind(err error) fault.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Busy
	}
	return fault.Of(err)
}

// subject is the disk or snapshot that a call works on; empty for calls that only ask.
func subject(request any) string {
	switch of := request.(type) {
	case interface{ GetVolumePath() string }:
		// NodeExpandVolume alone has a capacity to reach; NodeGetVolumeStats only asks.
		if expand, is := request.(interface {
			GetVolumeId() string
			GetVolumeCapability() capability
		}); is {
			return expand.GetVolumeId()
		}
		return ""
	case interface{ GetSnapshotId() string }:
		return of.GetSnapshotId()
	case interface{ GetName() string }:
		return of.GetName()
	case interface{ GetVolumeId() string }:
		return of.GetVolumeId()
	}
	return ""
}
