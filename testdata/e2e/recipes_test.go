package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

const (
	recipesPath  = "../recipes.md"
	purge        = "PURGE with a token"
	change       = "Change what is handed off"
	token        = "Let in only users with a valid token"
	identity     = "Tell the origin who the client is"
	edge         = "Answer at the edge"
	socketServer = "The origin is a WebSocket server"
)

// recipeTests are what the table of a recipe cannot say.
var recipeTests = map[string]func(*testing.T, *chain){
	purge:        testPurge,
	change:       testChange,
	token:        testToken,
	identity:     testIdentity,
	edge:         testEdge,
	socketServer: testSocketServer,
}

// recipeBases are the recipes that must be applied first, without what they insert before a line.
var recipeBases = map[string][]string{
	identity: {change, token},
	edge:     {change},
}

// TestRecipes applies each recipe to a new project, exactly as it is printed. The project's own test
// then sends the requests of the recipe's table to the handler. After that, they are sent to the app
// behind the real Pushpin.
func TestRecipes(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	recipes, printed := map[string]bool{}, map[string]bool{}
	for _, b := range blocks(t, recipesPath) {
		recipes[b.section], printed[strings.TrimSpace(b.text)] = true, true
	}
	for _, b := range blocks(t, documents()...) {
		if b.path == readmePath && b.lang == "go" && strings.HasPrefix(b.text, "\t") && !printed[strings.TrimSpace(b.text)] {
			t.Errorf("no recipe has this code of the README, so it is not tested:\n%s", b.text)
		}
	}
	for name := range recipeTests {
		recipes[name] = true // apply fails if recipes.md does not have it
	}
	for name := range recipes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t)
			p.apply(t, name)
			sh(t, p.dir, "go test -vet=all .")
			c := startChain(t, p)
			for _, row := range rows(t, p.dir) {
				if name != edge || row.to != "fanout" { // there, nothing arrives at the origin
					c.check(t, row)
				}
			}
			if test := recipeTests[name]; test != nil {
				test(t, c)
			}
		})
	}
}

// apply applies a recipe to the project. What it makes must be formatted with gofmt.
func (p *project) apply(t *testing.T, recipe string) {
	t.Helper()
	all := blocks(t, recipesPath)
	for _, base := range recipeBases[recipe] {
		for _, b := range all {
			if b.section == base && !strings.Contains(b.intro, "`main.go`, before ") {
				p.applyBlock(t, b)
			}
		}
	}
	all = slices.DeleteFunc(all, func(b block) bool { return b.section != recipe })
	if len(all) == 0 {
		t.Fatalf("%s does not have the recipe %q", recipesPath, recipe)
	}
	for _, b := range all {
		p.applyBlock(t, b)
	}
	p.set(t, []string{"valid"}, "local_server", "fake_valid_fastly_keys")
	if out := sh(t, p.dir, "go fmt ."); out != "" { // prints the files that it changes
		t.Errorf("not formatted with gofmt: %s", out)
	}
}

// applyBlock puts a block into the project. The line before the block says where.
func (p *project) applyBlock(t *testing.T, b block) {
	t.Helper()
	if b.lang == "text" {
		p.write(t, "testdata/handoffs.txt", b.text)
		return
	}
	// What stands in code in that line. The last one often says where.
	var code []string
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(b.intro, -1) {
		code = append(code, match[1])
	}
	switch intro := b.intro; {
	case strings.Contains(intro, "n `main.go`, at the TODO, in place of "):
		p.withCondition(t, b.text)
	case strings.Contains(intro, "n `main.go`, in place of "):
		p.edit(t, "main.go", code[len(code)-1], strings.TrimSpace(b.text))
	case strings.Contains(intro, "n `main.go`, before "):
		line := "\t" + code[len(code)-1] + "\n"
		p.edit(t, "main.go", line, b.text+line)
	case strings.Contains(intro, "n a new file, "):
		p.write(t, code[0], b.text)
		if len(code) == 2 { // a command to run
			sh(t, p.dir, code[1])
		}
	case strings.HasPrefix(intro, "At the end of `fastly.toml`"):
		content, err := os.ReadFile(filepath.Join(p.dir, "fastly.toml"))
		if err != nil {
			t.Fatal(err)
		}
		p.write(t, "fastly.toml", string(content)+"\n"+strings.ReplaceAll(b.text, "localhost:7676", p.addr))
	default:
		t.Fatalf("%s: the line before this block does not say where it goes: %s", b.path, intro)
	}
}

