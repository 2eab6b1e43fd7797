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
const protocol = 3

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
	// ForceConflicts takes back the fields that another manager has taken over.
	ForceConflicts bool `json:"force_conflicts"`
	// Timeout is of the form "30s".
	Timeout string `json:"timeout"`
	// Until is when the call may send no more requests, in seconds of CLOCK_BOOTTIME: a call may have waited long before
	// it is read here. No limit if it is missing.
	Until *float64 `json:"until"`
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
		gate.limit(asked.deadline())
		s.gates[asked.ID] = gate
		go s.call(asked, gate)
	case "extend":
		if known {
			gate.limit(asked.deadline())
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

// call carries a call out, and answers it when nothing that it has begun, such as a read, is under way any more.
func (s *server) call(asked request, gate *gate) {
	result := s.runner.run(asked, gate)
	gate.close()
	s.finish(asked.ID, result)
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

// deadline is when the call's time is over, by the clock of its gate.
func (r *request) deadline() time.Duration {
	if r.Until == nil {
		return forever
	}
	return time.Duration(*r.Until * float64(time.Second))
}
