package service

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/pool"
)

// CreateSnapshot takes a snapshot of a disk. Its id is the name that is asked for; it can be used at once.
func (s *Service) CreateSnapshot(
	ctx context.Context, asked *csi.CreateSnapshotRequest,
) (*csi.CreateSnapshotResponse, error) {
	if asked.GetSourceVolumeId() == "" {
		return nil, missing("source volume id")
	}
	if err := checkParameters(asked.GetParameters()); err != nil {
		return nil, err
	}
	snapshot, err := s.disks.Snapshot(ctx, asked.GetName(), asked.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: described(snapshot)}, nil
}

// DeleteSnapshot removes a snapshot for good. Disks that were made from it stay.
func (s *Service) DeleteSnapshot(
	ctx context.Context, asked *csi.DeleteSnapshotRequest,
) (*csi.DeleteSnapshotResponse, error) {
	if asked.GetSnapshotId() == "" {
		return nil, missing("snapshot id")
	}
	return &csi.DeleteSnapshotResponse{}, s.disks.RemoveSnapshot(ctx, asked.GetSnapshotId())
}

// ListSnapshots lists this node's snapshots, ordered by their ids; the token is the number of those that were listed.
func (s *Service) ListSnapshots(
	_ context.Context, asked *csi.ListSnapshotsRequest,
) (*csi.ListSnapshotsResponse, error) {
	all := slices.DeleteFunc(s.disks.Pool().Snapshots(), func(snapshot pool.Snapshot) bool {
		id, disk := asked.GetSnapshotId(), asked.GetSourceVolumeId()
		return id != "" && id != snapshot.ID || disk != "" && disk != snapshot.Disk
	})
	slices.SortFunc(all, func(one, other pool.Snapshot) int { return strings.Compare(one.ID, other.ID) })
	begin := 0
	if token := asked.GetStartingToken(); token != "" {
		var err error
		if begin, err = strconv.Atoi(token); err != nil || begin < 0 {
			return nil, fault.New(fault.Busy, "%q is no token of this list", token)
		}
	}
	begin = min(begin, len(all))
	end := len(all)
	if most := int(asked.GetMaxEntries()); most > 0 {
		end = min(end, begin+most)
	}
	response := &csi.ListSnapshotsResponse{}
	for _, snapshot := range all[begin:end] {
		response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: described(snapshot)})
	}
	if end < len(all) {
		response.NextToken = strconv.Itoa(end)
	}
	return response, nil
}

func described(snapshot pool.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId:     snapshot.ID,
		SourceVolumeId: snapshot.Disk,
		SizeBytes:      snapshot.Size,
		CreationTime:   timestamppb.New(snapshot.Created),
		ReadyToUse:     true,
	}
}
