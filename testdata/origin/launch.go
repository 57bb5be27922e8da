package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"
)

// demo is an app beside this origin: `origin fastly compute serve` and its arguments.
type demo struct {
	command []string
	app     string // where the app listens, host:port
	origin  string // where the app expects its origin, host:port
	proxy   int    // Pushpin's port for requests
	publish int    // Pushpin's port for publishing; Pushpin needs the three after it, too
}

// newDemo reads the command and fastly.toml. For what they leave out, it uses
// the CLI's defaults.
// Source: https://www.fastly.com/documentation/reference/compute/fastly-toml/#local-server
func newDemo(command []string) (*demo, error) {
	var file struct {
		LocalServer struct {
			Backends map[string]struct{ URL string }
			Pushpin  struct {
				ProxyPort   int `toml:"proxy_port"`
				PublishPort int `toml:"publish_port"`
			}
		} `toml:"local_server"`
	}
	if _, err := toml.DecodeFile("fastly.toml", &file); err != nil {
		return nil, fmt.Errorf("the app's fastly.toml: %w", err)
	}
	backend, err := url.Parse(file.LocalServer.Backends["origin"].URL)
	if err != nil || backend.Port() == "" {
		return nil, errors.New("fastly.toml: under [local_server.backends.origin], set url to an address " +
			"of this machine with a port, such as http://localhost:3000/, or use make serve")
	}
	pushpin := file.LocalServer.Pushpin
	d := &demo{command, "127.0.0.1:7676", backend.Host, cmp.Or(pushpin.ProxyPort, 7677), cmp.Or(pushpin.PublishPort, 5561)}
	for _, arg := range command {
		if addr, ok := strings.CutPrefix(arg, "--addr="); ok {
			d.app = addr
		}
	}
	if _, port, err := net.SplitHostPort(d.app); err != nil || port == "" {
		return nil, fmt.Errorf("the app's address %q is not host:port, such as 127.0.0.1:7676", d.app)
	}
	return d, d.checkPorts()
}

// names returns the addresses of the app's pages, host:port. The first one is for people.
func (d *demo) names() []string {
	a, err := net.ResolveTCPAddr("tcp", d.app)
	if err == nil && (a.IP.IsLoopback() || a.IP.IsUnspecified()) {
		return []string{fmt.Sprintf("localhost:%d", a.Port), fmt.Sprintf("127.0.0.1:%d", a.Port)}
	}
	return []string{d.app}
}

// checkPorts returns an error if other programs have ports that the demo needs.
func (d *demo) checkPorts() error {
	_, app, _ := net.SplitHostPort(d.app)
	_, origin, _ := net.SplitHostPort(d.origin)
	ports := []string{app, origin, strconv.Itoa(d.proxy)}
	for i := range 4 {
		ports = append(ports, strconv.Itoa(d.publish+i))
	}
	ports = slices.DeleteFunc(ports, func(port string) bool { return !taken(port) })
	if len(ports) == 0 {
		return nil
	}
	return fmt.Errorf(`already in use: port %s
Stop the other demo or fastly compute serve, or Debian's Pushpin service (sudo service pushpin stop). Or use other ports:
run make with ADDR=127.0.0.1:port (now %s), and in fastly.toml set url under [local_server.backends.origin] (now %s),
and under [local_server.pushpin] proxy_port (now %d) and publish_port (now %d, with the three after it)`,
		strings.Join(ports, ", "), d.app, d.origin, d.proxy, d.publish)
}

// taken reports whether a program listens on the port, at any address: Pushpin needs all of
// them, and a server that has only the IPv6 address would get requests to localhost.
func taken(port string) bool {
	for _, a := range [][2]string{{"tcp4", "127.0.0.1:"}, {"tcp4", ":"}, {"tcp6", "[::1]:"}, {"tcp6", ":"}} {
		if l, err := net.Listen(a[0], a[1]+port); err == nil {
			l.Close()
		} else if errors.Is(err, syscall.EADDRINUSE) {
			return true
		}
	}
	return false
}

