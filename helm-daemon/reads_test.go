package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// A call reads an object once, until it writes to it; lists and errors of the server are not kept.
func TestAnObjectIsReadOnce(t *testing.T) {
	var mutex sync.Mutex
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mutex.Lock()
		defer mutex.Unlock()
		got = append(got, r.Method+" "+r.URL.String())
		switch r.URL.Path {
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/broken":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/busy":
			w.WriteHeader(http.StatusTooManyRequests)
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	defer server.Close()
	transport := newReads(http.DefaultTransport)
	send := func(method, path string) int {
		t.Helper()
		request, err := http.NewRequest(method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if text, err := io.ReadAll(response.Body); err != nil || string(text) != request.URL.Path {
			t.Errorf("%s %s: %q %v", method, path, text, err)
		}
		return response.StatusCode
	}
	for range 2 {
		for path, status := range map[string]int{"/one": 200, "/gone": 404, "/broken": 503, "/busy": 429, "/all?limit=1": 200} {
			if code := send("GET", path); code != status {
				t.Errorf("%s: %d", path, code)
			}
		}
	}
	send("PATCH", "/one")
	send("GET", "/one")
	// Nothing is written.
	send("PATCH", "/gone?dryRun=All")
	send("GET", "/gone")
	counts := map[string]int{}
	for _, line := range got {
		counts[line]++
	}
	expected := map[string]int{
		"GET /one": 2, "PATCH /one": 1, "GET /gone": 1, "PATCH /gone?dryRun=All": 1, "GET /broken": 2, "GET /busy": 2, "GET /all?limit=1": 2,
	}
	for line, count := range expected {
		if counts[line] != count {
			t.Errorf("%s: %d times", line, counts[line])
		}
	}
}

// What is read while the call writes may be from before, so it is read again afterwards.
func TestWhatIsReadDuringAWriteIsNotKept(t *testing.T) {
	var transport *reads
	content := "before"
	send := func(method string) string {
		t.Helper()
		request, err := http.NewRequest(method, "http://some.invalid/one", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		return string(text)
	}
	transport = newReads(stubborn(func(request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodPatch {
			if got := send(http.MethodGet); got != "before" {
				t.Errorf("read %q", got)
			}
			content = "after"
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(content))}, nil
	}))
	send(http.MethodPatch)
	if got := send(http.MethodGet); got != "after" {
		t.Errorf("read %q", got)
	}
}
