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
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
	"compute-starter-kit-go-fanout-forward/testdata/local"
	"compute-starter-kit-go-fanout-forward/testdata/origins"
)

// testOrigins runs each of the origins in other languages behind the app, and then one of them with `make demo ORIGIN=`.
func testOrigins(t *testing.T, p *project, app *local.Process) {
	dir := ""
	for _, name := range origins.Ours {
		t.Run(name, func(t *testing.T) {
			dir = filepath.Join("..", "origins", name)
			origin := findOrigin(t, dir)
			defer startOrigin(t, origin, p.Origin, p.GripURL(), p.log).Stop()
			t.Run("messages", func(t *testing.T) { testMessages(t, p) })
			t.Run("echo", func(t *testing.T) { testOriginEcho(t, p) })
			t.Run("refusals", func(t *testing.T) {
				testRefusals(t, p, "GET /events", "GET /poll", "POST /socket")
				if got := fetch(t, "POST", p.url("/publish"), "hello", "Origin", "https://example.com"); got.status != http.StatusForbidden {
					t.Errorf("a page published and got status %d", got.status)
				}
			})
			t.Run("production", func(t *testing.T) {
				const advice = "check GRIP_URL and its key, and that the proxy runs"
				log := &logBuffer{}
				testProduction(t, log, func(addr, gripURL, verifyKey string) {
					gripURL += "&verify-key=base64:" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(verifyKey)))
					startOrigin(t, origin, addr, gripURL, log)
				}, "401.*"+advice, "(fetch failed|Max retries exceeded).*"+advice)
			})
			t.Run("GRIP_URL", func(t *testing.T) { testOriginGripURL(t, origin) })
		})
	}
	t.Run("make demo ORIGIN=", func(t *testing.T) {
		findOrigin(t, dir)
		app.Stop()
		dir, err := filepath.Abs(dir)
		if err != nil {
			t.Fatal(err)
		}
		startDemo(t, p, "ORIGIN="+dir, "ARGS=--skip-build")
		if got := fetch(t, "GET", p.url("/"), ""); !strings.Contains(got.body, "<title>Fanout with Python</title>") {
			t.Errorf("the page is %s", got.body)
		}
	})
}

// findOrigin returns the origin in dir. If this machine cannot run it, it skips the test.
func findOrigin(t *testing.T, dir string) origins.Origin {
	t.Helper()
	origin, err := origins.Find(t.Context(), dir)
	if err != nil {
		skipOrFail(t, "an origin is NOT TESTED: %s", strings.ReplaceAll(err.Error(), dir, filepath.Base(dir)))
	}
	return origin
}

// startOrigin starts an installed origin. It waits until the origin listens at addr, or ends.
func startOrigin(t *testing.T, origin origins.Origin, addr, gripURL string, out io.Writer) *local.Process {
	t.Helper()
	cmd, err := origin.Install(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(addr, ":")
	cmd.Env = append(os.Environ(), "GRIP_URL="+gripURL, "PORT="+port)
	cmd.Stdout, cmd.Stderr = out, out
	process, err := local.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Stop)
	process.WaitForListener(t.Context(), addr)
	return process
}

// A message that is published over HTTP reaches an event stream, a WebSocket, a long-poll, and the page in a browser.
func testMessages(t *testing.T, p *project) {
	const text = "<b>hello</b> wörld ☃"
	ctx, cancel := context.WithCancel(withPatience(t))
	defer cancel()
	events, conn := open(t, ctx, p.url("/events")), dialSocket(t, ctx, p, "")
	events.until("event: start")
	got := make(chan string)
	receive := func(where string, next func() string) { go func() { got <- where + " " + next() }() }
	receive("events", func() string {
		for events.Scan() && (events.Text() == "" || events.Text() == "data:") { // the rest of the first event
		}
		return strings.TrimPrefix(events.Text(), "data: ")
	})
	receive("socket", func() string {
		_, message, _ := conn.Read(ctx)
		return string(message)
	})
	receive("poll", func() string { return strings.TrimSuffix(fetch(t, "GET", p.url("/poll"), "").body, "\n") })
	waiting := 3
	if path, err := local.Browser(ctx); err == nil { // otherwise TestLive/page reports this, and fails in CI
		waiting++
		browser := newBrowser(t, path)
		if err := chromedp.Do(browser, chromedp.Navigate(p.url("/"))); err != nil {
			t.Fatal(err)
		}
		receive("page", func() string {
			err := chromedp.Do(browser, chromedp.PollFunction[chromedp.Void](`(text) => document.querySelector('#messages li')?.textContent === text`,
				chromedp.WithPollingArgs(text), chromedp.WithPollingTimeout(patience)))
			if err != nil {
				return err.Error()
			}
			return text
		})
	}
	// Publish again and again: these origins store nothing for a client whose subscription has not started yet.
	for waiting > 0 {
		if answer := fetch(t, "POST", p.url("/publish"), text); answer.status != http.StatusOK || answer.body != "published\n" {
			t.Fatalf("publish: status %d, %s", answer.status, answer.body)
		}
		select {
		case message := <-got:
			if waiting--; !strings.HasSuffix(message, " "+text) {
				t.Errorf("got %q", message)
			}
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the published message does not arrive at %d of the clients", waiting)
		}
	}
}

