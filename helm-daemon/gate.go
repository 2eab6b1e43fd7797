package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What the requests of a call fail with once its gate is closed. The API knows the words.
var (
	errStopped = fmt.Errorf("%w: the call was stopped", context.Canceled)
	errOver    = fmt.Errorf("%w: the time of the call is over", context.DeadlineExceeded)
)

const (
	// forever is a deadline that does not come.
	forever time.Duration = math.MaxInt64
	// lookEvery is the longest time until a gate looks at the clock: a timer stands still while the machine sleeps.
	lookEvery = time.Second
)

// gate is the transport of one call. Once it is closed, or its time is over, it lets no request through any more.
//
// Helm cannot do this itself: when the context of an upgrade is cancelled, it marks the release as failed and returns,
// and a goroutine of it goes on applying objects.
type gate struct {
	wrapped http.RoundTripper
	clock   func() time.Duration
	// open ends when the gate closes; its cause says why.
	open context.Context
	shut context.CancelCauseFunc

	mutex sync.Mutex
	// idle is signalled when no request is in flight.
	idle     *sync.Cond
	inFlight int
	// until is when the time is over, by the clock.
	until time.Duration
	alarm *time.Timer
}

func newGate(wrapped http.RoundTripper) *gate {
	open, shut := context.WithCancelCause(context.Background())
	g := &gate{wrapped: wrapped, clock: now, open: open, shut: shut, until: forever}
	g.idle = sync.NewCond(&g.mutex)
	return g
}

// RoundTrip sends a request if the gate is open, and gives it up when the gate closes.
//
// Between the two, much time may pass: until there is a connection or a free stream, before the transport sends it once
// more by itself, or because this process was frozen. So the clock is looked at again when the request has a connection
// and whenever its body is read: Kubernetes carries out no write whose body it has only half of.
func (g *gate) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := g.enter(); err != nil {
		if request.Body != nil {
			request.Body.Close()
		}
		return nil, err
	}
	defer g.leave()
	ctx, cancel := context.WithCancel(request.Context())
	detach := context.AfterFunc(g.open, cancel)
	end := func() { detach(); cancel() }
	response, err := g.wrapped.RoundTrip(g.guarded(request, ctx, cancel))
	if err != nil {
		end()
		if closed := context.Cause(g.open); closed != nil {
			return nil, closed
		}
		return nil, err
	}
	// Its body is read with the same context.
	response.Body = &answered{ReadCloser: response.Body, end: end}
	return response, nil
}

// guarded is the request, which is given up if the gate is found closed while it is being sent.
func (g *gate) guarded(request *http.Request, ctx context.Context, cancel func()) *http.Request {
	guarded := request.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			if g.refusal() != nil {
				cancel()
			}
		},
	}))
	if request.Body == nil || request.Body == http.NoBody {
		return guarded
	}
	guarded.Body = &sent{ReadCloser: request.Body, gate: g}
	if request.GetBody != nil {
		guarded.GetBody = func() (io.ReadCloser, error) {
			again, err := request.GetBody()
			if err != nil {
				return nil, err
			}
			return &sent{ReadCloser: again, gate: g}, nil
		}
	}
	return guarded
}

// close lets no request through any more, and returns when none is in flight.
func (g *gate) close() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.shut(errStopped)
	if g.alarm != nil {
		g.alarm.Stop()
	}
	for g.inFlight > 0 {
		g.idle.Wait()
	}
}

// limit sets until when, by the clock, requests may be sent. A gate whose time is over does not open again.
func (g *gate) limit(until time.Duration) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.until = until
	if g.alarm == nil && until != forever {
		g.alarm = time.AfterFunc(lookEvery, func() { _ = g.refusal() })
	}
	g.look()
}

// refusal is why no request may be sent any more; nil as long as one may.
func (g *gate) refusal() error {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.look()
	return context.Cause(g.open)
}

// look closes the gate if its time is over, and otherwise sees to it that somebody looks again.
func (g *gate) look() {
	left := g.until - g.clock()
	if left <= 0 {
		g.shut(errOver)
	} else if g.alarm != nil && g.open.Err() == nil {
		g.alarm.Reset(min(left, lookEvery))
	}
}

func (g *gate) enter() error {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.look()
	if closed := context.Cause(g.open); closed != nil {
		return closed
	}
	g.inFlight++
	return nil
}

func (g *gate) leave() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.inFlight--
	if g.inFlight == 0 {
		g.idle.Broadcast()
	}
}

// sent is the body of a request, which cannot be read once the gate is closed.
type sent struct {
	io.ReadCloser
	gate *gate
}

func (s *sent) Read(part []byte) (int, error) {
	if err := s.gate.refusal(); err != nil {
		return 0, err
	}
	return s.ReadCloser.Read(part)
}

// answered is the body of a response, which ends what belongs to that when it is closed.
type answered struct {
	io.ReadCloser
	end func()
}

func (a *answered) Close() error {
	defer a.end()
	return a.ReadCloser.Close()
}

// now is the time since the machine started, also that during which it slept: CLOCK_BOOTTIME, by which the API says until
// when a call may send requests (service/kube/leases.py).
func now() time.Duration {
	var stamp unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &stamp); err != nil {
		panic(err)
	}
	return time.Duration(stamp.Nano())
}
