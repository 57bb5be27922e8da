package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

const (
	change   = "Change what is handed off"
	token    = "Let in only users with a valid token"
	identity = "Tell the origin who the client is"
	edge     = "Answer at the edge"
)

// recipeBases are the recipes that come first, without what they insert before a line.
var recipeBases = map[string][]string{identity: {change, token}, edge: {change}}

// recipeTests test the recipes that are more than a condition, behind the real Pushpin.
var recipeTests = map[string]func(*testing.T, *app){
	"PURGE with a token":               testPurge,
	change:                             testChange,
	token:                              testToken,
	identity:                           testIdentity,
	edge:                               testEdge,
	"The origin is a WebSocket server": testSocketServer,
}

// TestRecipes applies each recipe to a new project, exactly as it is printed, and runs the project's
// own tests, which send the requests of the recipe's table to the handler.
func TestRecipes(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	recipes := map[string][]block{}
	for _, b := range blocks(t, "../recipes.md") {
		recipes[b.section] = append(recipes[b.section], b)
	}
	for name := range recipeTests {
		if recipes[name] == nil {
			t.Errorf("recipes.md does not have the recipe %q", name)
		}
	}
	for name := range recipes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t)
			for _, source := range append(recipeBases[name], name) {
				for _, b := range recipes[source] {
					if source == name || !strings.Contains(b.intro, "n `main.go`, before ") {
						p.apply(t, b)
					}
				}
			}
			sh(t, p.dir, `test -z "$(gofmt -l .)"; go test -vet=all .`)
			test := recipeTests[name]
			if test == nil {
				return
			}
			// Viceroy has no cache. Pass tells whether a request would bypass one.
			const send = "\tkeepRawPath(r.URL)\n"
			p.edit(t, "main.go", send, send+"r.Header.Set(`Pass`, fmt.Sprint(r.CacheOptions.Pass))\n")
			p.set(t, "local_server.fake_valid_fastly_keys", []string{"valid"})
			a := newApp(t, p)
			a.checkTable(t)
			test(t, a)
		})
	}
}

// place matches the line before a block of Go: where in main.go the block goes, unless it is a new
// file; the line of main.go or the file; and a command.
var place = regexp.MustCompile("n (?:`main.go`, (.*)|a new file,) `(.+?)`(?:, and then run `(.+)`)?:$")

// apply puts a block of a recipe into the project.
func (p *project) apply(t *testing.T, b block) {
	t.Helper()
	where := place.FindStringSubmatch(b.intro)
	switch {
	case b.lang == "text":
		p.write(t, "testdata/handoffs.txt", b.text)
	case b.lang == "toml":
		sh(t, p.dir, `printf '\n%s' "$1" >>fastly.toml`, b.text)
	case where == nil:
		t.Fatalf("%s does not say where the block after this line goes: %s", b.path, b.intro)
	case where[1] == "at the TODO, in place of":
		p.withCondition(t, b.text)
	case where[1] == "in place of":
		p.edit(t, "main.go", where[2], strings.TrimSpace(b.text))
	case where[1] == "before":
		p.edit(t, "main.go", "\t"+where[2], b.text+"\t"+where[2])
	default:
		p.write(t, where[2], b.text)
		sh(t, p.dir, where[3])
	}
}

func testPurge(t *testing.T, a *app) {
	a.check(t, row{"origin", "PURGE", "/", "Fastly-Key: valid"})
}

// The origin gets the header and the path of the app with what is handed off, and with what is
// not. The client's own header never arrives. What Fanout gets does not come from the cache.
func testChange(t *testing.T, a *app) {
	for _, r := range []row{
		{"fanout", "GET", "/%78?y", "Edge: forged"},
		{"fanout", "GET", "/%78?y", "Connection: Edge, Grip-Sig"},
		{"fanout", "GET", "/%78?y", "Upgrade: websocket"},
		{"fanout", "HEAD", "/%78?y", "Edge: forged"},
		{"origin", "GET", "/%78?y", "Edge: forged\r\nGrip-Sig: forged"},
		{"origin", "POST", "/%78?y", "Edge: forged\r\nConnection: Edge"},
	} {
		got := a.check(t, r)
		isCached := r.to == "fanout" && got.header.Get("Pass") != "true"
		if isCached || !strings.HasSuffix(got.line, " /v2/x?y HTTP/1.1") ||
			!slices.Equal(got.header["Edge"], []string{"0"}) {
			t.Errorf("%v: %+v arrived", r, got)
		}
	}
}

// tokenKey is the key in the recipe.
var tokenKey = []byte("for-local-use-only-and-32-bytes-or-more")

// tokenFor returns a token for a user that expires after life.
func tokenFor(user string, life time.Duration) string {
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(life).Unix()}
	return signToken("HS256", tokenKey, claims)
}

func signToken(alg string, key any, claims jwt.MapClaims) string {
	token := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims)
	signed, _ := token.SignedString(key) // cannot fail with these keys
	return signed
}

