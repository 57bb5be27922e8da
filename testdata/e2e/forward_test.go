package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
	"compute-starter-kit-go-fanout-forward/testdata/handoffs"
)

// TestForward runs the unchanged app between raw sockets. It tests which requests the app hands off, which it forwards,
// and what arrives.
func TestForward(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	origin := startRawOrigin(t, p.Origin)
	p.serve(t)

	t.Run("table", func(t *testing.T) { testTable(t, p, origin) })
	t.Run("targets", func(t *testing.T) { testTargets(t, p, origin) })
	t.Run("responses", func(t *testing.T) { testResponses(t, p, origin) })
	t.Run("upgrade", func(t *testing.T) { testUpgrade(t, p, origin) })
	t.Run("streaming", func(t *testing.T) { testStreaming(t, p, origin) })
	t.Run("origin down", func(t *testing.T) { testOriginDown(t, p, origin) })
}

// Each request of the table goes to the right place, and loses nothing.
func testTable(t *testing.T, p *project, origin *rawOrigin) {
	for _, row := range table {
		for _, body := range []string{"", "a body"} {
			if body != "" && !withBody(row) {
				continue
			}
			t.Run(strings.TrimSpace(row.String()+" "+body), func(t *testing.T) {
				if row.Method == http.MethodGet && row.Upgrades() {
					testWebSocketRow(t, p, origin, row)
				} else {
					testRow(t, p, origin, row, body)
				}
			})
		}
	}
}

// whereItWent checks that the row's request went to the right place. It returns the request. ok is false if the app
// answered it itself; status is the status of the answer.
func whereItWent(t *testing.T, row handoffs.Row, arrived <-chan rawRequest, status int) (rawRequest, bool) {
	t.Helper()
	select {
	case got := <-arrived:
		to := handoffs.Origin
		if got.viaFanout() {
			to = handoffs.Fanout
		}
		if to != row.To {
			t.Errorf("testdata/handoffs.txt:%d: %s: it must go to %s, but it went to %s", row.Line, row, row.To, to)
		}
		return got, true
	default: // a request that the app sends on arrives before the client gets an answer
		if strconv.Itoa(status) != row.To {
			t.Errorf("testdata/handoffs.txt:%d: %s: it must go to %s, but the app answered it with status %d", row.Line, row, row.To, status)
		}
		return rawRequest{}, false
	}
}

