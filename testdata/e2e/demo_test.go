package e2e

import (
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/shirou/gopsutil/v4/process"

	"compute-starter-kit-go-fanout-forward/testdata/local"
	"compute-starter-kit-go-fanout-forward/testdata/origins"
)

// TestDemo runs `make demo`, tries what it prints, and ends it as a person does.
func TestDemo(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	demo := startDemo(t, p)
	if before, _, _ := strings.Cut(p.log.String(), "\nOpen http://"); !strings.Contains(before, "request completed") {
		t.Error("the hints do not come after the log of the demo's own requests")
	}
	t.Run("pages", func(t *testing.T) { testDemoPages(t, p) })
	t.Run("socket", func(t *testing.T) { testDemoSocket(t, p) })
	t.Run("ports taken", func(t *testing.T) { testPortsTaken(t, p) })
	t.Run("Ctrl-C", func(t *testing.T) {
		checkEnd(t, p, demo, func(kit *process.Process) {
			syscall.Kill(-demo.Pid(), syscall.SIGINT) // to the process group, as a terminal does
			waitEnded(t, kit)
			<-demo.Done()
			if left := demo.Tree(); len(left) > 0 {
				t.Errorf("make demo ended before %v", left)
			}
		})
		if _, last, _ := strings.Cut(p.log.String(), "\ndemo: stopping\n"); last != "" {
			t.Errorf("after a Ctrl-C, make demo prints %q", last)
		}
	})
	t.Run("serve", func(t *testing.T) {
		startMake(t, p, "no origin answers at (?s:.*)Listening on http://", "serve", "ARGS=--skip-build").Stop()
	})
	t.Run("another origin, killed", func(t *testing.T) {
		dir, err := filepath.Abs("../origins/python")
		title := "<title>Fanout with Python</title>"
		if _, missing := origins.Find(t.Context(), dir); err != nil || missing != nil { // see TestLive/python
			dir, title = "", "<title>Fanout, live</title>"
		}
		demo := startDemo(t, p, "ORIGIN="+dir, "ARGS=--skip-build")
		if page := fetch(t, "GET", p.url("/"), "").body; !strings.Contains(page, title) {
			t.Errorf("the page is %s", page)
		}
		if runtime.GOOS != "linux" {
			t.Skip("only Linux tells a process that its parent has ended")
		}
		// The system ends the programs that a killed demo has started.
		checkEnd(t, p, demo, func(kit *process.Process) { kit.Kill() })
	})
}

// invitation is the last line that `make demo` prints when it is ready.
const invitation = "Press Ctrl-C here to stop everything"

func startDemo(t *testing.T, p *project, variables ...string) *local.Process {
	t.Helper()
	return startMake(t, p, invitation, append(variables, "demo")...)
}

