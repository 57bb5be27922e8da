package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
	"compute-starter-kit-go-fanout-forward/testdata/grip"
	"compute-starter-kit-go-fanout-forward/testdata/origins"
	"compute-starter-kit-go-fanout-forward/testdata/toolchain"
)

// TestOrigins runs each of the origins in other languages with `make demo ORIGIN=`, and tries the printed commands.
func TestOrigins(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	var arguments []string
	for _, name := range origins.Ours {
		t.Run(name, func(t *testing.T) {
			dir, err := filepath.Abs(filepath.Join("..", "origins", name))
			if err != nil {
				t.Fatal(err)
			}
			origin, err := origins.Find(t.Context(), dir)
			if err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skipf("an origin is NOT TESTED: %v", err)
			}
			p.log = &logBuffer{} // the old log has the invitation of the demo before
			demo := startDemo(t, p, append(arguments, "ORIGIN="+dir)...)
			defer demo.Stop()
			arguments = []string{"ARGS=--skip-build"} // the app has not changed
			t.Run("messages", func(t *testing.T) { testOriginMessages(t, p) })
			t.Run("echo", func(t *testing.T) { testOriginEcho(t, p) })
			t.Run("refusals", func(t *testing.T) { testOriginRefusals(t, p) })
			t.Run("browser", func(t *testing.T) { testOriginBrowser(t, p) })
			t.Run("production", func(t *testing.T) { testOriginProduction(t, p, origin) })
			t.Run("GRIP_URL", func(t *testing.T) { testOriginGripURL(t, p, origin) })
		})
	}
}

// A message that is published over HTTP reaches an event stream, a WebSocket and a long-poll.
func testOriginMessages(t *testing.T, p *project) {
	const text = "hello wörld ☃"
	for name, connect := range map[string]func(context.Context, chan<- string){
		"events": func(ctx context.Context, got chan<- string) {
			events := open(t, ctx, p.url("/events"))
			events.until("event: start")
			go func() {
				for events.Scan() {
					if data, ok := strings.CutPrefix(events.Text(), "data: "); ok {
						got <- data
					}
				}
			}()
		},
		"socket": func(ctx context.Context, got chan<- string) {
			conn, _, err := websocket.Dial(ctx, "ws://"+p.addr+"/socket", nil)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer conn.CloseNow()
				for {
					_, message, err := conn.Read(ctx)
					if err != nil {
						return
					}
					got <- string(message)
				}
			}()
		},
		"poll": func(ctx context.Context, got chan<- string) {
			go func() {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/poll"), nil)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				line, _ := bufio.NewReader(resp.Body).ReadString('\n')
				got <- strings.TrimSuffix(line, "\n")
			}()
		},
	} {
		ctx, cancel := context.WithCancel(withPatience(t))
		got := make(chan string, 100)
		connect(ctx, got)
		// Publish again and again: these origins store nothing for a client whose subscription has not started yet.
		for published := false; !published; {
			if status, answer := post(t, p.url("/publish"), text); status != http.StatusOK || answer != "published\n" {
				t.Fatalf("publish: status %d, %s", status, answer)
			}
			select {
			case message := <-got:
				if message != text {
					t.Errorf("%s: got %q", name, message)
				}
				published = true
			case <-time.After(300 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s: no published message arrives", name)
			}
		}
		cancel()
	}
}