func testPurge(t *testing.T, c *chain) {
	c.check(t, row{"origin", "PURGE", "/", "Fastly-Key: valid"})
}

// The origin gets the header and the path of the app with what is handed off, and with what is
// not. The client's own header never arrives.
func testChange(t *testing.T, c *chain) {
	for _, tt := range []struct{ to, method, header, line string }{
		{"fanout", "GET", "", "GET /v2/x?y HTTP/1.1"},
		{"fanout", "GET", "\r\nConnection: Edge, Grip-Sig", "GET /v2/x?y HTTP/1.1"},
		{"fanout", "HEAD", "", "HEAD /v2/x?y HTTP/1.1"},
		{"fanout", "GET", "\r\nUpgrade: websocket", "POST /v2/x?y HTTP/1.1"},
		{"origin", "GET", "\r\nGrip-Sig: forged", "GET /v2/x?y HTTP/1.1"},
		{"origin", "POST", "", "POST /v2/x?y HTTP/1.1"},
	} {
		got := c.check(t, row{tt.to, tt.method, "/x?y", "Edge: forged" + tt.header})
		if got.line != tt.line || !slices.Equal(got.header["Edge"], []string{"0"}) {
			t.Errorf("%v: %+v arrived", tt, got)
		}
	}
	checkPass(t, c.project)
}

// checkPass checks that what comes back from Fanout does not go through the cache, which Viceroy
// does not have. It runs a test in the project.
func checkPass(t *testing.T, p *project) {
	p.write(t, "pass_test.go", `package main

import (
	"context"
	"testing"

	"github.com/fastly/compute-sdk-go/fsthttp"
	"github.com/fastly/compute-sdk-go/fsttest"
)

func TestPass(t *testing.T) {
	r, _ := fsthttp.NewRequest("GET", "http://example.com/", nil)
	r.Header.Set("Grip-Sig", "x")
	handle(context.Background(), fsttest.NewRecorder(), r)
	if !r.CacheOptions.Pass {
		t.Error("this goes through the cache")
	}
}
`)
	sh(t, p.dir, "go test -run=TestPass .")
}

// tokenKey is the key in the recipe.
var tokenKey = []byte("for-local-use-only-and-32-bytes-or-more")

