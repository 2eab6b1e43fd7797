package pool

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Disk is what the pool knows of a disk.
type Disk struct {
	ID string `json:"id"`
	// Size in bytes: of the file, and so of the file system in it.
	Size int64 `json:"size"`
	// Source is what the disk was copied from, `snapshot/<id>` or `disk/<id>`; empty for one that was made empty.
	Source  string    `json:"source,omitempty"`
	Created time.Time `json:"created"`
}

// Snapshot is what the pool knows of a snapshot.
type Snapshot struct {
	ID   string `json:"id"`
	Disk string `json:"disk"`
	// Size in bytes of the disk when the snapshot was taken: a disk made from it has at least this size.
	Size int64 `json:"size"`
	// Bytes that the snapshot held when it was taken. They stay counted whole, because the disk may rewrite all of them.
	Bytes   int64     `json:"bytes"`
	Created time.Time `json:"created"`
}

// write puts a record into a folder: beside, synced, and renamed into place, so that a reader finds all or nothing.
func write(folder, name string, record any) error {
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	beside := filepath.Join(folder, name+".new")
	file, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(beside, filepath.Join(folder, name)); err != nil {
		return err
	}
	return syncPath(folder)
}

func read(folder, name string, record any) error {
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, record)
}

// syncPath brings a file, or the names in a folder, to the device.
func syncPath(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
