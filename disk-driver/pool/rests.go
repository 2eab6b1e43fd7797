package pool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// make fills a folder beside, and gives it its name when all in it is on the disk.
func (p *Pool) make(kind, id string, fill func(folder string) error) error {
	beside := p.folder(unfinished + kind + "-" + id)
	if err := os.RemoveAll(beside); err != nil {
		return err
	}
	err := os.Mkdir(beside, 0o700)
	if err == nil {
		err = fill(beside)
	}
	if err == nil {
		err = syncPath(beside)
	}
	if err == nil {
		err = os.Rename(beside, p.folder(kind, id))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(beside))
	}
	return errors.Join(syncPath(p.folder(kind)), syncPath(p.path))
}

// retire takes the name of a disk or snapshot away, and calls `forget` once that cannot be lost any more.
func (p *Pool) retire(kind, id string, forget func()) error {
	// One of the same name that could not be removed then.
	if err := p.sweep(kind, id); err != nil {
		return err
	}
	if err := os.Rename(p.folder(kind, id), p.folder(removed+kind+"-"+id)); err != nil {
		return err
	}
	if err := errors.Join(syncPath(p.path), syncPath(p.folder(kind))); err != nil {
		return err
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	forget()
	return nil
}

// sweep removes what retire has left of one disk or snapshot.
func (p *Pool) sweep(kind, id string) error { return discard(p.folder(removed + kind + "-" + id)) }

// Sweep removes all rests of calls that a crash has ended.
func (p *Pool) Sweep() error {
	entries, err := os.ReadDir(p.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), unfinished) || strings.HasPrefix(entry.Name(), removed) {
			err = errors.Join(err, discard(p.folder(entry.Name())))
		}
	}
	return err
}

// discard removes a folder of a file and its record. The file is emptied first: while something still has it open, as a
// loop device does, removing its name alone would free nothing.
func discard(folder string) error {
	for _, name := range []string{diskImage, snapshotImage} {
		err := os.Truncate(filepath.Join(folder, name), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.RemoveAll(folder)
}
