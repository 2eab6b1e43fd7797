package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// protocol is what the two sides speak; service/helm/daemon.py has the same number.
const protocol = 1

// request is one line from the API: a call, or what is to become of one.
type request struct {
	ID int64 `json:"id"`
	// Do is "upgrade" or "uninstall", which are answered; "cancel", which makes the call answer; or "extend".
	Do        string `json:"do"`
	Namespace string `json:"namespace"`
	Release   string `json:"release"`
	Chart     string `json:"chart"`
	// Values are YAML, as helm reads it from its standard input.
	Values     string `json:"values"`
	HistoryMax int    `json:"history_max"`
	// Timeout is of the form "30s".
	Timeout string `json:"timeout"`
	// Seconds say for how long the call may go on sending requests from now on; no limit if 0.
	Seconds float64 `json:"seconds"`
}

// answer is one line to the API. A call has exactly one.
type answer struct {
	ID int64 `json:"id"`
	// Code is what helm would have exited with.
	Code   int    `json:"code"`
	Stdout string `json:"stdout,omitempty"`
	// Stderr is what helm would have written there.
	Stderr string `json:"stderr,omitempty"`
}

// runner does what a request asks for, with requests that go through the gate, and answers it.
type runner interface {
	run(request, *gate) answer
	newGate() *gate
}

// server reads requests and writes answers, each a line of JSON.
type server struct {
	runner  runner
	writing sync.Mutex
	out     *json.Encoder
	mutex   sync.Mutex
	gates   map[int64]*gate
}

// serve answers requests until the input ends. What is under way then is given up: the caller is gone.
func serve(in io.Reader, out io.Writer, runner runner) error {
	s := &server{runner: runner, out: json.NewEncoder(out), gates: map[int64]*gate{}}
	if err := s.out.Encode(map[string]any{"protocol": protocol}); err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read: %w", err)
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			// Not the error itself: it may quote values.
			return errors.New("a request is not JSON")
		}
		if err := s.take(asked); err != nil {
			return err
		}
	}
}

func (s *server) take(asked request) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	gate, known := s.gates[asked.ID]
	switch asked.Do {
	case "upgrade", "uninstall":
		if known {
			return fmt.Errorf("the call %d is under way already", asked.ID)
		}
		gate = s.runner.newGate()
		gate.extend(asked.Seconds)
		s.gates[asked.ID] = gate
		go s.call(asked, gate)
	case "extend":
		if known {
			gate.extend(asked.Seconds)
		}
	case "cancel":
		if known {
			go s.cancel(asked.ID, gate)
		}
	default:
		return fmt.Errorf("there is no %q", asked.Do)
	}
	return nil
}

func (s *server) call(asked request, gate *gate) {
	s.finish(asked.ID, s.runner.run(asked, gate))
}

// cancel answers a call as soon as it can write nothing more. Helm itself goes on for a moment, to no effect.
func (s *server) cancel(id int64, gate *gate) {
	gate.close()
	s.finish(id, answer{ID: id, Code: 1, Stderr: "Error: context canceled\n"})
}

// finish answers a call, unless it was answered already.
func (s *server) finish(id int64, what answer) {
	s.mutex.Lock()
	_, known := s.gates[id]
	delete(s.gates, id)
	s.mutex.Unlock()
	if !known {
		return
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	// If nobody reads any more, the input ends as well.
	_ = s.out.Encode(what)
}

// seconds as a duration.
func seconds(number float64) time.Duration {
	return time.Duration(number * float64(time.Second))
}