// startMake runs make with these arguments until the test ends. It waits until make prints ready.
func startMake(t *testing.T, p *project, ready string, args ...string) *local.Process {
	t.Helper()
	cmd := exec.Command("make", append(args, "ADDR="+p.addr)...)
	cmd.Dir = p.dir
	demo, err := local.Start(cmd, p.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(demo.Stop)
	p.log.wait(t, ready, demo, 8*patience)
	return demo
}

// The demo's page arrives. /echo says whether the request was handed off, and does not show the proxy's
// signature. A client cannot pretend to be the proxy.
func testDemoPages(t *testing.T, p *project) {
	if got := fetch(t, "GET", p.url("/"), ""); !strings.Contains(got.body, "<h1>Fanout, live</h1>") {
		t.Errorf("the page is %+v", got)
	}
	for method, want := range map[string][]string{
		"GET":  {`"method": "GET"`, `"target": "/echo?a=b"`, `"viaFanout": true`, "(withheld)"},
		"POST": {`"method": "POST"`, `"target": "/echo?a=b"`, `"viaFanout": false`},
	} {
		got := fetch(t, method, p.url("/echo?a=b"), "", "Grip-Sig", "forged")
		for _, want := range want {
			if !strings.Contains(got.body, want) {
				t.Errorf("%s: got %+v\nwithout %s", method, got, want)
			}
		}
	}
}

// A WebSocket gets messages, too.
func testDemoSocket(t *testing.T, p *project) {
	testOriginEcho(t, p)
	ctx := withPatience(t)
	conn := dialSocket(t, ctx, p, "")
	talk(ctx, conn, "is it open?")
	say(t, p, "demo", "published")
	if _, got, err := conn.Read(ctx); err != nil || !strings.Contains(string(got), `"text":"published"`) {
		t.Errorf("got %q, %v, and not what was published", got, err)
	}
}

// While the demo runs, a second demo and `make serve` name the process on each port and what sets the port.
func testPortsTaken(t *testing.T, p *project) {
	for target, taken := range map[string][]string{
		"serve": append(p.Addresses(), p.addr),
		"demo":  append(p.Addresses(), p.addr, p.Origin),
	} {
		cmd := exec.CommandContext(withPatience(t), "make", target, "ADDR="+p.addr)
		cmd.Dir = p.dir
		out, err := cmd.CombinedOutput()
		want := []string{"viceroy", "pushpin-handler", "ADDR=127.0.0.1:port", "publish_port (now "}
		for _, addr := range taken {
			_, port, _ := strings.Cut(addr, ":")
			want = append(want, "port "+port+" is taken by process ")
		}
		for _, want := range want {
			if err == nil || !strings.Contains(string(out), want) {
				t.Errorf("make %s does not say %q: %v\n%s", target, want, err, out)
			}
		}
	}
}

// TestPages sends what browsers send for pages of the app, under each of its names, and for pages
// of other sites. The Host header at the app's origin is always the override host.
func TestPages(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	_, port, _ := strings.Cut(p.addr, ":")
	p.addr = "0.0.0.0:" + port
	startDemo(t, p, "TRUST=http://demo.test")
	p.addr = "127.0.0.1:" + port

	pages := map[string]int{
		"":                           200, // a program that is not a browser
		"http://localhost:" + port:   200,
		"http://" + p.Origin:         200, // a page that comes directly from the origin
		"http://demo.test":           200,
		"https://example.com":        403,
		"http://localhost:1":         403,
		"http://example.com:" + port: 403,
		"null":                       403,
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			pages["http://"+net.JoinHostPort(n.IP.String(), port)] = 200
		}
	}
	for page, want := range pages {
		if got := fetch(t, "POST", p.url("/publish"), "hello", "Origin", page); got.status != want {
			t.Errorf("a page of %q published and got status %d, want %d", page, got.status, want)
		}
		conn, resp, err := websocket.Dial(withPatience(t), "ws://"+p.addr+"/socket",
			&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {page}}})
		if err == nil {
			conn.CloseNow()
		}
		if (err == nil) != (want == 200) || err != nil && resp.StatusCode != want {
			t.Errorf("a page of %q opened a WebSocket and got %v", page, err)
		}
	}
	p.waitForLog(t, `refused a page of "https://example.com"; if this page is yours, add its origin to -trust, `+
		`or use make demo TRUST="https://example.com"`)
}

// checkEnd ends the demo, and waits until all its processes have ended and all ports are free.
func checkEnd(t *testing.T, p *project, demo *local.Process, end func(kit *process.Process)) {
	t.Helper()
	all := demo.Tree()
	named := map[string]*process.Process{}
	for _, q := range all {
		name, _ := q.Name()
		named[name] = q
	}
	end(named["kit"])
	waitEnded(t, all...)
	waitFree(t, append(p.Addresses(), p.addr, p.Origin)...)
}

// waitEnded waits until all these processes have ended.
func waitEnded(t *testing.T, processes ...*process.Process) {
	t.Helper()
	ended := func(p *process.Process) bool { return !local.Alive(p) }
	for deadline := time.Now().Add(4 * patience); ; time.Sleep(5 * time.Millisecond) {
		if processes = slices.DeleteFunc(processes, ended); len(processes) == 0 {
			return
		}
		if time.Now().After(deadline) {
			name, _ := processes[0].Name()
			t.Fatalf("%s still runs, and maybe others: %v", name, processes)
		}
	}
}
