package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/shirou/gopsutil/v4/process"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestDemo runs `make demo`, tries the printed commands, and ends it as a person does.
func TestDemo(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	demo := startDemo(t, p)

	t.Run("invitation", func(t *testing.T) { testInvitation(t, p) })
	t.Run("stream", func(t *testing.T) { testStream(t, p) })
	t.Run("socket", func(t *testing.T) { testSocket(t, p) })
	t.Run("echo", func(t *testing.T) { testEcho(t, p) })
	t.Run("ports taken", func(t *testing.T) { testPortsTaken(t, p) })
	t.Run("Ctrl-C", func(t *testing.T) { testCtrlC(t, p, demo) })
	t.Run("killed", func(t *testing.T) { testKilled(t, p, startDemo(t, p)) })
}

// invitation is a text that `make demo` prints when it is ready.
const invitation = "Ctrl-C here ends it all"

// startDemo runs `make demo` with these variables, and waits for its invitation. The demo ends with the test, or before.
func startDemo(t *testing.T, p *project, variables ...string) *local.Process {
	t.Helper()
	cmd := exec.Command("make", append([]string{"demo", "ADDR=" + p.addr}, variables...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.log, p.log
	demo, err := local.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(demo.Stop)
	p.log.wait(t, invitation, demo, 8*patience)
	return demo
}

// The printed commands work: the page, and a message from the command line to an event stream.
func testInvitation(t *testing.T, p *project) {
	resp, err := http.Get(p.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(page), "<h1>Fanout, live</h1>") || resp.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("the page: %s, %v, %.100s", resp.Status, err, page)
	}
	events := open(t, withPatience(t), p.url("/events"))
	events.event()
	if want, got := say(t, p, "demo", "hello"), events.event(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A message that is published with a POST arrives on an open stream.
func testStream(t *testing.T, p *project) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", p.url("/stream"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "stream open" {
		t.Fatalf("first line %q, %v", lines.Text(), lines.Err())
	}
	p.publish(t, `"http-stream":{"content":"hello stream\n"}`)
	if !lines.Scan() || lines.Text() != "hello stream" {
		t.Fatalf("published line %q, %v", lines.Text(), lines.Err())
	}
}

// A WebSocket echoes text and binary messages, and gets published messages.
func testSocket(t *testing.T, p *project) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+p.addr+"/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for _, tt := range []struct {
		kind    websocket.MessageType
		message string
	}{
		{websocket.MessageText, "hello"},
		{websocket.MessageText, `c:{"type":"detach"}`}, // a control message, if the origin sent it to the proxy without a prefix
		{websocket.MessageText, "m:hello"},
		{websocket.MessageText, `{"reason":"no command"}`},
		{websocket.MessageText, `{}`},
		{websocket.MessageText, "héllo wörld ☃"},
		{websocket.MessageText, ""},
		{websocket.MessageBinary, "\x00\xff\r\n"},
	} {
		if err := conn.Write(ctx, tt.kind, []byte(tt.message)); err != nil {
			t.Fatal(err)
		}
		kind, got, err := conn.Read(ctx)
		if err != nil || kind != tt.kind || string(got) != tt.message {
			t.Fatalf("%v %q came back as %v %q, %v", tt.kind, tt.message, kind, got, err)
		}
	}
	p.publish(t, `"ws-message":{"content":"hello socket"}`)
	if kind, got, err := conn.Read(ctx); err != nil || kind != websocket.MessageText || string(got) != "hello socket" {
		t.Fatalf("published message: got %v %q, %v", kind, got, err)
	}
	if err := conn.Close(4321, "a reason"); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// /echo says whether the request was handed off. A client cannot pretend to be Fanout by sending its header.
func testEcho(t *testing.T, p *project) {
	for _, tt := range []struct {
		method string
		fanout bool
	}{{"GET", true}, {"POST", false}} {
		req, err := http.NewRequest(tt.method, p.url("/echo?a=b"), strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Grip-Sig", "forged")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Method, Target string
			ViaFanout      bool
			Header         http.Header
		}
		err = json.NewDecoder(resp.Body).Decode(&got)
		resp.Body.Close()
		if err != nil || got.Method != tt.method || got.Target != "/echo?a=b" || got.ViaFanout != tt.fanout {
			t.Errorf("%s: got %+v, %v", tt.method, got, err)
		}
		if sig := got.Header.Get("Grip-Sig"); tt.fanout && sig != "(withheld)" {
			t.Errorf("%s: the answer shows the proxy's signature, %q, with which anybody can pretend to be the proxy", tt.method, sig)
		}
	}
}

// While the demo runs, a second demo, and `make serve`, report each taken port with the process that has it.
func testPortsTaken(t *testing.T, p *project) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, target := range []string{"demo", "serve"} {
		cmd := exec.CommandContext(ctx, "make", target, "ADDR="+p.addr)
		cmd.Dir = p.dir
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Fatalf("make %s started, although its ports are taken", target)
		}
		taken := append(p.Addresses(), p.addr)
		if target == "demo" {
			taken = append(taken, p.Origin)
		}
		for _, addr := range taken {
			_, port, _ := strings.Cut(addr, ":")
			if !strings.Contains(string(out), "port "+port+" is taken by process ") {
				t.Errorf("make %s does not name the process on port %s:\n%s", target, port, out)
			}
		}
		for _, name := range []string{"viceroy", "pushpin-handler"} {
			if !strings.Contains(string(out), name) {
				t.Errorf("make %s does not name %s:\n%s", target, name, out)
			}
		}
	}
}

// For an invalid address, the error has the address, and an example of a valid one.
func TestBadAddress(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"7676", "127.0.0.1:", "127.0.0.1:app", ":7676", "127.0.0.1:76767"} {
		out, err := exec.Command("make", "-C", "../..", "serve", "ADDR="+addr).CombinedOutput()
		if err == nil || !strings.Contains(string(out), `"`+addr+`" is not host:port, such as 127.0.0.1:7676`) {
			t.Errorf("make serve ADDR=%s: %v\n%s", addr, err, out)
		}
	}
}

// A killed demo cannot clean up itself, but it also leaves no process and no taken port.
func testKilled(t *testing.T, p *project, demo *local.Process) {
	started := demo.Descendants()
	for _, proc := range started {
		if name, _ := proc.Name(); name == "kit" {
			proc.Kill()
			break
		}
	}
	for deadline := time.Now().Add(patience); slices.ContainsFunc(started, local.Alive); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("some of %d processes still run", len(started))
		}
	}
	waitFree(t, append(p.Addresses(), p.addr, p.Origin)...)
}

// Ctrl-C ends the demo. No process is left, and no port is taken.
func testCtrlC(t *testing.T, p *project, demo *local.Process) {
	started := demo.Descendants()
	for _, name := range []string{"kit", "origin", "fastly", "viceroy", "pushpin"} {
		if !slices.ContainsFunc(started, func(p *process.Process) bool { n, _ := p.Name(); return n == name }) {
			t.Errorf("%s does not run", name)
		}
	}
	if err := syscall.Kill(-demo.Pid(), syscall.SIGINT); err != nil { // to the process group, as a terminal does
		t.Fatal(err)
	}
	select {
	case <-demo.Done():
	case <-time.After(patience):
		t.Fatal("make demo still runs")
	}
	for _, proc := range started {
		if local.Alive(proc) {
			command, _ := proc.Cmdline()
			t.Errorf("process %d still runs: %s", proc.Pid, command)
		}
	}
	waitFree(t, append(p.Addresses(), p.addr, p.Origin)...)
}