// A WebSocket echoes text and binary messages with any content, and closes with the client's code.
func testOriginEcho(t *testing.T, p *project) {
	ctx := withPatience(t)
	conn, _, err := websocket.Dial(ctx, "ws://"+p.addr+"/socket?channel=echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for _, tt := range []struct {
		kind    websocket.MessageType
		message string
	}{
		{websocket.MessageText, "hello"},
		{websocket.MessageText, `c:{"type":"detach"}`}, // a control message for the proxy, if the origin sent it without a prefix
		{websocket.MessageText, "wörld ☃"},
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
	if err := conn.Close(4321, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

// The origin holds only requests from the proxy, and pages of other sites cannot publish.
func testOriginRefusals(t *testing.T, p *project) {
	key := []byte("viceroy_dev_signing_key_dont_use_in_production")
	for name, sig := range map[string]string{
		"none":           "",
		"nonsense":       "nonsense",
		"another key":    sign(t, jwt.SigningMethodHS256, []byte("another key, of 32 bytes or more"), "viceroy", time.Minute),
		"another issuer": sign(t, jwt.SigningMethodHS256, key, "me", time.Minute),
		"expired":        sign(t, jwt.SigningMethodHS256, key, "viceroy", -time.Minute),
		"unsigned":       sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "viceroy", time.Minute),
	} {
		for _, target := range []string{"GET /events", "GET /poll", "POST /socket"} {
			method, path, _ := strings.Cut(target, " ")
			req, err := http.NewRequestWithContext(withPatience(t), method, "http://"+p.Origin+path, strings.NewReader("OPEN\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", grip.EventsType)
			req.Header.Set("Connection-Id", "1")
			if sig != "" {
				req.Header.Set(grip.HeaderSig, sig)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s, signature %s: %s", target, name, resp.Status)
			}
		}
	}
	req, err := http.NewRequestWithContext(withPatience(t), http.MethodPost, p.url("/publish"), strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://example.com")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a page published and got %s", resp.Status)
	}
}

// The origin's page in a browser shows the published messages.
func testOriginBrowser(t *testing.T, p *project) {
	path, err := toolchain.Browser(t.Context(), io.Discard)
	if err != nil {
		t.Skip(err) // TestPage reports this, and fails in CI
	}
	ctx := newBrowser(t, path)
	if err := chromedp.Do(ctx, chromedp.Navigate(p.url("/"))); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		post(t, p.url("/publish"), "<b>hello</b>")
		shown, err := chromedp.Run(ctx, chromedp.Evaluate[string](`new Promise((resolve) => setTimeout(resolve, 200)).then(() =>
			document.querySelector('#messages li')?.textContent ?? '')`, chromedp.EvalAwaitPromise))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the page shows %q, %v", shown, err)
		}
		if shown == "<b>hello</b>" {
			return
		}
	}
}

// startOrigin starts an installed origin on a free port, with this GRIP_URL.
func startOrigin(t *testing.T, origin origins.Origin, gripURL string, out io.Writer) (process *chain.Process, addr string) {
	t.Helper()
	cmd, err := origin.Install(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	addr = local(freePorts(t, 1))
	_, port, _ := strings.Cut(addr, ":")
	cmd.Env = append(os.Environ(), "GRIP_URL="+gripURL, "PORT="+port)
	cmd.Stdout, cmd.Stderr = out, out
	if process, err = chain.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Stop)
	return process, addr
}

// Fanout signs with a private key, and publishing needs a token. If publishing fails, the origin logs one line, without
// the token.
func testOriginProduction(t *testing.T, p *project, origin origins.Origin) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	var status atomic.Int32
	requests := make(chan string, 10)
	publisher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")
		w.WriteHeader(int(status.Load()))
	}))
	defer publisher.Close()
	status.Store(http.StatusOK)
	out := &logBuffer{}
	process, addr := startOrigin(t, origin, publisher.URL+"/service/ID?key=TOKEN&verify-iss=fastly:ID&verify-key=base64:"+
		url.QueryEscape(base64.StdEncoding.EncodeToString(public)), out)
	if _, err := process.WaitForListener(t.Context(), addr); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	sig := sign(t, jwt.SigningMethodES256, private, "fastly:ID", time.Minute)
	if resp := signed(t, "GET", "http://"+addr+"/events", sig, "", ""); resp.StatusCode != 200 || resp.Header.Get(grip.HeaderHold) != "stream" {
		t.Errorf("signed by Fanout: got %s", resp.Status)
	}
	for _, sig := range []string{
		sign(t, jwt.SigningMethodHS256, public, "fastly:ID", time.Minute), // signed with the public key as a secret
		sign(t, jwt.SigningMethodES256, private, "fastly:ANOTHER", time.Minute),
	} {
		if resp := signed(t, "GET", "http://"+addr+"/events", sig, "", ""); resp.StatusCode == 200 || resp.Header.Get(grip.HeaderHold) != "" {
			t.Errorf("with a wrong signature: got %s", resp.Status)
		}
	}

	if code, _ := post(t, "http://"+addr+"/publish", "hello"); code != http.StatusOK {
		t.Errorf("publish: status %d", code)
	}
	if got := <-requests; got != "POST /service/ID/publish/ Bearer TOKEN" {
		t.Errorf("the publish request was %s", got)
	}
	const advice = "check GRIP_URL and its key, and that the proxy runs"
	status.Store(http.StatusUnauthorized)
	if code, _ := post(t, "http://"+addr+"/publish", "hello"); code != http.StatusBadGateway {
		t.Errorf("refused: status %d", code)
	}
	out.wait(t, "401.*"+advice, process, patience)
	publisher.Close()
	if code, _ := post(t, "http://"+addr+"/publish", "hello"); code != http.StatusBadGateway {
		t.Errorf("down: status %d", code)
	}
	out.wait(t, "(fetch failed|Max retries exceeded).*"+advice, process, patience)
	if log := out.String(); strings.Contains(log, "TOKEN") || strings.Count(log, "\n") > 3 {
		t.Errorf("the log is\n%s", log)
	}
}

