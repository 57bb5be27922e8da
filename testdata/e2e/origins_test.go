package e2e

import (
	"bytes"
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
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// TestOrigins runs the origins in origins, as their READMEs say, behind the app.
func TestOrigins(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.serve(t)
	for _, name := range []string{"go", "node", "python"} {
		t.Run(name, func(t *testing.T) {
			o := installOrigin(t, p, name)
			o.run(t, p.origin, p.gripURL())
			t.Run("messages", func(t *testing.T) { testMessages(t, p, name == "go") })
			if name == "go" {
				return // it has no more than the README needs
			}
			t.Run("echo", func(t *testing.T) { testOriginEcho(t, p) })
			t.Run("refusals", func(t *testing.T) { testRefusals(t, p) })
			t.Run("production", func(t *testing.T) { testProduction(t, o, "check GRIP_URL and its key, and that the proxy runs") })
			t.Run("GRIP_URL", func(t *testing.T) { testOriginGripURL(t, o) })
		})
	}
	t.Run("the demo's", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "origin")
		sh(t, ".", `go build -o "$1" ../origin`, path)
		o := origin{".", path, p.log}
		o.run(t, p.origin, p.gripURL())
		testRefusals(t, p)
		testProduction(t, o, "publish")
	})
}

// origin is an origin that is installed: in dir, a shell command starts it.
type origin struct {
	dir, command string
	log          *logBuffer
}

// installOrigin runs the commands in the README of an origin, but for the last one, which starts it.
func installOrigin(t *testing.T, p *project, name string) origin {
	t.Helper()
	if name == "go" {
		return origin{p.dir, "go -C testdata run ./origins/go", p.log}
	}
	readme := blocks(t, filepath.Join(p.dir, "testdata/origins", name, "README.md"))
	script := strings.ReplaceAll(strings.TrimSpace(readme[0].text), " && ", "\n")
	commands := strings.Split(script, "\n") // the first is cd
	last := len(commands) - 1
	sh(t, p.dir, strings.Join(commands[:last], "\n"))
	return origin{filepath.Join(p.dir, strings.TrimPrefix(commands[0], "cd ")), commands[last], p.log}
}

func (o origin) start(t *testing.T, addr, gripURL string) *program {
	t.Helper()
	_, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command("sh", "-c", o.command)
	cmd.Dir, cmd.Env = o.dir, append(os.Environ(), "GRIP_URL="+gripURL, "PORT="+port)
	return start(t, o.log, cmd)
}

// run starts the origin and waits until it listens at addr.
func (o origin) run(t *testing.T, addr, gripURL string) {
	t.Helper()
	o.start(t, addr, gripURL)
	eventually(t, "the origin listens", func() bool { return listens(addr) })
}

