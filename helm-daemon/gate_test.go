package main

import (
	"context"
	"errors"
	"io"
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
	if err := get(g, url); !errors.Is(err, errClosed) {
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

// When the time is over, no request is sent, until it is extended.
func TestAGateThatIsOutOfTimeLetsNothingThrough(t *testing.T) {
	sent := 0
	g := newGate(stubborn(func(*http.Request) (*http.Response, error) {
		sent++
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(""))}, nil
	}))
	g.extend(0.001)
	waitFor(t, func() bool { return errors.Is(get(g, "http://some.invalid"), errClosed) })
	before := sent
	g.extend(-1)
	if err := get(g, "http://some.invalid"); !errors.Is(err, errClosed) || sent != before {
		t.Errorf("sent although its time was over: %v", err)
	}
	g.extend(60)
	if err := get(g, "http://some.invalid"); err != nil || sent != before+1 {
		t.Errorf("not sent although its time was extended: %v", err)
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
