package pool

import (
	"regexp"

	"gameservers.local/disk-driver/fault"
)

// No path can be spelled with these, no rest of an unfinished call either, and `.gone-snapshot-` before one still
// makes the name of a file.
var allowed = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$`)

// CheckID refuses what cannot be the id of a disk or snapshot.
func CheckID(id string) error {
	if !allowed.MatchString(id) {
		return fault.New(fault.Invalid,
			"%q cannot be an id: use 1 to 200 of A-Z, a-z, 0-9, '.', '_' and '-', not beginning with '.'", id)
	}
	return nil
}