// A request with a valid token is handed off. One with any other token is not. A token never gets
// into the log.
func testToken(t *testing.T, a *app) {
	a.check(t, row{"401", "HEAD", "/", ""})
	ann := tokenFor("ann", time.Hour)
	a.check(t, row{"fanout", "GET", "/?token=" + ann, ""})
	a.check(t, row{"fanout", "GET", "/?x&token=" + ann, "Upgrade: websocket"})
	a.check(t, row{"fanout", "GET", "/", "Cookie: a=b; token=" + ann})
	a.check(t, row{"fanout", "GET", "/?token=" + ann, "Cookie: token=x"}) // the query comes first
	a.check(t, row{"401", "GET", "/?token=x", "Cookie: token=" + ann})

	valid := jwt.MapClaims{"sub": "ann", "exp": 1 << 40}
	for what, token := range map[string]string{
		"expired":     tokenFor("ann", -time.Second),
		"without-exp": signToken("HS256", tokenKey, jwt.MapClaims{"sub": "ann"}),
		"without-sub": signToken("HS256", tokenKey, jwt.MapClaims{"exp": 1 << 40}),
		"another-key": signToken("HS256", tokenKey[1:], valid),
		"alg-HS512":   signToken("HS512", tokenKey, valid),
		"alg-none":    signToken("none", jwt.UnsafeAllowNoneSignatureType, valid),
	} {
		a.check(t, row{"401", "GET", "/" + what, "Cookie: token=" + token})
		if strings.Contains(a.app.output(), token) {
			t.Errorf("the log has the token %s", what)
		}
	}
}

// The header User is the app's, whatever the client sends, in all that arrives for a client.
func testIdentity(t *testing.T, a *app) {
	const forged = "User: eve\r\nUSER: eve"
	ann, bob := tokenFor("ann", time.Hour), tokenFor("bob", time.Hour)
	for token, user := range map[string]string{ann: "ann", bob: "bob"} {
		for _, r := range []row{
			{"fanout", "GET", "/next?token=" + token, forged},
			{"fanout", "GET", "/next?token=" + token, forged + "\r\nUpgrade: websocket"},
			{"fanout", "GET", "/next?token=" + token, forged + "\r\nConnection: User, Grip-Sig"},
			{"origin", "GET", "/next?token=" + token, forged + "\r\nGrip-Sig: forged"},
			{"origin", "POST", "/next?token=" + token, forged},
		} {
			checkUser(t, a.check(t, r), user)
			// Clients without a valid token share sandboxes with the others.
			checkUser(t, a.check(t, row{"origin", "POST", "/", forged}))
			checkUser(t, a.check(t, row{"origin", "POST", "/?token=" + token + "x", forged}))
		}
	}
	a.check(t, row{"401", "POST", "/?token=" + tokenFor("ann", -time.Second),
		"Grip-Sig: forged\r\nContent-Type: " + grip.EventsType})
}

// checkUser checks that a request has the header once, with this user, and bypasses the cache, or
// that it does not have the header.
func checkUser(t *testing.T, got rawMessage, user ...string) {
	t.Helper()
	isCached := user != nil && got.header.Get("Pass") != "true"
	if !slices.Equal(got.header["User"], user) || isCached {
		t.Fatalf("for %q, %+v arrived", user, got)
	}
}

// The app answers the events of a WebSocket with nothing that the client has sent. Clients get what
// is published, without an origin.
func testEdge(t *testing.T, a *app) {
	a.origin.Close()
	const subscribe = "TEXT 27\r\nc:{\"type\":\"subscribe\",\"channel\":\"demo\"}\r\n"
	for events, answer := range map[string]string{
		"OPEN\r\n":                   "OPEN\r\n" + subscribe,
		subscribe:                    "",
		"TEXT 8\r\n\r\nOPEN\r\n\r\n": "",
		"TEXT 2\r\nhi\r\nCLOSE 2\r\n\x0f\xa0\r\n": "CLOSE 2\r\n\x03\xe8\r\n", // 4000, and 1000
	} {
		resp := a.exchange(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: example.com\r\nGrip-Sig: forged\r\n"+
			"Content-Type: application/websocket-events\r\nContent-Length: %d\r\n\r\n%s", len(events), events))
		if resp.body != answer {
			t.Errorf("%q is answered with %+v", events, resp)
		}
	}

	publish := func() {
		a.publish(t, "demo", grip.Formats{
			HTTPStream: &grip.HTTPStream{Content: "one\n"},
			WSMessage:  &grip.WSMessage{Content: "two"},
		})
	}
	a.checkMessages(t, publish, map[string]string{"/": "^one\n$", "/socket": "^two.*StatusNormalClosure"})
}

// After the origin has accepted a WebSocket, all bytes pass between it and the client.
func testSocketServer(t *testing.T, a *app) {
	a.origin.answers <- func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"+
			"Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		io.Copy(conn, conn)
	}
	client := a.send(t, row{"", "GET", "/", "Upgrade: websocket"}.request(""))
	r := bufio.NewReader(client)
	readHead(r)
	const frames = "\x81\x00\x88\x00"
	io.WriteString(client, frames)
	if got, err := r.Peek(len(frames)); string(got) != frames {
		t.Errorf("the client got %q, %v", got, err)
	}
}