// If GRIP_URL is not valid, has no key to check signatures, or a public key without an issuer, the origin ends at once.
func testOriginGripURL(t *testing.T, p *project, origin origins.Origin) {
	for _, gripURL := range []string{"", "SECRET", "http://localhost:SECRET/?verify-key=SECRET", "http://localhost:5561/?key=SECRET",
		"http://localhost:5561/?key=SECRET&verify-key=base64:LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowREFRY0RRZ0FFQ0tvNUExZWJ5RmNubVZWOFNFNU9uKzhHODFKeQpCalN2Y3J4NFZMZXRXQ2p1REFtcHBUbzN4TS96ejc2M0NPVENnSGZwLzZsUGRDeVlqanFjK0dNN3N3PT0KLS0tLS1FTkQgUFVCTElDIEtFWS0tLS0t"} {
		out := &logBuffer{}
		process, _ := startOrigin(t, origin, gripURL, out)
		select {
		case <-process.Done():
		case <-time.After(patience):
			t.Errorf("the origin runs with the GRIP_URL %q", gripURL)
			continue
		}
		if got := out.String(); !strings.HasPrefix(got, "GRIP_URL must ") || strings.Count(got, "\n") != 1 || strings.Contains(got, "SECRET") {
			t.Errorf("with the GRIP_URL %q the origin prints\n%s", gripURL, got)
		}
	}
}

// writeOrigin makes an origin's directory. Its path has characters that a careless program does not handle.
func writeOrigin(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "my örigin's")
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestOriginInstall installs the libraries of an origin. They are installed once, and again when the lock file changes.
// Then the command starts the origin.
func TestOriginInstall(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files         map[string]string
		lock, changed string
	}{
		"node": {map[string]string{
			"package.json": `{"name": "x", "scripts": {"start": "node main.js"}, "dependencies": {"y": "file:y"}}`,
			"package-lock.json": `{"name": "x", "lockfileVersion": 3, "packages": {"": {"name": "x", "dependencies": {"y": "file:y"}},
				"node_modules/y": {"resolved": "y", "link": true}, "y": {"version": "1.0.0"}}}`,
			"y/package.json": `{"name": "y", "version": "1.0.0"}`,
			"y/index.js":     `module.exports = "started"`,
			"main.js":        `console.log(require("y"))`,
		}, "package-lock.json", ""},
		"python": {map[string]string{"requirements.txt": "", "app.py": `print("started")`}, "requirements.txt", "# changed\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := writeOrigin(t, tt.files)
			origin, err := origins.Find(t.Context(), dir)
			if err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skipf("NOT TESTED: %v", err) // `make e2e` prints this too
			}
			install := func(installs bool) {
				t.Helper()
				var progress bytes.Buffer
				cmd, err := origin.Install(t.Context(), &progress)
				if err != nil {
					t.Fatalf("%v\n%s", err, &progress)
				}
				if (progress.Len() > 0) != installs {
					t.Errorf("must it install: %t; it printed %q", installs, &progress)
				}
				if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "started" {
					t.Errorf("%s: %v, %s", cmd, err, out)
				}
			}
			install(true)
			install(false)
			lock := filepath.Join(dir, tt.lock)
			if err := os.WriteFile(lock, []byte(tt.files[tt.lock]+tt.changed), 0o644); err != nil {
				t.Fatal(err)
			}
			if name == "node" {
				later := filepath.Join(dir, "node_modules", ".package-lock.json")
				info, err := os.Stat(later)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(lock, info.ModTime().Add(1e9), info.ModTime().Add(1e9)); err != nil {
					t.Fatal(err)
				}
			}
			install(true)
		})
	}
}

// After a failed installation, the next Install tries again.
func TestOriginInstallFails(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip(err) // in CI, TestOriginInstall fails because of this
	}
	dir := writeOrigin(t, map[string]string{"package.json": `{"scripts": {"start": "node main.js"}}`, "package-lock.json": "no JSON"})
	origin, err := origins.Find(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var progress bytes.Buffer
		if _, err := origin.Install(t.Context(), &progress); err == nil || !strings.Contains(err.Error(), "npm ci") {
			t.Errorf("got %v\n%s", err, &progress)
		}
	}
}
