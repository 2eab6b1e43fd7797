// Package mounts has what the driver asks of the kernel: loop devices, mounts, and the table of mounts.
package mounts

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is a line of the table of mounts that this process sees.
type Mount struct {
	// Device is the number of the mounted file system's device.
	Device uint64
	// Point is the path of the mount point.
	Point string
	// Shared says whether mounts below it reach other mount namespaces.
	Shared bool
}

// Table is all mounts that this process sees, the upper one of two at the same place last.
func Table() ([]Mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parse(string(text))
}

// At is the mount at a path, the uppermost if there are several.
func At(table []Mount, point string) (Mount, bool) {
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].Point == point {
			return table[i], true
		}
	}
	return Mount{}, false
}

// Of are the mounts of a device.
func Of(table []Mount, device uint64) []Mount {
	var found []Mount
	for _, mount := range table {
		if mount.Device == device {
			found = append(found, mount)
		}
	}
	return found
}

// Over is the mount that a path lies in.
func Over(table []Mount, path string) (Mount, bool) {
	for {
		if mount, found := At(table, path); found {
			return mount, true
		}
		cut := strings.LastIndexByte(path, '/')
		if cut < 0 || path == "/" {
			return Mount{}, false
		}
		path = path[:max(cut, 1)]
	}
}

// parse reads the format of proc_pid_mountinfo(5).
func parse(text string) ([]Mount, error) {
	var table []Mount
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		dash := -1
		for i, field := range fields {
			if i >= 6 && field == "-" {
				dash = i
				break
			}
		}
		if dash < 0 || len(fields) < dash+4 {
			return nil, fmt.Errorf("mountinfo has a line of another form: %q", line)
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("mountinfo has a line of another form: %q", line)
		}
		mount := Mount{Device: unix.Mkdev(major, minor), Point: unescape(fields[4])}
		for _, field := range fields[6:dash] {
			mount.Shared = mount.Shared || strings.HasPrefix(field, "shared:")
		}
		table = append(table, mount)
	}
	return table, nil
}

// unescape undoes the octal escapes for space, tab, newline and backslash.
func unescape(path string) string {
	var out strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if code, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		out.WriteByte(path[i])
	}
	return out.String()
}
