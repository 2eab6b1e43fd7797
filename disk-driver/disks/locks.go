package disks

import (
	"context"
	"slices"
	"sync"

	"gameservers.local/disk-driver/fault"
)

// locks let one call at a time work on a disk or snapshot.
type locks struct {
	mutex sync.Mutex
	held  map[string]chan struct{}
}

// take waits for all of the names, and returns what lets them go. It gives up when the caller does.
func (l *locks) take(ctx context.Context, names ...string) (func(), error) {
	// All callers take them in the same order, so no two wait for each other.
	slices.Sort(names)
	names = slices.Compact(names)
	for i, name := range names {
		if err := l.one(ctx, name); err != nil {
			l.free(names[:i])
			return nil, err
		}
	}
	return func() { l.free(names) }, nil
}

func (l *locks) one(ctx context.Context, name string) error {
	for {
		l.mutex.Lock()
		busy, taken := l.held[name]
		if !taken {
			if l.held == nil {
				l.held = map[string]chan struct{}{}
			}
			l.held[name] = make(chan struct{})
			l.mutex.Unlock()
			return nil
		}
		l.mutex.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return fault.New(fault.Busy, "another call works on %s", name)
		}
	}
}

func (l *locks) free(names []string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, name := range names {
		close(l.held[name])
		delete(l.held, name)
	}
}
