package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

// waiting is a runner whose calls end when they are told to, or when they find their gate closed.
type waiting struct {
	began  chan request
	finish chan struct{}
}

func (w *waiting) newGate() *gate { return newGate(http.DefaultTransport) }

func (w *waiting) run(asked request, g *gate) answer {
	w.began <- asked
	<-w.finish
	if err := g.refusal(); err != nil {
		return answer{ID: asked.ID, Code: 1, Stderr: err.Error()}
	}
	return answer{ID: asked.ID, Stdout: asked.Values}
}

type line struct {
	answer
	Protocol int `json:"protocol"`
}

// served is a server over a runner: what it is sent, and what it says.
func served(t *testing.T, runner runner) (send func(string), next func() line, ended chan error) {
	t.Helper()
	in, feed := io.Pipe()
	said, out := io.Pipe()
	ended = make(chan error, 1)
	go func() { ended <- serve(in, out, runner); out.Close() }()
	t.Cleanup(func() { feed.Close(); said.Close() })
	lines := bufio.NewReader(said)
	next = func() line {
		t.Helper()
		text, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var got line
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := next(); got.Protocol != protocol {
		t.Errorf("it greets with protocol %d", got.Protocol)
	}
	return func(text string) { _, _ = fmt.Fprintln(feed, text) }, next, ended
}

// Calls run at the same time, and each is answered once, whichever ends first.
func TestCallsRunAtTheSameTime(t *testing.T) {
	runner := &waiting{began: make(chan request), finish: make(chan struct{})}
	send, next, _ := served(t, runner)
	send(`{"id": 1, "do": "upgrade", "values": "one"}`)
	send(`{"id": 2, "do": "uninstall", "values": "two"}`)
	<-runner.began
	<-runner.began
	close(runner.finish)
	got := map[int64]string{}
	for range 2 {
		answered := next()
		got[answered.ID] = answered.Stdout
	}
	if got[1] != "one" || got[2] != "two" {
		t.Errorf("answered %v", got)
	}
}

// A cancelled call is answered at once. What Helm says later of it is not.
func TestACancelledCallIsAnsweredOnce(t *testing.T) {
	runner := &waiting{began: make(chan request), finish: make(chan struct{})}
	send, next, _ := served(t, runner)
	send(`{"id": 1, "do": "upgrade"}`)
	<-runner.began
	send(`{"id": 1, "do": "cancel"}`)
	if got := next(); got.ID != 1 || got.Code != 1 || !strings.Contains(got.Stderr, "context canceled") {
		t.Errorf("answered %+v", got)
	}
	send(`{"id": 2, "do": "upgrade", "values": "two"}`)
	<-runner.began
	close(runner.finish)
	if got := next(); got.ID != 2 || got.Stdout != "two" {
		t.Errorf("answered %+v", got)
	}
	// Neither is known any more, and nobody minds.
	send(`{"id": 1, "do": "cancel"}`)
	send(`{"id": 2, "do": "extend", "until": 1}`)
}

// The time of a call is over when it was said to be, not so long after the call was read. It can be extended until then.
func TestACallHasTimeUntilItIsOver(t *testing.T) {
	runner := &waiting{began: make(chan request), finish: make(chan struct{})}
	send, next, _ := served(t, runner)
	for id, lines := range []string{
		`{"id": 0, "do": "upgrade"}`,
		`{"id": 1, "do": "upgrade", "until": 0}`,
		fmt.Sprintf(`{"id": 2, "do": "upgrade", "until": %f}`, (now() - time.Millisecond).Seconds()),
		fmt.Sprintf(`{"id": 3, "do": "upgrade", "until": %f}`, (now() + time.Minute).Seconds()),
		fmt.Sprintf(`{"id": 4, "do": "upgrade", "until": %f}`, (now() + time.Minute).Seconds()),
	} {
		send(lines)
		if asked := <-runner.began; asked.ID != int64(id) {
			t.Errorf("%d began", asked.ID)
		}
	}
	send(`{"id": 4, "do": "extend", "until": 0}`)
	// It is read when this is.
	send(`{"id": 5, "do": "upgrade"}`)
	<-runner.began
	close(runner.finish)
	over := map[int64]bool{}
	for range 6 {
		answered := next()
		over[answered.ID] = answered.Stderr == errOver.Error()
	}
	if want := map[int64]bool{0: false, 1: true, 2: true, 3: false, 4: true, 5: false}; !maps.Equal(over, want) {
		t.Errorf("over are %v", over)
	}
}

// A call is answered when what it has begun is not under way any more.
func TestAnAnswerIsTheEnd(t *testing.T) {
	url, received := slow(t)
	ended := make(chan error, 1)
	send, next, _ := served(t, begins(func(g *gate) {
		go func() { ended <- get(g, url) }()
		waitFor(t, func() bool { return received.Load() == 1 })
	}))
	send(`{"id": 1, "do": "upgrade"}`)
	if got := next(); got.ID != 1 || got.Code != 0 {
		t.Errorf("answered %+v", got)
	}
	waitFor(t, func() bool { return len(ended) == 1 })
	if err := <-ended; !errors.Is(err, errStopped) {
		t.Errorf("what it began has ended with %v", err)
	}
}

// begins is a runner whose calls begin something, and do not wait for it.
type begins func(*gate)

func (b begins) newGate() *gate { return newGate(http.DefaultTransport) }

func (b begins) run(asked request, g *gate) answer {
	b(g)
	return answer{ID: asked.ID}
}

// The program ends with its input, and when it does not understand its caller. The message has no values.
func TestItEndsWithItsInput(t *testing.T) {
	for text, expected := range map[string]string{
		"":                                    "<nil>",
		`{"values": "secret`:                  "a request is not JSON",
		`{"do": "dance", "values": "secret"}`: `there is no "dance"`,
	} {
		var out strings.Builder
		err := serve(strings.NewReader(text+"\n"), &out, &waiting{})
		if text == "" {
			err = serve(strings.NewReader(""), &out, &waiting{})
		}
		if fmt.Sprint(err) != expected {
			t.Errorf("%q: ended with %v", text, err)
		}
	}
}
