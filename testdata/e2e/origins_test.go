package e2e

import (
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
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
	"compute-starter-kit-go-fanout-forward/testdata/local"
	"compute-starter-kit-go-fanout-forward/testdata/origins"
)

// testOrigins runs the origins in other languages behind the app.
func testOrigins(t *testing.T, p *project) {
	for _, name := range origins.Ours {
		t.Run(name, func(t *testing.T) {
			origin := findOrigin(t, filepath.Join("..", "origins", name))
			defer startOrigin(t, origin, p.Origin, p.GripURL(), p.log).Stop()
			t.Run("messages", func(t *testing.T) { testMessages(t, p) })
			t.Run("echo", func(t *testing.T) { testOriginEcho(t, p) })
			t.Run("refusals", func(t *testing.T) {
				testRefusals(t, p, "GET /events", "GET /poll", "POST /socket")
				got := fetch(t, "POST", p.url("/publish"), "hello", "Origin", "https://example.com")
				if got.status != 403 {
					t.Errorf("a page published and got status %d", got.status)
				}
			})
			t.Run("production", func(t *testing.T) {
				const advice = "check GRIP_URL and its key, and that the proxy runs"
				log := &logBuffer{}
				testProduction(t, log, func(addr, gripURL, verifyKey string) {
					key := base64.StdEncoding.EncodeToString([]byte(verifyKey))
					startOrigin(t, origin, addr, gripURL+"&verify-key=base64:"+url.QueryEscape(key), log)
				}, "401.*"+advice, "(fetch failed|Max retries exceeded).*"+advice)
			})
			t.Run("GRIP_URL", func(t *testing.T) { testOriginGripURL(t, origin) })
		})
	}
}

// findOrigin returns the origin in dir. If this machine cannot run it, it skips the test.
func findOrigin(t *testing.T, dir string) origins.Program {
	t.Helper()
	origin, err := origins.Find(t.Context(), dir)
	if err != nil {
		skipOrFail(t, "an origin is NOT TESTED: %s", strings.ReplaceAll(err.Error(), dir, filepath.Base(dir)))
	}
	return origin
}

// startOrigin starts an installed origin. It waits until the origin listens at addr, or ends.
func startOrigin(t *testing.T, origin origins.Program, addr, gripURL string, out io.Writer) *local.Process {
	t.Helper()
	cmd, err := origin.Install(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(addr, ":")
	cmd.Env = append(os.Environ(), "GRIP_URL="+gripURL, "PORT="+port)
	process, err := local.Start(cmd, out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Stop)
	process.WaitForListener(t.Context(), addr)
	return process
}

// A message that is published over HTTP reaches an event stream, a WebSocket, a
// long-poll, and the page in a browser.
func testMessages(t *testing.T, p *project) {
	const text = "<b>hello</b> wörld ☃"
	ctx, leave := context.WithCancel(withPatience(t))
	events, conn := open(t, p.url("/events")), dialSocket(t, ctx, p, "")
	events.until("event: start")
	// Publish again and again: these origins store nothing for a client whose
	// subscription has not started yet.
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(300 * time.Millisecond) {
			got := fetch(t, "POST", p.url("/publish"), text)
			if got.status != 200 || got.body != "published\n" {
				t.Errorf("publish: status %d, %s", got.status, got.body)
			}
		}
	})
	defer publisher.Wait()
	defer leave()
	events.until("data: " + text)
	if _, got, err := conn.Read(ctx); err != nil || string(got) != text {
		t.Errorf("the WebSocket got %q, %v", got, err)
	}
	if got := fetch(t, "GET", p.url("/poll"), ""); got.body != text+"\n" {
		t.Errorf("the long-poll got %q", got.body)
	}
	if path, err := local.Browser(ctx); err == nil { // otherwise TestLive/page reports this, and fails in CI
		err := chromedp.Do(newBrowser(t, path), chromedp.Navigate(p.url("/")),
			until("document.querySelector('#messages li')?.textContent === text", text, patience))
		if err != nil {
			t.Errorf("the page: %v", err)
		}
	}
}

