// Package xfs makes the file systems of disks, and changes them while they are in use.
package xfs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// BlockSize of the file systems in bytes; a disk's size is a multiple of it.
const BlockSize = 4096

// MinimumSize of a disk in bytes: mkfs.xfs makes none that is smaller.
const MinimumSize = 300 << 20

// Tools run xfsprogs. The lock is an open file that they keep open: while one of them is still at work on a disk's
// file, no driver that comes after a killed one takes the pool.
type Tools struct{ Lock *os.File }

// Make makes a file system as large as the file, with the smallest journal there is (64 MiB). Without reflink, what is
// written over something else never needs room of its own: so a game can save into its files on a full disk.
func (t Tools) Make(image string) error {
	// Pdeathsig is about the thread that started the program.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var output bytes.Buffer
	command := exec.Command("mkfs.xfs", "-q", "-f", "-K", "-b", fmt.Sprintf("size=%d", BlockSize),
		"-s", fmt.Sprintf("size=%d", BlockSize), "-l", "size=64m", "-m", "reflink=0", image)
	command.Stdout, command.Stderr = &output, &output
	command.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	command.ExtraFiles = []*os.File{t.Lock}
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Run(); err != nil {
		return fmt.Errorf("mkfs.xfs: %w: %s", err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}