func testRow(t *testing.T, p *project, origin *rawOrigin, row handoffs.Row, body string) {
	arrived := origin.expect(t.Name(), "HTTP/1.1 201 Created\r\nX-Answer: one\r\nX-Answer: two\r\n"+
		"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer")
	req := p.request(t, row, body)
	req.Header["X-Test"] = []string{t.Name()}
	req.Header["X-Several"] = []string{"one", "two, three", "one"}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}

	got, ok := whereItWent(t, row, arrived, resp.StatusCode)
	if !ok {
		return
	}
	if got.method != row.Method || got.target != row.Target || got.body != body {
		t.Errorf("%s %s with body %q arrived", got.method, got.target, got.body)
	}
	if host := got.header.Get("Host"); host != p.Origin {
		t.Errorf("Host %q arrived, want override_host, %q", host, p.Origin)
	}
	if several := got.header["X-Several"]; !slices.Equal(several, req.Header["X-Several"]) {
		t.Errorf("X-Several %q arrived, want %q", several, req.Header["X-Several"])
	}

	if resp.StatusCode != http.StatusCreated || resp.ContentLength != 6 {
		t.Errorf("status %d and Content-Length %d, want 201 and 6", resp.StatusCode, resp.ContentLength)
	}
	if want := map[bool]string{true: "", false: "answer"}[row.Method == "HEAD"]; string(answer) != want {
		t.Errorf("response body %q, want %q", answer, want)
	}
	for name, want := range map[string][]string{"X-Answer": {"one", "two"}, "Set-Cookie": {"a=1", "b=2"}} {
		if got := resp.Header[name]; !slices.Equal(got, want) {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
}

// A WebSocket that is handed off arrives as WebSocket-over-HTTP.
func testWebSocketRow(t *testing.T, p *project, origin *rawOrigin, row handoffs.Row) {
	arrived := origin.expect(t.Name(), "HTTP/1.1 200 OK\r\nContent-Type: "+grip.EventsType+"\r\nContent-Length: 6\r\nConnection: close\r\n\r\nOPEN\r\n")
	conn := p.dial(t)
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: example.com\r\n%sX-Test: %s\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		row.Target, headOf(row), t.Name())
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := whereItWent(t, row, arrived, resp.StatusCode)
	if !ok || !got.viaFanout() || !strings.HasSuffix(row.Header, ": websocket") { // Pushpin 1.36 accepts only this value
		return
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || got.method != "POST" || got.body != "OPEN\r\n" {
		t.Errorf("%s with the body %q arrived, and the client got %s", got.method, got.body, resp.Status)
	}
}

// Targets that net/url does not accept reach the origin too, both handed off and forwarded.
func testTargets(t *testing.T, p *project, origin *rawOrigin) {
	for to, targets := range map[string][]string{
		handoffs.Origin: {"/%zz", "/50%off", "/%", "/a?q=%zz&r=;%", "/%zz?q=100%", "/%zz?", "/a%2Fb%2f//c/../d/?", "/[a]{b}|'!$&()*,=:@", "//host/path"},
		handoffs.Fanout: {"/%zz", "/50%off"},
	} {
		t.Run(to, func(t *testing.T) {
			row := find(t, to, map[string]func(handoffs.Row) bool{handoffs.Origin: withBody, handoffs.Fanout: plain}[to])
			for _, target := range targets {
				t.Run(target, func(t *testing.T) {
					target := below(row, target)
					arrived := origin.expect(t.Name(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					response := p.roundTrip(t, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: example.com\r\n%sX-Test: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
						row.Method, target, headOf(row), t.Name()))
					if !strings.HasPrefix(response, "HTTP/1.1 200 OK\r\n") {
						t.Fatalf("response %q", response)
					}
					got := await(t, arrived)
					// The Pushpin of Debian 12 corrects a bad escape in the request to the origin.
					corrected := strings.NewReplacer("/%zz", "/%25zz", "/50%off", "/50%25off").Replace(target)
					if got.target != target && !(got.viaFanout() && got.target == corrected) {
						t.Errorf("target %q arrived, want %q", got.target, target)
					}
				})
			}
		})
	}
}

// A response keeps the origin's framing, so a client can see that a response was cut short.
func testResponses(t *testing.T, p *project, origin *rawOrigin) {
	tests := []struct {
		name, response string
		want           string // the end of what the client gets
		framing        string // a header line that it gets
	}{
		{"fixed length", "Content-Length: 5\r\n\r\nwhole", "\r\n\r\nwhole", "content-length: 5"},
		{"zero length", "Content-Length: 0\r\n\r\n", "\r\n\r\n", "content-length: 0"},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n", "\r\n\r\n5\r\nwhole\r\n0\r\n\r\n", "transfer-encoding: chunked"},
		{"until close", "\r\nwhole", "\r\n\r\n5\r\nwhole\r\n0\r\n\r\n", "transfer-encoding: chunked"},
		{"fixed length, cut short", "Content-Length: 100\r\n\r\nshort", "\r\n\r\nshort", "content-length: 100"},
		{"chunked, cut short", "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", "\r\n\r\n5\r\nshort\r\n", "transfer-encoding: chunked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			origin.expect(t.Name(), "HTTP/1.1 200 OK\r\nConnection: close\r\n"+tt.response)
			got := p.roundTrip(t, postFor(t, t.Name()))
			if !strings.HasSuffix(got, tt.want) || !strings.Contains(strings.ToLower(got), "\r\n"+tt.framing+"\r\n") {
				t.Errorf("got %q, want it to end with %q, and to have the line %q", got, tt.want, tt.framing)
			}
		})
	}
}

// An origin that can switch protocols, for example to h2c, answers normally, because the app does not ask it to switch.
func testUpgrade(t *testing.T, p *project, origin *rawOrigin) {
	var arrived <-chan rawRequest
	arrived = origin.expectFunc(t.Name(), func(conn net.Conn) {
		response := "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole"
		if req := <-arrived; req.header.Get("Upgrade") != "" {
			response = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
		}
		io.WriteString(conn, response)
	})
	got := p.roundTrip(t, strings.Replace(postFor(t, t.Name()), "Connection: close",
		"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", 1))
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.HasSuffix(got, "\r\n\r\nwhole") {
		t.Errorf("got %q", got)
	}

	origin.expect("unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	if got := p.roundTrip(t, postFor(t, "unasked")); !strings.HasPrefix(got, "HTTP/1.1 500 ") {
		t.Errorf("for a 101 without a request for it, got %q", got)
	}
}

// Each side gets the first bytes of a body before the other side sends the rest.
func testStreaming(t *testing.T, p *project, origin *rawOrigin) {
	row := forwarded(t)
	head := row.Method + " " + row.Target + " HTTP/1.1\r\nHost: example.com\r\n" + headOf(row) + "X-Test: %s\r\nConnection: close\r\n"
	t.Run("response", func(t *testing.T) {
		clientHasFirst := make(chan struct{})
		origin.expectFunc(t.Name(), func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\nfirst")
			select {
			case <-clientHasFirst:
				io.WriteString(conn, " later")
			case <-time.After(patience):
			}
		})
		conn := p.dial(t)
		fmt.Fprintf(conn, head+"Content-Length: 0\r\n\r\n", t.Name())
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first" {
			t.Fatalf("got %q, %v before the origin sent the rest", first, err)
		}
		close(clientHasFirst)
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != " later" {
			t.Fatalf("then got %q, %v", rest, err)
		}
	})
	t.Run("request", func(t *testing.T) {
		arrived := origin.expect(t.Name(), "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		conn := p.dial(t)
		fmt.Fprintf(conn, head+"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", t.Name())
		select {
		case id := <-origin.began:
			if id != t.Name() {
				t.Fatalf("got the body of %q", id)
			}
		case <-time.After(patience):
			t.Fatal("no part of the body arrives before the client sends the rest")
		}
		io.WriteString(conn, "6\r\n later\r\n0\r\n\r\n")
		if got := await(t, arrived); got.body != "first later" {
			t.Errorf("body %q arrived", got.body)
		}
	})
}

// If the origin is down, the client gets a 502, from the app or from Pushpin. It does not have the origin's address.
func testOriginDown(t *testing.T, p *project, origin *rawOrigin) {
	origin.l.Close()
	for _, row := range table {
		if row.Answered() || row.Header != "" {
			continue
		}
		got := p.roundTrip(t, row.Method+" "+row.Target+" HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 502 ") || strings.Contains(got, "localhost") || strings.Contains(got, "127.0.0.1") {
			t.Errorf("%s: got %q, want a plain 502", row, got)
		}
		if row.To == handoffs.Origin {
			p.waitForLog(t, `send to backend "origin"`)
		}
	}
}