// A message reaches an event stream, a WebSocket and a long-poll. It is published again and again,
// because these origins store nothing for a client whose subscription has not started yet.
func testMessages(t *testing.T, p *project, direct bool) {
	const text = "<b>hello</b> wörld ☃"
	ctx := withPatience(t)
	events, conn := p.open(t, "/events"), p.socket(t, "")
	got := make(chan string, 3)
	go func() {
		for events.Scan() && events.Text() != "data: "+text {
		}
		got <- "an event stream: " + strings.TrimPrefix(events.Text(), "data: ")
	}()
	go func() {
		_, message, err := conn.Read(ctx)
		if err != nil {
			message = []byte(err.Error())
		}
		got <- "a WebSocket: " + string(message)
	}()
	go func() {
		body := []byte{}
		if resp, err := p.do(ctx, "GET", "/poll", ""); err == nil {
			body, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		got <- "a long-poll: " + strings.TrimSpace(string(body))
	}()
	for missing := 3; missing > 0; {
		select {
		case received := <-got:
			if missing--; !strings.HasSuffix(received, ": "+text) {
				t.Errorf("got %q, want %q", received, text)
			}
			continue
		case <-time.After(300 * time.Millisecond):
		}
		if direct {
			p.publish(t, "demo", grip.Formats{
				HTTPStream:   &grip.HTTPStream{Content: "data: " + text + "\n\n"},
				HTTPResponse: &grip.HTTPResponse{Body: text},
				WSMessage:    &grip.WSMessage{Content: text},
			})
		} else if answer := p.fetch(t, "POST", "/publish", text); answer.body != "published\n" {
			t.Fatalf("publish: %+v", answer)
		}
	}
	if err := conn.Close(4321, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

// A WebSocket echoes texts and binary messages with any content.
func testOriginEcho(t *testing.T, p *project) {
	ctx := withPatience(t)
	conn := p.socket(t, "channel=echo")
	for _, text := range []string{`c:{"type":"detach"}`, "wörld ☃", ""} { // c: begins a control message
		if got := talk(ctx, conn, text); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	conn.Write(ctx, websocket.MessageBinary, []byte("\x00\xff\r\n"))
	if kind, got, err := conn.Read(ctx); kind != websocket.MessageBinary || string(got) != "\x00\xff\r\n" {
		t.Errorf("binary came back as %v %q, %v", kind, got, err)
	}
}

// The origin holds only what has a valid signature of the proxy, and refuses pages of other sites.
func testRefusals(t *testing.T, p *project) {
	at := site{"http://" + p.origin}
	u, _ := url.Parse(grip.LocalURL)
	key := []byte(u.Query().Get("verify-key"))
	for _, sig := range []string{
		"",
		sign(t, jwt.SigningMethodHS256, []byte("another key, of 32 bytes or more"), "viceroy", time.Minute),
		sign(t, jwt.SigningMethodHS256, key, "another issuer", time.Minute),
		sign(t, jwt.SigningMethodHS256, key, "viceroy", -time.Minute), // expired
		sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "viceroy", time.Minute),
	} {
		for _, target := range []string{"GET /events", "GET /poll", "POST /socket"} {
			method, path, _ := strings.Cut(target, " ")
			got := at.fetch(t, method, path, "OPEN\r\n", "Grip-Sig", sig, "Content-Type", grip.EventsType)
			if got.status != http.StatusForbidden {
				t.Errorf("%s with the signature %q: got status %d", target, sig, got.status)
			}
		}
	}
	if got := p.fetch(t, "POST", "/publish", "hello", "Origin", "https://example.com"); got.status != http.StatusForbidden {
		t.Errorf("a page of another site published and got status %d", got.status)
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

// verifyKey returns the parameter of a GRIP_URL for a public key.
func verifyKey(public string) string {
	return "&verify-key=base64:" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(public)))
}

// The origin works with a stand-in for Fanout, which signs with a private key, and accepts messages
// from those who have a token. If publishing fails, the client learns that, and the log has one line
// with advice, but not the token.
func testProduction(t *testing.T, o origin, advice string) {
	private, public := newKey(t)
	publisher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")
		if got != "POST /service/ID/publish/ Bearer SECRET" || bytes.Contains(body, []byte("refuse")) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer publisher.Close()
	o.log = &logBuffer{}
	addr := loopback(freePorts(t, 1))
	at := site{"http://" + addr}
	gripURL := publisher.URL + "/service/ID?key=SECRET&verify-iss=fastly:ID" + verifyKey(public)
	o.run(t, addr, gripURL)

	for sig, want := range map[string]int{
		sign(t, jwt.SigningMethodES256, private, "fastly:ID", time.Minute):        200,
		sign(t, jwt.SigningMethodES256, private, "fastly:ANOTHER", time.Minute):   403,
		sign(t, jwt.SigningMethodHS256, []byte(public), "fastly:ID", time.Minute): 403,
	} {
		if got := at.fetch(t, "GET", "/events", "", "Grip-Sig", sig).status; got != want {
			t.Errorf("signed with %s: got status %d, want %d", sig, got, want)
		}
	}
	publish := func(text string, want int) {
		t.Helper()
		got := at.fetch(t, "POST", "/publish", text)
		if got.status != want || strings.Contains(got.body, "127.0.0.1") {
			t.Errorf("publish: got %+v, want %d", got, want)
		}
	}
	publish("hello", 200)
	publish("refuse", 502)
	o.log.wait(t, "401.*"+advice+"|"+advice+".*401", nil)
	publisher.Close()
	publish("hello", 502)
	o.log.wait(t, advice, nil)
	if strings.Contains(o.log.String(), "SECRET") {
		t.Errorf("the log has the token:\n%s", o.log)
	}
}

// If GRIP_URL is not valid, has no key to check signatures, or a public key without an issuer, the
// origin ends at once. It says why, without a secret.
func testOriginGripURL(t *testing.T, o origin) {
	_, public := newKey(t)
	const good = "http://localhost:5561/?key=SECRET"
	for gripURL, says := range map[string]string{
		"nonsense": "the http or https URL of a GRIP proxy",
		"http://localhost:SECRET/?verify-key=SECRET": "the http or https URL of a GRIP proxy",
		good:                     "have a verify-key",
		good + verifyKey(public): "have a verify-iss",
	} {
		o.log = &logBuffer{}
		o.start(t, loopback(freePorts(t, 1)), gripURL).end(t)
		got := o.log.String()
		if i := strings.Index(got, "GRIP_URL must "); i < 0 || !strings.Contains(got[i:], says) || strings.Contains(got, "SECRET") {
			t.Errorf("with the GRIP_URL %q the origin prints\n%s", gripURL, got)
		}
	}
}
