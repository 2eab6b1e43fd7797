package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// errClosed is what the requests of a call fail with once its gate is closed. The API knows the words.
var errClosed = errors.New("context canceled: the call was stopped")

// gate is the transport of one call. Once it is closed, or its time is over, it lets no request through any more.
//
// Helm cannot do this itself: when the context of an upgrade is cancelled, it marks the release as failed and returns,
// and a goroutine of it goes on applying objects.
type gate struct {
	wrapped http.RoundTripper
	open    context.Context
	shut    context.CancelFunc

	mutex sync.Mutex
	// idle is signalled when no request is in flight.
	idle     *sync.Cond
	inFlight int
	closed   bool
	// until is when the time is over, by the clock that goes on while the machine sleeps; never if 0.
	until time.Duration
}

func newGate(wrapped http.RoundTripper) *gate {
	open, shut := context.WithCancel(context.Background())
	g := &gate{wrapped: wrapped, open: open, shut: shut}
	g.idle = sync.NewCond(&g.mutex)
	return g
}

// RoundTrip sends a request if the gate is open, and gives it up when the gate is closed.
func (g *gate) RoundTrip(request *http.Request) (*http.Response, error) {
	if !g.enter() {
		return nil, errClosed
	}
	defer g.leave()
	ctx, cancel := context.WithCancel(request.Context())
	detach := context.AfterFunc(g.open, cancel)
	response, err := g.wrapped.RoundTrip(request.WithContext(ctx))
	if err != nil {
		detach()
		cancel()
		return nil, err
	}
	// Its body is read with the same context.
	response.Body = &body{ReadCloser: response.Body, done: func() { detach(); cancel() }}
	return response, nil
}

// close lets no request through any more, and returns when none is in flight.
func (g *gate) close() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.closed = true
	g.shut()
	for g.inFlight > 0 {
		g.idle.Wait()
	}
}

// extend sets for how many seconds from now on requests may be sent; 0 is no limit, and less is none at all.
func (g *gate) extend(number float64) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.until = 0
	if number != 0 {
		g.until = now() + seconds(number)
	}
}

func (g *gate) enter() bool {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.closed || (g.until > 0 && now() > g.until) {
		return false
	}
	g.inFlight++
	return true
}

func (g *gate) leave() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.inFlight--
	if g.inFlight == 0 {
		g.idle.Broadcast()
	}
}

// body ends what belongs to a response when that is read.
type body struct {
	io.ReadCloser
	done func()
}

func (b *body) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// now is the time since the machine started, also that during which it slept, as in service/kube/leases.py.
func now() time.Duration {
	var stamp unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &stamp); err != nil {
		panic(err)
	}
	return time.Duration(stamp.Nano())
}