// A WebSocket echoes text and binary messages with any content, and closes with the client's code.
func testOriginEcho(t *testing.T, p *project) {
	ctx := withPatience(t)
	conn := dialSocket(t, ctx, p, "channel=echo")
	for _, text := range []string{"hello", `c:{"type":"detach"}`, "wörld ☃", ""} { // c: begins a control message for the proxy
		if got := talk(ctx, conn, text); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	if err := conn.Write(ctx, websocket.MessageBinary, []byte("\x00\xff\r\n")); err != nil {
		t.Fatal(err)
	}
	if kind, got, err := conn.Read(ctx); err != nil || kind != websocket.MessageBinary || string(got) != "\x00\xff\r\n" {
		t.Errorf("binary came back as %v %q, %v", kind, got, err)
	}
	if err := conn.Close(4321, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

// The origin holds only requests from the proxy.
func testRefusals(t *testing.T, p *project, targets ...string) {
	key := []byte("viceroy_dev_signing_key_dont_use_in_production")
	for name, sig := range map[string]string{
		"none":           "",
		"nonsense":       "nonsense",
		"another key":    sign(t, jwt.SigningMethodHS256, []byte("another key, of 32 bytes or more"), "viceroy", time.Minute),
		"another issuer": sign(t, jwt.SigningMethodHS256, key, "me", time.Minute),
		"expired":        sign(t, jwt.SigningMethodHS256, key, "viceroy", -time.Minute),
		"unsigned":       sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "viceroy", time.Minute),
	} {
		for _, target := range targets {
			method, path, _ := strings.Cut(target, " ")
			got := fetch(t, method, "http://"+p.Origin+path, "OPEN\r\n", "Grip-Sig", sig, "Content-Type", grip.EventsType, "Connection-Id", "1")
			if got.status != http.StatusForbidden {
				t.Errorf("%s, signature %s: got status %d", target, name, got.status)
			}
		}
	}
	// The app adds no signature to the requests that it forwards.
	if got := fetch(t, "POST", p.url("/socket"), "OPEN\r\n", "Grip-Sig", "forged", "Content-Type", grip.EventsType); got.status != http.StatusForbidden {
		t.Errorf("a WebSocket's events, forwarded by the app: got status %d", got.status)
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
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return private, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// The origin works with Fanout, which signs with a private key, and accepts messages from those who have a token. If
// publishing fails, the client learns that, and the log has one line with the cause, refused or down, but not the token.
// start starts the origin at addr, with a GRIP_URL and the public key.
func testProduction(t *testing.T, log *logBuffer, start func(addr, gripURL, verifyKey string), refused, down string) {
	private, public := newKey(t)
	var status atomic.Int32
	status.Store(http.StatusOK)
	requests := make(chan string, 10)
	publisher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")
		w.WriteHeader(int(status.Load()))
	}))
	defer publisher.Close()
	addr := loopback(freePorts(t, 1))
	before := strings.Count(log.String(), "TOKEN")
	start(addr, publisher.URL+"/service/ID?key=TOKEN&verify-iss=fastly:ID", public)

	get := func(sig string) answer { return fetch(t, "GET", "http://"+addr+"/events", "", grip.HeaderSig, sig) }
	if got := get(sign(t, jwt.SigningMethodES256, private, "fastly:ID", time.Minute)); got.status != 200 || got.header.Get(grip.HeaderHold) != "stream" {
		t.Errorf("signed by Fanout: got status %d", got.status)
	}
	for name, sig := range map[string]string{
		"the public key as a secret": sign(t, jwt.SigningMethodHS256, []byte(public), "fastly:ID", time.Minute),
		"another service's issuer":   sign(t, jwt.SigningMethodES256, private, "fastly:ANOTHER", time.Minute),
		"the local Pushpin's key":    sign(t, jwt.SigningMethodHS256, []byte("viceroy_dev_signing_key_dont_use_in_production"), "viceroy", time.Minute),
	} {
		if got := get(sig); got.status != http.StatusForbidden || got.header.Get(grip.HeaderHold) != "" {
			t.Errorf("signed with %s: got status %d", name, got.status)
		}
	}

	publish := func() answer { return fetch(t, "POST", "http://"+addr+"/publish", "hello") }
	if got := publish(); got.status != http.StatusOK {
		t.Errorf("publish: status %d, %s", got.status, got.body)
	}
	if got := <-requests; got != "POST /service/ID/publish/ Bearer TOKEN" {
		t.Errorf("the publish request was %s", got)
	}
	status.Store(http.StatusUnauthorized)
	if got := publish(); got.status != http.StatusBadGateway {
		t.Errorf("refused: status %d, %s", got.status, got.body)
	}
	log.wait(t, refused, nil, patience)
	publisher.Close()
	if got := publish(); got.status != http.StatusBadGateway || strings.Contains(got.body, "127.0.0.1") {
		t.Errorf("down: status %d, %s", got.status, got.body)
	}
	log.wait(t, down, nil, patience)
	if strings.Count(log.String(), "TOKEN") > before {
		t.Errorf("the log has the token:\n%s", log)
	}
}

// If GRIP_URL is not valid, has no key to check signatures, or a public key without an issuer, the origin ends at once.
// It says why, without a secret.
func testOriginGripURL(t *testing.T, origin origins.Origin) {
	_, public := newKey(t)
	for gripURL, says := range map[string]string{
		"":       "the http or https URL of a GRIP proxy",
		"SECRET": "the http or https URL of a GRIP proxy",
		"http://localhost:SECRET/?verify-key=SECRET": "the http or https URL of a GRIP proxy",
		"http://localhost:5561/?key=SECRET":          "have a verify-key",
		"http://localhost:5561/?key=SECRET&verify-key=base64:" + base64.URLEncoding.EncodeToString([]byte(public)): "have a verify-iss",
	} {
		out := &logBuffer{}
		select {
		case <-startOrigin(t, origin, loopback(freePorts(t, 1)), gripURL, out).Done():
		default:
			t.Errorf("the origin runs with the GRIP_URL %q", gripURL)
		}
		got := out.String()
		if !strings.HasPrefix(got, "GRIP_URL must ") || !strings.Contains(got, says) || strings.Count(got, "\n") != 1 || strings.Contains(got, "SECRET") {
			t.Errorf("with the GRIP_URL %q the origin prints\n%s", gripURL, got)
		}
	}
}

// TestOriginInstall installs the libraries of an origin. They are installed once, and again when the lock file changes.
// After a failed installation, the next one tries again. Then the command starts the origin.
func TestOriginInstall(t *testing.T) {
	t.Parallel()
	for lock, files := range map[string]map[string]string{
		"package-lock.json": {
			"package.json": `{"name": "x", "scripts": {"start": "node main.js"}, "dependencies": {"y": "file:y"}}`,
			"package-lock.json": `{"name": "x", "lockfileVersion": 3, "packages": {"": {"name": "x", "dependencies": {"y": "file:y"}},
				"node_modules/y": {"resolved": "y", "link": true}, "y": {"version": "1.0.0"}}}`,
			"y/package.json": `{"name": "y", "version": "1.0.0"}`,
			"y/index.js":     `module.exports = "started"`,
			"main.js":        `console.log(require("y"))`,
		},
		"requirements.txt": {"requirements.txt": "", "app.py": `print("started")`},
	} {
		t.Run(lock, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "my örigin's") // a careless program does not handle such a path
			at := time.Now()
			write := func(name, content string) {
				t.Helper()
				path := filepath.Join(dir, name)
				err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, at, at))
				if err != nil {
					t.Fatal(err)
				}
			}
			for name, content := range files {
				write(name, content)
			}
			origin := findOrigin(t, dir)
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
			at = at.Add(time.Minute) // npm compares times
			write(lock, "neither JSON nor a requirement")
			for range 2 {
				if _, err := origin.Install(t.Context(), io.Discard); err == nil {
					t.Error("it installed from a malformed file")
				}
			}
			write(lock, files[lock]+"\n")
			install(true)
		})
	}
}