// signToken returns a token with these claims, signed with this key.
func signToken(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	signed, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func tokenFor(t *testing.T, user string) string {
	t.Helper()
	return signToken(t, jwt.SigningMethodHS256, tokenKey, jwt.MapClaims{"sub": user, "exp": time.Now().Unix() + 3600})
}

// A request with a valid token is handed off. One with any other token is not. A token never gets
// into the log.
func testToken(t *testing.T, c *chain) {
	ann, now := tokenFor(t, "ann"), time.Now().Unix()
	c.check(t, row{"fanout", "GET", "/?token=" + ann, ""})
	c.check(t, row{"fanout", "GET", "/?x&token=" + ann, "Upgrade: websocket"})
	c.check(t, row{"fanout", "HEAD", "/?token=" + ann, ""})
	c.check(t, row{"fanout", "GET", "/", "Cookie: a=b; token=" + ann})
	c.check(t, row{"fanout", "GET", "/?token=" + ann, "Cookie: token=x"})
	c.check(t, row{"401", "GET", "/?token=x&token=" + ann, ""})
	c.check(t, row{"401", "GET", "/?token=x", "Cookie: token=" + ann})

	hs256, valid := jwt.SigningMethodHS256, jwt.MapClaims{"sub": "ann", "exp": now + 3600}
	for what, token := range map[string]string{
		"expired":         signToken(t, hs256, tokenKey, jwt.MapClaims{"sub": "ann", "exp": now - 1}),
		"without exp":     signToken(t, hs256, tokenKey, jwt.MapClaims{"sub": "ann"}),
		"not yet valid":   signToken(t, hs256, tokenKey, jwt.MapClaims{"sub": "ann", "exp": now + 3600, "nbf": now + 1800}),
		"without sub":     signToken(t, hs256, tokenKey, jwt.MapClaims{"exp": now + 3600}),
		"another key":     signToken(t, hs256, tokenKey[1:], valid),
		"no key":          signToken(t, hs256, []byte{}, valid),
		"alg HS512":       signToken(t, jwt.SigningMethodHS512, tokenKey, valid),
		"alg none":        signToken(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, valid),
		"cut short":       tokenFor(t, "eve")[:len(ann)-3],
		"another payload": tokenFor(t, "bob")[:strings.LastIndex(tokenFor(t, "bob"), ".")] + ann[strings.LastIndex(ann, "."):],
	} {
		if c.check(t, row{"401", "GET", "/", "Cookie: token=" + token}); t.Failed() {
			t.Fatalf("the token: %s", what)
		}
		if strings.Contains(c.log.String(), token) {
			t.Errorf("the log has the token: %s", what)
		}
	}
}

// The header User is the app's, whatever the client sends, in all that arrives for a client.
func testIdentity(t *testing.T, c *chain) {
	ann, bob := "/?token="+tokenFor(t, "ann"), "/?token="+tokenFor(t, "bob")
	other := "/?token=" + signToken(t, jwt.SigningMethodHS256, []byte("x"), jwt.MapClaims{"sub": "ann", "exp": 1 << 40})
	for _, forged := range []string{
		"X-A: 1",
		"User: eve\r\nUSER: eve\r\nUser:",
		"User: eve\r\nConnection: User",
		"User: eve\r\nConnection: Grip-Sig, User",
	} {
		for _, tt := range []struct{ to, method, target, header, user string }{
			{"fanout", "GET", ann, "", "ann"},
			{"fanout", "GET", "/", "\r\nCookie: token=" + tokenFor(t, "ann"), "ann"},
			{"fanout", "GET", ann, "\r\nUpgrade: websocket", "ann"},
			{"fanout", "HEAD", ann, "", "ann"},
			{"origin", "GET", ann, "\r\nGrip-Sig: forged", "ann"},
			{"origin", "POST", ann, "", "ann"},
			{"origin", "POST", "/", "", ""},
			{"origin", "POST", other, "", ""},
			{"401", "POST", other, "\r\nGrip-Sig: forged", ""},
		} {
			if strings.Contains(forged, "Grip-Sig") && strings.Contains(tt.header, "Grip-Sig") {
				continue // Connection removes the forged one
			}
			got := c.check(t, row{tt.to, tt.method, tt.target, forged + tt.header})
			checkUser(t, got, tt.user)
		}
	}
	// A name cannot become another header.
	checkUser(t, c.check(t, row{"502", "POST", "/?token=" + tokenFor(t, "ann\r\nUser: eve"), ""}), "")
	// Clients that share sandboxes never get each other's name.
	for range 16 {
		checkUser(t, c.check(t, row{"fanout", "GET", ann, ""}), "ann")
		checkUser(t, c.check(t, row{"fanout", "GET", bob, ""}), "bob")
		checkUser(t, c.check(t, row{"origin", "POST", "/", ""}), "")
	}
	t.Run("long-poll", func(t *testing.T) {
		const hold = "HTTP/1.1 200 OK\r\nGrip-Hold: response\r\nGrip-Channel: poll\r\nContent-Length: 0\r\n\r\n"
		c.origin.answer(hold)
		c.origin.answer(hold)
		c.project.send(t, "GET "+ann+" HTTP/1.1\r\nHost: example.com\r\nUser: eve\r\n\r\n")
		checkUser(t, c.origin.arrived(t), "ann")
		// Pushpin asks again after the first subscription to a channel.
		checkUser(t, c.origin.arrived(t), "ann")
	})
	// The request for a Grip-Link has none of the client's headers. Without a token in the link, it
	// does not arrive.
	t.Run("stream", func(t *testing.T) {
		follow := func(next string) {
			c.origin.answer("HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: stream\r\nContent-Length: 0\r\n" +
				"Grip-Link: <" + next + ">; rel=next; timeout=1\r\n\r\n")
			c.project.send(t, "GET / HTTP/1.1\r\nHost: example.com\r\nUser: eve\r\nCookie: token="+ann[len("/?token="):]+"\r\n\r\n")
			checkUser(t, c.origin.arrived(t), "ann")
		}
		follow("/next" + bob[1:])
		got := c.origin.arrived(t)
		if !strings.HasPrefix(got.line, "GET /next?") || got.header.Get("Cookie") != "" {
			t.Errorf("%+v arrived", got)
		}
		checkUser(t, got, "bob")
		c.log.skip()
		follow("/next")
		c.waitForLog(t, "response status: 401")
	})
	t.Run("WebSocket", func(t *testing.T) {
		conn := c.project.send(t, socketRequest(ann, "User: eve\r\n"))
		readUntil(t, bufio.NewReader(conn), "\r\n\r\n")
		for _, event := range []string{"OPEN\r\n", "TEXT 2\r\nhi\r\n", "TEXT 2\r\nhi\r\n"} {
			got := c.origin.arrived(t)
			for !strings.HasPrefix(got.body, event) {
				got = c.origin.arrived(t) // a request for a stream above
			}
			checkUser(t, got, "ann")
			io.WriteString(conn, frame(0x81, "hi"))
		}
	})
	// A WebSocket ends with its first event after the token has expired.
	t.Run("expired", func(t *testing.T) {
		ctx := withPatience(t)
		var conn *websocket.Conn
		for life := int64(2); conn == nil; life *= 2 { // a slow machine may need more time to open it
			claims := jwt.MapClaims{"sub": "ann", "exp": time.Now().Unix() + life}
			url := "ws://" + c.addr + "/?token=" + signToken(t, jwt.SigningMethodHS256, tokenKey, claims)
			var err error
			if conn, _, err = websocket.Dial(ctx, url, nil); ctx.Err() != nil {
				t.Fatal(err)
			}
		}
		for err := error(nil); err == nil; {
			if err = conn.Write(ctx, websocket.MessageText, []byte("hi")); err == nil {
				_, _, err = conn.Read(ctx)
			}
		}
		if ctx.Err() != nil {
			t.Error("the WebSocket stays open")
		}
	})
	c.write(t, "token.go", "package main\n\nimport \"github.com/fastly/compute-sdk-go/fsthttp\"\n\n"+
		"func tokenUser(*fsthttp.Request) string { return \"ann\" }\n") // there is no Secret Store outside Wasm
	checkPass(t, c.project)
}

// checkUser checks that a request has the header once, with this value, or, for "", that it does
// not have it.
func checkUser(t *testing.T, got rawMessage, user string) {
	t.Helper()
	if values := got.header["User"]; strings.Join(values, "|") != user || len(values) > 1 {
		t.Errorf("%s arrived with User: %q, want %q", got.line, values, user)
	}
}

// Clients get what is published, without an origin. What a client sends comes back to nobody, and
// the close of a WebSocket is answered.
func testEdge(t *testing.T, c *chain) {
	c.origin.Close()
	const subscribe = `c:{"type":"subscribe","channel":"demo"}`
	resp := c.exchange(t, "POST / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\nGrip-Sig: forged\r\n"+
		"Content-Type: application/websocket-events\r\nContent-Length: 6\r\n\r\nOPEN\r\n")
	if want := fmt.Sprintf("OPEN\r\nTEXT %x\r\n%s\r\n", len(subscribe), subscribe); resp.body != want {
		t.Errorf("OPEN is answered with %+v", resp)
	}
	var stream, socket logBuffer
	go io.Copy(&stream, c.project.send(t, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"))
	conn, ended := c.project.send(t, socketRequest("/", "")), make(chan struct{})
	go func() {
		io.Copy(&socket, conn)
		close(ended)
	}()
	socket.wait(t, "\r\n\r\n", nil)
	for _, text := range []string{"hi", `c:{"type":"unsubscribe","channel":"demo"}`, "\r\nOPEN\r\n"} {
		io.WriteString(conn, frame(0x81, text))
	}
	// A subscription begins a moment after the client sees its connection open.
	eventually(t, "what is published arrives", func() bool {
		c.publish(t, "demo", grip.Formats{
			HTTPStream: &grip.HTTPStream{Content: "data: 1\n\n"},
			WSMessage:  &grip.WSMessage{Content: "2"},
		})
		return strings.Contains(stream.String(), "data: 1\n\n") && strings.Contains(socket.String(), "\x81\x012")
	})
	io.WriteString(conn, frame(0x88, "\x0f\xa0 my own code")) // 4000
	<-ended
	_, frames, _ := strings.Cut(socket.String(), "\r\n\r\n")
	if other := strings.ReplaceAll(frames, "\x81\x012", ""); other != "\x88\x02\x03\xe8" { // 1000
		t.Errorf("besides what is published, the WebSocket got %q", other)
	}
}

// socketRequest is a request to open a WebSocket, with more header lines.
func socketRequest(target, more string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n" + webSocketHeader + more + "\r\n"
}

// frame is a frame of a client's WebSocket, with less than 126 bytes, masked with zeros. The first
// byte is 0x81 for a text and 0x88 for a close. Source: RFC 6455 section 5.2
func frame(first byte, content string) string {
	return string([]byte{first, 0x80 | byte(len(content)), 0, 0, 0, 0}) + content
}

// Messages, the subprotocol and the close pass between the client and the origin.
func testSocketServer(t *testing.T, c *chain) {
	c.origin.Close()
	l, err := net.Listen("tcp", c.project.origin)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
				Subprotocols: []string{"echo"}, OriginPatterns: []string{"*"},
			})
			if err != nil {
				return
			}
			for {
				kind, message, err := conn.Read(r.Context())
				if err != nil || string(message) == "bye" {
					conn.Close(4001, "as you say")
					return
				}
				conn.Write(r.Context(), kind, message)
			}
		})}}
	server.Start()
	t.Cleanup(server.Close)
	ctx := withPatience(t)
	conn, _, err := websocket.Dial(ctx, "ws://"+c.addr+"/x", &websocket.DialOptions{Subprotocols: []string{"echo"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.Subprotocol(); got != "echo" {
		t.Errorf("the subprotocol is %q", got)
	}
	for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		if err := conn.Write(ctx, kind, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		got, message, err := conn.Read(ctx)
		if got != kind || string(message) != "hello" {
			t.Errorf("got %v %q, %v", got, message, err)
		}
	}
	conn.Write(ctx, websocket.MessageText, []byte("bye"))
	_, _, err = conn.Read(ctx)
	var closed websocket.CloseError
	if closed, _ = errors.AsType[websocket.CloseError](err); closed.Code != 4001 || closed.Reason != "as you say" {
		t.Errorf("got %v", err)
	}
}