// A WebSocket echoes text and binary messages with any content, and
// closes with the client's code.
func testOriginEcho(t *testing.T, p *project) {
	ctx := withPatience(t)
	conn := dialSocket(t, ctx, p, "channel=echo")
	for _, text := range []string{`c:{"type":"detach"}`, `{"reason":"no command"}`, "wörld ☃", ""} { // c: begins a control message
		if got := talk(ctx, conn, text); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	conn.Write(ctx, websocket.MessageBinary, []byte("\x00\xff\r\n"))
	if kind, got, err := conn.Read(ctx); kind != websocket.MessageBinary || string(got) != "\x00\xff\r\n" {
		t.Errorf("binary came back as %v %q, %v", kind, got, err)
	}
	if err := conn.Close(4321, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

// The origin holds only the proxy's requests.
func testRefusals(t *testing.T, p *project, targets ...string) {
	key := []byte("viceroy_dev_signing_key_dont_use_in_production")
	other := []byte("another key, of 32 bytes or more")
	for _, sig := range []string{
		"",
		sign(t, jwt.SigningMethodHS256, other, "viceroy", time.Minute),
		sign(t, jwt.SigningMethodHS256, key, "another issuer", time.Minute),
		sign(t, jwt.SigningMethodHS256, key, "viceroy", -time.Minute), // expired
		sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "viceroy", time.Minute),
	} {
		for _, target := range targets {
			method, path, _ := strings.Cut(target, " ")
			got := fetch(t, method, "http://"+p.Origin+path, "OPEN\r\n",
				"Grip-Sig", sig, "Content-Type", grip.EventsType)
			if got.status != http.StatusForbidden {
				t.Errorf("%s with the signature %q: got status %d", target, sig, got.status)
			}
		}
	}
}

// sign returns a Grip-Sig.
func sign(t *testing.T, method jwt.SigningMethod, key any, issuer string, life time.Duration) string {
	t.Helper()
	claims := jwt.RegisteredClaims{Issuer: issuer, ExpiresAt: jwt.NewNumericDate(time.Now().Add(life))}
	sig, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// newKey returns a private key like Fanout's, and its public key in PEM.
func newKey(t *testing.T) (private *ecdsa.PrivateKey, public string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&private.PublicKey) // cannot fail for P-256
	return private, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// The origin works with Fanout, which signs with a private key, and accepts messages from
// those who have a token. If publishing fails, the client learns that, and the log has one
// line with the cause, refused or down, but not the token. start starts the origin at addr,
// with a GRIP_URL and the public key.
func testProduction(t *testing.T, log *logBuffer, start func(addr, gripURL, verifyKey string), refused, down string) {
	private, public := newKey(t)
	publisher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")
		if got != "POST /service/ID/publish/ Bearer TOKEN" || bytes.Contains(body, []byte("refuse")) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer publisher.Close()
	addr := loopback(freePorts(t, 1))
	start(addr, publisher.URL+"/service/ID?key=TOKEN&verify-iss=fastly:ID", public)

	for sig, want := range map[string]int{
		sign(t, jwt.SigningMethodES256, private, "fastly:ID", time.Minute):        200,
		sign(t, jwt.SigningMethodES256, private, "fastly:ANOTHER", time.Minute):   403,
		sign(t, jwt.SigningMethodHS256, []byte(public), "fastly:ID", time.Minute): 403,
	} {
		got := fetch(t, "GET", "http://"+addr+"/events", "", "Grip-Sig", sig).status
		if got != want {
			t.Errorf("signed with %s: got status %d, want %d", sig, got, want)
		}
	}

	publish := func(text string, want int) {
		t.Helper()
		got := fetch(t, "POST", "http://"+addr+"/publish", text)
		if got.status != want || strings.Contains(got.body, "127.0.0.1") {
			t.Errorf("publish: status %d, %s", got.status, got.body)
		}
	}
	publish("hello", 200)
	publish("refuse", 502)
	log.wait(t, refused, nil, patience)
	publisher.Close()
	publish("hello", 502)
	log.wait(t, down, nil, patience)
	if strings.Contains(log.String(), "TOKEN") {
		t.Errorf("the log has the token:\n%s", log)
	}
}

// If GRIP_URL is not valid, has no key to check signatures, or a public key without an issuer,
// the origin ends at once. It says why, without a secret.
func testOriginGripURL(t *testing.T, origin origins.Program) {
	_, public := newKey(t)
	const good = "http://localhost:5561/?key=SECRET"
	for gripURL, says := range map[string]string{
		"": "the http or https URL of a GRIP proxy",
		"http://localhost:SECRET/?verify-key=SECRET": "the http or https URL of a GRIP proxy",
		good: "have a verify-key",
		good + "&verify-key=base64:" + base64.URLEncoding.EncodeToString([]byte(public)): "have a verify-iss",
	} {
		out := &logBuffer{}
		select {
		case <-startOrigin(t, origin, loopback(freePorts(t, 1)), gripURL, out).Done():
		default:
			t.Errorf("the origin runs with the GRIP_URL %q", gripURL)
		}
		got := out.String()
		oneLine := strings.HasPrefix(got, "GRIP_URL must ") && strings.Count(got, "\n") == 1
		if !oneLine || !strings.Contains(got, says) || strings.Contains(got, "SECRET") {
			t.Errorf("with the GRIP_URL %q the origin prints\n%s", gripURL, got)
		}
	}
}

// TestOriginInstall installs the libraries of an origin, in a directory whose name careless programs
// do not handle. They are installed once, and again when the lock file has changed or the last
// installation failed. Then the command starts the origin.
func TestOriginInstall(t *testing.T) {
	t.Parallel()
	for lock, files := range map[string]map[string]string{
		"package-lock.json": {
			"package.json": `{"scripts": {"start": "node main.js"}, "dependencies": {"y": "file:y"}}`,
			"package-lock.json": `{"lockfileVersion": 3, "packages": {"": {"dependencies": {"y": "file:y"}},
				"node_modules/y": {"resolved": "y", "link": true}, "y": {"version": "1.0.0"}}}`,
			"y/package.json": `{"name": "y", "version": "1.0.0"}`,
			"y/index.js":     `console.log("started")`,
			"main.js":        `require("y")`,
		},
		"requirements.txt": {"requirements.txt": "#", "app.py": `print("started")`},
	} {
		t.Run(lock, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "my örigin's")
			write := func(name, content string) {
				path := filepath.Join(dir, name)
				os.MkdirAll(filepath.Dir(path), 0o755)
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for name, content := range files {
				write(name, content)
			}
			origin := findOrigin(t, dir)
			for _, tt := range []struct {
				lock            string
				installs, fails bool
			}{
				{files[lock], true, false},
				{"", false, false}, // unchanged
				{"neither JSON nor a requirement", true, true},
				{"", true, true},
				{files[lock] + "\n", true, false},
			} {
				if tt.lock != "" {
					write(lock, tt.lock)
				}
				var progress bytes.Buffer
				cmd, err := origin.Install(t.Context(), &progress)
				if (progress.Len() > 0) != tt.installs || (err != nil) != tt.fails {
					t.Fatalf("with the lock file %q: %v, it printed %s", tt.lock, err, &progress)
				}
				if tt.fails {
					continue
				}
				if out, err := cmd.CombinedOutput(); string(out) != "started\n" {
					t.Errorf("%s: %v, %s", cmd, err, out)
				}
			}
		})
	}
}
