package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/clients"
)

// sum counts each kind of loss and error. The server here causes one of each.
func TestSum(t *testing.T) {
	sends := map[string]string{
		"right": "1 2 3", "duplicate": "1 2 2 3", "outOfOrder": "2 1 3", "missing": "1 3", "dropped": "1 end", "refused": "",
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		numbers := sends[r.URL.Query().Get("channel")]
		if numbers == "" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		for n := range strings.FieldsSeq(numbers) {
			if n == "end" {
				return
			}
			n, _ := strconv.Atoi(n)
			fmt.Fprint(w, clients.Message("", n, 0).Formats.HTTPStream.Content)
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()

	l := &run{numbers: map[string]int{}}
	for channel, numbers := range sends {
		l.numbers[channel] = 3
		c, err := clients.Open(t.Context(), clients.Stream, strings.TrimPrefix(server.URL, "http://"), "/", channel, nil)
		if err != nil {
			l.refusals = append(l.refusals, err)
			continue
		}
		defer c.Leave()
		l.held = append(l.held, c)
		want := len(strings.Fields(strings.TrimSuffix(numbers, "end")))
		for deadline := time.Now().Add(10 * time.Second); len(c.Arrivals()) < want || strings.HasSuffix(numbers, "end") && c.Err() == nil; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d messages arrived, want %d", channel, len(c.Arrivals()), want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	l.sum()
	if got := l.latency.TotalCount(); got != 12 {
		t.Errorf("the latency has %d values, want one for each of 12 messages", got)
	}
	l.latency = nil
	want := outcome{opened: 5, refused: 1, dropped: 1, expected: 15, delivered: 12, missing: 1, duplicates: 1, outOfOrder: 1}
	if l.outcome != want || l.unexplained() != 5 {
		t.Errorf("got %+v, %d unexplained; want %+v, 5", l.outcome, l.unexplained(), want)
	}
}

func TestJudge(t *testing.T) {
	fine := outcome{opened: 200, expected: 1000, delivered: 1000}
	for _, tt := range []struct {
		name         string
		control, app outcome
		want         string // part of the error; "" for none
	}{
		{"nothing lost", fine, fine, ""},
		{"dropped by Pushpin", fine, outcome{opened: 200, dropped: 2, byPushpin: 2}, ""},
		{"the same without the app", outcome{opened: 200, expected: 1000, delivered: 998, missing: 2}, outcome{opened: 200, missing: 2}, ""},
		{"dropped by the app", fine, outcome{opened: 200, dropped: 3, byPushpin: 2}, "the app itself lost 1 "},
		{"refused by the app", fine, outcome{opened: 199, refused: 1}, "the app itself lost 1 "},
		{"lost by the app", fine, outcome{opened: 200, missing: 1}, "the app itself lost 1 "},
		{"doubled by the app", fine, outcome{opened: 200, duplicates: 1}, "the app itself lost 1 "},
		{"no control", outcome{opened: 190, refused: 10}, fine, "too few to compare with"},
		{"no messages without the app", outcome{opened: 200, expected: 1000}, fine, "too few to compare with"},
	} {
		l := load{streams: 100, sockets: 100, rate: 100}
		err := judge(&run{load: l, outcome: tt.control}, &run{load: l, outcome: tt.app})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// In Pushpin's log, each dropped connection counts once, and so does each request that Pushpin answered with an
// error. Lines about Pushpin's own processes do not count.
func TestCountByPushpin(t *testing.T) {
	t.Chdir(t.TempDir())
	log := `[WARN] 2026-01-01 00:00:00.000 zhttp server: error id=0-1-1 received message out of sequence, canceling
[WARN] 2026-01-01 00:00:00.000 zhttp server: error id=0-1-1 received message out of sequence, canceling
[WARN] 2026-01-01 00:00:00.000 zws server: error id=1-2-2 received message out of sequence, canceling
[WARN] 2026-01-01 00:00:00.000 zhttp client: error id=6ede891b received message out of sequence, canceling
[INFO] 2026-01-01 00:00:00.000 GET ws://127.0.0.1:7677/socket?channel=a -> localhost:3000[http] route=origin code=502 32
[INFO] 2026-01-01 00:00:00.000 GET ws://127.0.0.1:7677/socket?channel=a -> localhost:3000[http] route=origin code=101 0
[DEBUG] 2026-01-01 00:00:00.000 zws server: OUT condure { "seq": 0, "code": 502, "id": "1-2-3", "type": "error" } code=502 32
`
	if err := os.Mkdir(pushpinLogs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pushpinLogs, "pushpin-proxy.log"), []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	var l run
	if err := l.countByPushpin(); err != nil || l.byPushpin != 3 {
		t.Errorf("got %d, %v; want 3", l.byPushpin, err)
	}
	if err := l.countByPushpin(); err == nil {
		t.Error("there was no log, and no error")
	}
}

// load connects to this machine only, and its flags have limits.
func TestCheck(t *testing.T) {
	good := load{streams: 10, messages: 1, rate: 1, deliveries: 1}
	if err := good.check("127.0.0.1:7676"); err != nil {
		t.Error(err)
	}
	for _, addr := range []string{"example.com:80", "10.0.0.1:80", "127.0.0.1.example.com:80", "0.0.0.0:80", ":80"} {
		if err := good.check(addr); err == nil {
			t.Errorf("check accepts the address %q", addr)
		}
		if _, err := clients.Open(t.Context(), clients.Stream, addr, "/", "any", nil); err == nil || !strings.Contains(err.Error(), "127.0.0.1 only") {
			t.Errorf("Open connects to %q: %v", addr, err)
		}
	}
	for _, change := range []func(*load){
		func(l *load) { l.streams = 0 },
		func(l *load) { l.streams = maxClients + 1 },
		func(l *load) { l.streams, l.sockets = 20, -10 },
		func(l *load) { l.messages = 0 },
		func(l *load) { l.messages = 1001 },
		func(l *load) { l.rate = 0 },
		func(l *load) { l.deliveries = 2501 },
	} {
		bad := good
		change(&bad)
		if err := bad.check("127.0.0.1:7676"); err == nil {
			t.Errorf("check accepts %+v", bad)
		}
	}
}
