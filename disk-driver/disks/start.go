package disks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"gameservers.local/disk-driver/mounts"
)

// So many disks are mounted at the same time when the driver starts: each waits for the pool's disk now and then.
const together = 4

// Recover removes what calls have left that a crash has ended: mounts and mount points of removed disks first, then
// their files, and whatever was not finished.
func (d *Disks) Recover() error {
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	over, found := mounts.Over(table, d.pool.Mounts())
	if !found || !over.Shared {
		return fmt.Errorf("mounts below %s reach no other mount namespace, so pods would not see the disks: give the"+
			" container its pool with mountPropagation Bidirectional, or run `mount --make-shared` on the mount", d.pool.Mounts())
	}
	points, err := os.ReadDir(d.pool.Mounts())
	if err != nil {
		return err
	}
	for _, point := range points {
		if _, found := d.pool.Disk(point.Name()); found {
			continue
		}
		slog.Info("removing the mount of a disk that was being removed", "disk", point.Name())
		if err := d.dismantle(point.Name()); err != nil {
			return err
		}
	}
	// A mount whose mount point is hidden or gone.
	for _, mount := range table {
		name, below := strings.CutPrefix(mount.Point, d.pool.Mounts()+"/")
		if _, found := d.pool.Disk(name); below && !found {
			if err := mounts.Detach(mount.Point); err != nil {
				return err
			}
		}
	}
	return d.pool.Sweep()
}

// AttachAll mounts all disks. What fails is logged, kept, and tried again when a pod wants the disk.
func (d *Disks) AttachAll(ctx context.Context) {
	var running sync.WaitGroup
	places := make(chan struct{}, together)
	all := d.pool.Disks()
	for _, disk := range all {
		places <- struct{}{}
		running.Add(1)
		go func() {
			defer running.Done()
			defer func() { <-places }()
			if err := d.attachIfThere(ctx, disk.ID); err != nil {
				slog.Error("a disk was not mounted at the start", "disk", disk.ID, "error", err.Error())
			}
		}()
	}
	running.Wait()
	slog.Info("the disks are mounted", "disks", len(all), "not_mounted", d.Broken())
}

func (d *Disks) attachIfThere(ctx context.Context, id string) error {
	release, err := d.locks.take(ctx, "disk "+id)
	if err != nil {
		return err
	}
	defer release()
	if _, found := d.pool.Disk(id); !found {
		return nil
	}
	return errors.Join(ctx.Err(), d.attach(id))
}
