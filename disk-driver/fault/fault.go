// Package fault has the errors that a caller of the driver is told, by what they mean to it.
package fault

import (
	"errors"
	"fmt"
)

// Kind is what an error means to the caller; the service turns it into a code of the CSI specification.
type Kind int

const (
	// Internal is what the operator has to look at: the cause is in the message.
	Internal Kind = iota
	// Invalid is a request that can never be served.
	Invalid
	// NotFound is a disk or snapshot that this node does not have.
	NotFound
	// Exists is a name that is taken by something else than what is asked for.
	Exists
	// NoRoom is a pool or an allowance that is used up.
	NoRoom
	// InUse is a disk that a pod still has.
	InUse
	// OutOfRange is a size that cannot be had.
	OutOfRange
	// Busy is a call that could not be finished now: it waited for another one, which did not end in time, or its disk
	// exists and cannot be mounted. The caller repeats it.
	Busy
)

// Error is an error with its kind.
type Error struct {
	Kind    Kind
	Message string
}

// Error is the message for the caller.
func (e *Error) Error() string { return e.Message }

// New makes an error of a kind; the message is a plain sentence for the operator.
func New(kind Kind, format string, values ...any) error {
	return &Error{kind, fmt.Sprintf(format, values...)}
}

// Of is the kind of an error: Internal if it has none.
func Of(err error) Kind {
	var known *Error
	if errors.As(err, &known) {
		return known.Kind
	}
	return Internal
}
