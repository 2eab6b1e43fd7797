package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// slow is a server that answers nothing, and counts what it has received.
func slow(t *testing.T) (url string, received *atomic.Int32) {
	t.Helper()
	received, release := &atomic.Int32{}, make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received.Add(1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(func() { close(release); server.Close() })
	return server.URL, received
}

func get(g http.RoundTripper, url string) error {
	response, err := (&http.Client{Transport: g}).Get(url)
	if err == nil {
		_, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	return err
}

// A closed gate ends the request in flight, returns only then, and lets no other through.
func TestAClosedGateLetsNothingThrough(t *testing.T) {
	url, received := slow(t)
	g := newGate(http.DefaultTransport)
	ended := make(chan error, 1)
	go func() { ended <- get(g, url) }()
	waitFor(t, func() bool { return received.Load() == 1 })
	g.close()
	if g.inFlight != 0 {
		t.Error("a request is in flight after close")
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the request in flight ended with %v", err)
	}
	if err := get(g, url); !errors.Is(err, errStopped) {
		t.Errorf("a later request ended with %v", err)
	}
	if received.Load() != 1 {
		t.Errorf("%d requests came through", received.Load())
	}
}

// close waits for a transport that takes its time to give a request up.
func TestCloseWaitsForWhatIsInFlight(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{})
	g := newGate(stubborn(func(*http.Request) (*http.Response, error) {
		close(entered)
		<-release
		return nil, errors.New("gave up")
	}))
	go func() { _ = get(g, "http://nowhere.invalid") }()
	<-entered
	closed := make(chan struct{})
	go func() { g.close(); close(closed) }()
	select {
	case <-closed:
		t.Fatal("closed while a request was in flight")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	<-closed
}

// clock is one that tests set.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Duration { return time.Duration(c.Load()) }

// timed is a gate by a clock of its own, whose time is over at one second of it.
func timed(t *testing.T, wrapped http.RoundTripper) (*gate, *clock) {
	t.Helper()
	g, clock := newGate(wrapped), &clock{}
	g.clock = clock.now
	g.limit(time.Second)
	t.Cleanup(g.close)
	return g, clock
}

// When the time is over, no request is sent any more, also if somebody says later that there was more.
func TestAGateThatIsOutOfTimeLetsNothingThrough(t *testing.T) {
	count := 0
	g, clock := timed(t, stubborn(func(*http.Request) (*http.Response, error) {
		count++
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(""))}, nil
	}))
	send := func() error { return get(g, "http://some.invalid") }
	clock.Store(int64(time.Second) - 1)
	if err := send(); err != nil || count != 1 {
		t.Errorf("not sent although there is time left: %v", err)
	}
	g.limit(2 * time.Second)
	clock.Store(int64(2*time.Second) - 1)
	if err := send(); err != nil || count != 2 {
		t.Errorf("not sent although its time was extended: %v", err)
	}
	clock.Store(int64(2 * time.Second))
	for range 2 {
		if err := send(); !errors.Is(err, errOver) || count != 2 {
			t.Errorf("sent although its time was over: %v", err)
		}
		g.limit(9 * time.Second)
	}
}

// What is in flight when the time ends is given up, without anybody's asking.
func TestTheEndOfTheTimeEndsWhatIsInFlight(t *testing.T) {
	url, received := slow(t)
	g := newGate(http.DefaultTransport)
	defer g.close()
	// It looks at the clock every second, and then once more.
	g.limit(now() + lookEvery*5/4)
	ended := make(chan error, 1)
	go func() { ended <- get(g, url) }()
	waitFor(t, func() bool { return len(ended) == 1 })
	if err := <-ended; !errors.Is(err, errOver) {
		t.Errorf("it ended with %v", err)
	}
	if received.Load() != 1 {
		t.Errorf("%d requests came through", received.Load())
	}
}

// A request that gets a connection when the time is over is not sent. A freeze or a sleep of the machine may have been
// before that, or a wait of the transport, which sends some requests more than once.
func TestARequestIsNotSentThatGetsAConnectionTooLate(t *testing.T) {
	var received atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { received.Add(1) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	var clock *clock
	transport := server.Client().Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		clock.Store(int64(2 * time.Second))
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	g, c := timed(t, transport)
	clock = c
	if err := get(g, server.URL); !errors.Is(err, errOver) {
		t.Errorf("it ended with %v", err)
	}
	// Its connection is used by the next: so what was sent before would have come.
	if err := get(transport, server.URL); err != nil || received.Load() != 1 {
		t.Errorf("%d requests came through: %v", received.Load()-1, err)
	}
}

// The body of a request cannot be read when the time is over, also not when the transport begins it once more.
func TestAWriteIsNotSentWhoseBodyIsReadTooLate(t *testing.T) {
	for _, again := range []bool{false, true} {
		var clock *clock
		g, c := timed(t, stubborn(func(request *http.Request) (*http.Response, error) {
			body := request.Body
			if again {
				body, _ = request.GetBody()
			}
			part := make([]byte, 3)
			if _, err := io.ReadFull(body, part); err != nil || string(part) != "bod" {
				t.Errorf("%q %v", part, err)
			}
			clock.Store(int64(2 * time.Second))
			if n, err := body.Read(part); n != 0 || !errors.Is(err, errOver) {
				t.Errorf("%d bytes could be read: %v", n, err)
			}
			return nil, errors.New("half")
		}))
		clock = c
		_, err := (&http.Client{Transport: g}).Post("http://some.invalid", "text/plain", strings.NewReader("body"))
		if !errors.Is(err, errOver) {
			t.Errorf("it ended with %v", err)
		}
	}
}

// A call whose time is over asks nothing for all calls either, also not when it has waited while another asked.
func TestACallWhoseTimeIsOverAsksNothingForAll(t *testing.T) {
	g, clock := timed(t, http.DefaultTransport)
	// It has no connection, so a question would panic.
	cluster := &cluster{}
	cluster.mutex.Lock()
	ended := make(chan error, 1)
	go func() { _, err := cluster.known(g); ended <- err }()
	clock.Store(int64(time.Second))
	cluster.mutex.Unlock()
	if err := <-ended; !errors.Is(err, errOver) {
		t.Errorf("it ended with %v", err)
	}
}

type stubborn func(*http.Request) (*http.Response, error)

func (s stubborn) RoundTrip(request *http.Request) (*http.Response, error) { return s(request) }

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}
