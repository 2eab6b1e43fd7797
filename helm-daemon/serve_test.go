package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
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
	if !g.enter() {
		return answer{ID: asked.ID, Code: 1, Stderr: "closed"}
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
	send(`{"id": 2, "do": "extend", "seconds": 1}`)
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
