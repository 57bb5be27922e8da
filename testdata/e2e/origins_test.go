package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// TestOrigins runs the origins in origins, as their READMEs say, behind the app.
func TestOrigins(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.serve(t)
	const text = "<b>hello</b> wörld ☃"
	want := map[string]string{
		"/events": "\ndata: " + text + "\n",
		"/poll":   "^" + text + "\n$",
		"/socket": "^" + text + "$",
	}
	t.Run("go", func(t *testing.T) { // it has no more than the README needs
		p.startOrigin(t, p.log, "go -C testdata run ./origins/go", p.origin, "GRIP_URL="+p.gripURL())
		eventually(t, "the origin listens", func() bool { return listens(p.origin) })
		p.checkMessages(t, func() { p.publishDirectly(t, text) }, want)
	})
	for _, name := range []string{"node", "python"} {
		t.Run(name, func(t *testing.T) {
			command := p.installOrigin(t, name)
			p.startOrigin(t, p.log, command, p.origin, "GRIP_URL="+p.gripURL())
			eventually(t, "the origin listens", func() bool { return listens(p.origin) })
			p.checkMessages(t, func() { p.fetch(t, "POST", "/publish", text) }, want)
			checkEcho(t, p.site)
			testProduction(t, p, command)
		})
	}
}

// installOrigin runs the commands in the README of an origin, but for the last one, which starts the
// origin. It returns that one, after the first one, which is cd.
func (p *project) installOrigin(t *testing.T, name string) (command string) {
	t.Helper()
	readme := blocks(t, filepath.Join(p.dir, "testdata/origins", name, "README.md"))
	script := strings.ReplaceAll(strings.TrimSpace(readme[0].text), " && ", "\n")
	commands := strings.Split(script, "\n")
	last := len(commands) - 1
	sh(t, p.dir, strings.Join(commands[:last], "\n"))
	return commands[0] + "\n" + commands[last]
}

// startOrigin runs an origin at addr, with these variables, until the test ends.
func (p *project) startOrigin(t *testing.T, log *logBuffer, command, addr string, env ...string) *program {
	t.Helper()
	_, port, _ := strings.Cut(addr, ":")
	return start(t, log, p.dir, append(env, "PORT="+port), "sh", "-c", command)
}

// The key pair of a stand-in for Fanout.
var private, _ = ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte("a private key for tests, 32 byte"))

const public = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETCXHb3KMCQ4DWDA6kqm/rZJFdReu
GjuqV8OLTJu6nHeTSziqSgMFuRc3k89vt0Tg+Kwu6sCiYgwp2UqSP2bHcw==
-----END PUBLIC KEY-----
`

// The origin works with a stand-in for Fanout: it holds only what that has signed, and publishes with
// a token. If publishing fails, the client learns that, and the log has advice. With a GRIP_URL that
// would let anybody in, the origin does not start. It never prints the token.
func testProduction(t *testing.T, p *project, command string) {
	fanout := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")
		if got != "POST /service/ID/publish/ Bearer SECRET" || strings.Contains(string(body), "refuse") {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer fanout.Close()
	log, addr := &logBuffer{}, loopback(freePorts(t, 1))
	for _, tt := range []struct{ gripURL, key, says string }{
		{"http://localhost:SECRET/", "", "the http or https URL of a GRIP proxy"},
		{"http://localhost:5561/?key=SECRET", "", "have a verify-key"},
		{"http://localhost:5561/?key=SECRET", public, "have a verify-iss"},
	} {
		o := p.startOrigin(t, log, command, addr, "GRIP_URL="+tt.gripURL, "GRIP_VERIFY_KEY="+tt.key)
		o.wait(t, "GRIP_URL must .*"+tt.says)
		o.end(t)
	}
	p.startOrigin(t, log, command, addr, "GRIP_URL="+fanout.URL+"/service/ID?key=SECRET&verify-iss=fastly:ID",
		"GRIP_VERIFY_KEY=base64:"+base64.StdEncoding.EncodeToString([]byte(public)))
	eventually(t, "the origin listens", func() bool { return listens(addr) })
	want := func(status int, request, body string, header ...string) {
		t.Helper()
		method, target, _ := strings.Cut(request, " ")
		got := site{"http://" + addr}.fetch(t, method, target, body, header...)
		if got.status != status || strings.Contains(got.body, "127.0.0.1") {
			t.Errorf("%s %q, %q: got %+v, want %d", request, body, header, got, status)
		}
	}
	sign := func(alg string, key any, issuer string, life time.Duration) string {
		return signToken(alg, key, jwt.MapClaims{"iss": issuer, "exp": time.Now().Add(life).Unix()})
	}
	for sig, status := range map[string]int{
		sign("ES256", private, "fastly:ID", time.Hour):                         200,
		sign("ES256", private, "fastly:ANOTHER", time.Hour):                    403,
		sign("ES256", private, "fastly:ID", -time.Minute):                      403,
		sign("HS256", []byte(public), "fastly:ID", time.Hour):                  403,
		sign("none", jwt.UnsafeAllowNoneSignatureType, "fastly:ID", time.Hour): 403,
		"": 403,
	} {
		for _, request := range []string{"GET /events", "GET /poll", "POST /socket"} {
			want(status, request, "OPEN\r\n", "Grip-Sig", sig, "Connection-Id", "1",
				"Content-Type", grip.EventsType, "Accept", grip.EventsType)
		}
	}
	want(403, "POST /publish", "hello", "Origin", "https://example.com")
	want(200, "POST /publish", "hello")
	want(502, "POST /publish", "refuse")
	const advice = "check GRIP_URL and its key, and that the proxy runs"
	log.wait(t, "401.*"+advice+"|"+advice+".*401", nil)
	if strings.Contains(log.String(), "SECRET") {
		t.Errorf("the log has the token:\n%s", log)
	}
}