// run serves the origin and runs the command until a signal ends both. If the command ends by
// itself, run returns an error. The command has its own process group, which Cancel ends.
func (d *demo) run(origin *http.Server) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	listener, err := net.Listen("tcp", d.origin)
	if err != nil {
		return fmt.Errorf("the origin, at its url in fastly.toml: %w", err)
	}
	go origin.Serve(listener)
	cmd := exec.CommandContext(ctx, d.command[0], d.command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		fmt.Println("\ndemo: stopping")
		// In the second before it starts Viceroy, the CLI loses a signal and is deaf to others.
		// Then it ends when Viceroy does, which is in the group, too, and obeys SIGTERM.
		for sig := syscall.SIGINT; cmd.Process.Signal(syscall.Signal(0)) == nil; sig = syscall.SIGTERM {
			syscall.Kill(-cmd.Process.Pid, sig)
			time.Sleep(500 * time.Millisecond)
		}
		return nil
	}
	go d.invite()
	if err := cmd.Run(); ctx.Err() == nil {
		if cmd.Process != nil { // the CLI may have left Pushpin and Viceroy
			syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		}
		return fmt.Errorf("%s ended by itself; see its output above: %v", d.command[0], err)
	}
	return nil
}

// invite waits for the app, and prints what a person can try.
func (d *demo) invite() {
	conn, err := net.Dial("tcp", d.app)
	for ; err != nil; conn, err = net.Dial("tcp", d.app) {
		time.Sleep(50 * time.Millisecond)
	}
	conn.Close()
	text := d.invitation()
	time.Sleep(1500 * time.Millisecond) // until Viceroy has logged that the sandboxes of these requests end
	fmt.Print(text)
}

// invitation tries the connections of the demo's page, and returns how a person can try them.
func (d *demo) invitation() string {
	app, faults := d.names()[0], ""
	text := fmt.Sprintf("\nOpen http://%s/ in a browser. The page has three live connections to the demo's origin (http://%s/).\n"+
		"Or try these commands, each in another terminal.\n", app, d.origin)
	for _, c := range []struct{ path, name, try string }{
		{"/events", "event stream", "An event stream that stays open:\n    curl -N http://%s/events"},
		{"/socket", "WebSocket", "A WebSocket, which echoes what you type:\n    websocat ws://%[1]s/socket\n\n" +
			"  The same, without websocat:\n    npx --yes wscat@6.1.0 -c ws://%[1]s/socket"},
		{"/poll", "long-poll", ""},
	} {
		if why := open("http://"+d.app+c.path, c.name == "WebSocket"); why != "" {
			faults += fmt.Sprintf("\nThe page's %s (GET %s) stays closed: %s\n", c.name, c.path, why)
		} else if c.try != "" {
			text += fmt.Sprintf("\n  "+c.try+"\n", app)
		}
	}
	return text + "\n  Publish a message to these clients and the page:\n    curl -d hello http://" + app + "/publish\n" + faults +
		"\nAfter you change main.go, restart the demo, or have it rebuild the app: make demo ARGS=--watch\n" +
		"Press Ctrl-C here to stop everything.\n\n"
}

// open opens a connection and closes it again. It returns why that fails, or "".
func open(url string, webSocket bool) (why string) {
	req, _ := http.NewRequest(http.MethodGet, url+"?after=", nil)
	want := http.StatusOK
	if webSocket {
		want = http.StatusSwitchingProtocols
		req.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		}
	}
	resp, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if resp.StatusCode == want {
		return "" // the body may never end
	}
	body, _ := io.ReadAll(resp.Body)
	if strings.Contains(string(body), "through the GRIP proxy only") { // says this origin
		return "main.go does not hand it off."
	}
	return fmt.Sprintf("it was answered with %s (%.80s).", resp.Status, strings.TrimSpace(string(body)))
}
