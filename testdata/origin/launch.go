package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
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
	trust   string // the web origins of the app's pages
	publish int    // Pushpin's port for publishing
}

// newDemo reads the command and fastly.toml. For what they leave out, it uses
// the CLI's defaults. If other programs have the ports, it returns an error.
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
		return nil, errors.New("fastly.toml: under [local_server.backends.origin], set url to an " +
			"address of this machine with a port, such as http://localhost:3000/, or use make serve")
	}
	app := "127.0.0.1:7676"
	for _, arg := range command {
		if addr, ok := strings.CutPrefix(arg, "--addr="); ok {
			app = addr
		}
	}
	_, port, _ := net.SplitHostPort(app) // Viceroy says what is wrong with a malformed address
	proxy := cmp.Or(file.LocalServer.Pushpin.ProxyPort, 7677)
	publish := cmp.Or(file.LocalServer.Pushpin.PublishPort, 5561)
	taken := ""
	for _, port := range []any{port, backend.Port(), proxy, publish, publish + 1, publish + 2, publish + 3} {
		addr := fmt.Sprintf("localhost:%v", port)
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			taken += " " + addr
		}
	}
	if taken != "" {
		return nil, fmt.Errorf(`already in use:%s
Stop the other demo or fastly compute serve, or Debian's Pushpin service (sudo service pushpin stop). Or use other ports:
run make with ADDR=127.0.0.1:port (now %s), and in fastly.toml set url under [local_server.backends.origin] (now %s),
and under [local_server.pushpin] proxy_port (now %d) and publish_port (now %d, with the three after it)`,
			taken, app, backend.Host, proxy, publish)
	}
	trust := fmt.Sprintf("http://%s,http://localhost:%s,http://127.0.0.1:%[2]s", app, port)
	return &demo{command, app, backend.Host, trust, publish}, nil
}

// run runs the command until a signal ends it, and then ends this process, too. If the
// command ends by itself, this process fails.
func (d *demo) run() {
	stop, _ := signal.NotifyContext(context.Background(),
		os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	cmd := exec.Command(d.command[0], d.command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a process group of its own
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	end := func(sig syscall.Signal) { syscall.Kill(-cmd.Process.Pid, sig) }
	context.AfterFunc(stop, func() {
		fmt.Println("\ndemo: stopping")
		// In the second before it starts Viceroy, the CLI loses a signal and is deaf to
		// others. Then it ends when Viceroy does, which is in the group, too.
		for sig := syscall.SIGINT; ; sig = syscall.SIGTERM {
			end(sig)
			time.Sleep(time.Second)
		}
	})
	go func() {
		text := d.invitation()
		time.Sleep(1500 * time.Millisecond) // until Viceroy has logged that the sandboxes of these requests end
		fmt.Print(text)
	}()
	err := cmd.Wait()
	end(syscall.SIGTERM) // the CLI may have left Pushpin and Viceroy
	if stop.Err() == nil {
		log.Fatalf("%s ended by itself; see its output above: %v", d.command[0], err)
	}
	os.Exit(0)
}

// invitation tries the connections of the demo's page, and returns how a person can try them.
func (d *demo) invitation() string {
	text := fmt.Sprintf("\nOpen http://%s/ in a browser. The page has three live connections to the demo's origin.\n"+
		"Or try these commands, each in another terminal.\n", d.app)
	for _, c := range []struct{ path, name, does, command string }{
		{"/events", "event stream", "stays open", "curl -N http"},
		{"/poll", "long-poll", "ends with the next message", "curl http"},
		{"/socket", "WebSocket", "echoes what you type (or with: npx --yes wscat@6.1.0 -c)", "websocat ws"},
	} {
		if why := d.open(c.path); why != "" {
			text += fmt.Sprintf("\nThe page's %s (GET %s) stays closed: %s\n", c.name, c.path, why)
		} else {
			text += fmt.Sprintf("\n  The %s %s:\n    %s://%s%s\n", c.name, c.does, c.command, d.app, c.path)
		}
	}
	return text + "\n  Publish a message to these clients and the page:\n    curl -d hello http://" + d.app + "/publish\n" +
		"\nAfter you change main.go, restart the demo, or have it rebuild the app: make demo ARGS=--watch\n" +
		"Press Ctrl-C here to stop everything.\n\n"
}

// open waits for the app, opens a connection of the page, and closes it again. It
// returns why that fails, or "".
func (d *demo) open(path string) (why string) {
	req, _ := http.NewRequest(http.MethodGet, "http://"+d.app+path+"?after=", nil)
	if path == "/socket" {
		req.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		}
	}
	client := http.Client{Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	for ; errors.Is(err, syscall.ECONNREFUSED); resp, err = client.Do(req) {
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 {
		return "" // the body may never end
	}
	body, _ := io.ReadAll(resp.Body)
	if strings.Contains(string(body), "through the GRIP proxy only") { // says this origin
		return "main.go does not hand it off."
	}
	return fmt.Sprintf("it was answered with %s (%.80s).", resp.Status, strings.TrimSpace(string(body)))
}
