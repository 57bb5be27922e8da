package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

// TestOrigins runs the origins with a library, as their READMEs say, behind the app.
func TestOrigins(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	p := newProject(t)
	p.serve(t)
	for _, name := range []string{"node", "python"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(p.dir, "testdata/origins", name)
			script := blocks(t, filepath.Join(dir, "README.md"))[0].text
			script = strings.ReplaceAll(strings.TrimSpace(script), " && ", "\n")
			last := strings.LastIndex(script, "\n") // the command after it starts the origin
			sh(t, p.dir, script[:last])
			run := func(addr string, env ...string) *program {
				_, port, _ := strings.Cut(addr, ":")
				return start(t, dir, append(env, "PORT="+port), "sh", "-c", script[last:])
			}

			run(p.origin, "GRIP_URL="+p.gripURL())
			eventually(t, "the origin listens", func() bool { return listens(p.origin) })
			const text = "<b>hello</b> wörld ☃"
			p.checkMessages(t, func() { p.fetch(t, "POST", "/publish", text) }, map[string]string{
				"/events": "\ndata: " + text + "\n",
				"/poll":   "^" + text + "\n$",
				"/socket": "^" + text + "$",
			})
			checkEcho(t, p.site)
			testProduction(t, p, run)
		})
	}
}

// With a GRIP_URL that would let anybody in, the origin does not start. It holds what a stand-in for
// Fanout has signed. If publishing fails, the client and the log say so, without the token.
func testProduction(t *testing.T, p *project, run func(string, ...string) *program) {
	fanout := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/service/ID/publish/" || r.Header.Get("Authorization") != "Bearer SECRET" ||
			strings.Contains(string(body), "refuse") {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer fanout.Close()
	private, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.MarshalPKIXPublicKey(&private.PublicKey)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	key := "GRIP_VERIFY_KEY=base64:" + base64.StdEncoding.EncodeToString(public)
	gripURL := "GRIP_URL=" + fanout.URL + "/service/ID?key=SECRET&verify-iss=fastly:ID"
	addr := loopback(freePorts(t, 1))
	refused := []*program{
		run(addr, gripURL),
		run(addr, "GRIP_URL=http://localhost/?key=SECRET", key),
		run(addr, "GRIP_URL=http://localhost:SECRET/", key),
	}
	for i, want := range []string{"have a verify-key", "have a verify-iss", "be the http"} {
		refused[i].wait(t, "GRIP_URL must .*"+want)
	}

	origin := run(addr, gripURL, key)
	eventually(t, "the origin listens", func() bool { return listens(addr) })
	check := func(want int, method, target, body string, header ...string) {
		t.Helper()
		status, got := site{"http://" + addr}.fetch(t, method, target, body, header...)
		if status != want || strings.Contains(got, "401") {
			t.Errorf("%s %s %q, %q: got %d, %q, want %d", method, target, body, header, status, got, want)
		}
	}
	valid := jwt.MapClaims{"iss": "fastly:ID", "exp": 1 << 40}
	another := jwt.MapClaims{"iss": "fastly:ANOTHER", "exp": 1 << 40}
	for sig, want := range map[string]int{
		signToken("ES256", private, valid):   200,
		signToken("ES256", private, another): 403,
		signToken("HS256", public, valid):    403, // with the key that everybody knows
		"":                                   403,
	} {
		header := []string{"Grip-Sig", sig, "Connection-Id", "1",
			"Content-Type", grip.EventsType, "Accept", grip.EventsType}
		check(want, "GET", "/events", "", header...)
		check(want, "GET", "/poll", "", header...)
		check(want, "POST", "/socket", "OPEN\r\n", header...)
	}
	check(403, "POST", "/publish", "hello", "Origin", "https://example.com")
	check(200, "POST", "/publish", "hello")
	check(502, "POST", "/publish", "refuse")
	const advice = "check GRIP_URL and its key, and that the proxy runs"
	origin.wait(t, "401.*"+advice+"|"+advice+".*401")
	for _, p := range append(refused, origin) {
		if strings.Contains(p.output(), "SECRET") {
			t.Errorf("the token is in the log:\n%s", p.tail())
		}
	}
}
