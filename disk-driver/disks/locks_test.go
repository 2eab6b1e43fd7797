package disks

import (
	"context"
	"sync"
	"testing"
	"time"

	"gameservers.local/disk-driver/fault"
)

// Calls about the same thing take turns, in whichever order they name it.
func TestTurns(t *testing.T) {
	var locks locks
	var calls sync.WaitGroup
	running, most := 0, 0
	for i := range 50 {
		calls.Go(func() {
			names := []string{"disk a", "disk b"}
			if i%2 == 0 {
				names = []string{"disk b", "disk a", "disk a"}
			}
			release, err := locks.take(context.Background(), names...)
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			running++
			most = max(most, running)
			time.Sleep(100 * time.Microsecond)
			running--
		})
	}
	calls.Wait()
	if most != 1 || len(locks.held) > 0 {
		t.Fatalf("%d ran at once, %d locks are left", most, len(locks.held))
	}
}

// Who waits too long gives up, and keeps nothing.
func TestGivingUp(t *testing.T) {
	var locks locks
	release, _ := locks.take(context.Background(), "disk b")
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := locks.take(ctx, "disk a", "disk b"); fault.Of(err) != fault.Busy {
		t.Fatalf("got %v", err)
	}
	release()
	release, err := locks.take(context.Background(), "disk a", "disk b")
	if err != nil {
		t.Fatal(err)
	}
	release()
}
