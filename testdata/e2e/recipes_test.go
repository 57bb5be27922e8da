package e2e

import (
	"bufio"
	"crypto/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"compute-starter-kit-go-fanout-forward/testdata/grip"
)

const recipesPath = "../recipes.md"

// recipeTests are what the table of a recipe cannot say. A key is a heading in recipes.md.
var recipeTests = map[string]func(*testing.T, *project, *server){
	"PURGE with a token":        testPurge,
	"Change what is handed off": testChange,
}

// TestRecipes applies each recipe to a new project, exactly as it is printed. It runs the unit
// tests there, which send the requests of the recipe's table to the handler. Then it sends these
// requests to the app behind the real Pushpin.
func TestRecipes(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	recipes, printed := map[string]bool{}, map[string]bool{}
	for _, b := range blocks(t, recipesPath) {
		recipes[b.section], printed[b.text] = true, true
	}
	for _, b := range blocks(t, readmePath) {
		if ownReadme() && b.lang == "go" && !printed[b.text] {
			t.Errorf("%s:%d: no recipe has this code, so it is not tested", b.path, b.line)
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
			p.run(t, p.dir, "go", "vet", ".")
			p.run(t, p.dir, "go", "test", ".")
			origin := startServer(t, p.Origin)
			p.serve(t)
			rows, err := readTable(filepath.Join(p.dir, "testdata/handoffs.txt"))
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				p.checkRow(t, origin, row)
			}
			if test := recipeTests[name]; test != nil {
				test(t, p, origin)
			}
		})
	}
}

// apply applies the blocks of a recipe to the project. What it makes must be formatted with gofmt.
func (p *project) apply(t *testing.T, recipe string) {
	t.Helper()
	all := blocks(t, recipesPath)
	all = slices.DeleteFunc(all, func(b block) bool { return b.section != recipe })
	if len(all) == 0 {
		t.Fatalf("%s does not have the recipe %q", recipesPath, recipe)
	}
	for _, b := range all {
		p.applyBlock(t, b)
	}
	// The project's own ports, and a key that counts as a Fastly API token.
	if manifest := p.read(t, "fastly.toml"); strings.Contains(manifest, "backends.self") {
		p.set(t, p.url("/"), "local_server", "backends", "self", "url")
	}
	p.set(t, []string{"valid"}, "local_server", "fake_valid_fastly_keys")
	gofmt := exec.Command("go", "fmt", ".") // prints the files that it changes
	gofmt.Dir = p.dir
	if out, err := gofmt.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("not formatted with gofmt: %s%v", out, err)
	}
}

// applyBlock puts a block into the project. The line before the block says where.
func (p *project) applyBlock(t *testing.T, b block) {
	t.Helper()
	named := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(b.intro, -1)
	last := named[len(named)-1][1]
	switch {
	case strings.Contains(b.intro, "n `main.go`, at the TODO, in place of "):
		withCondition(t, p, b.text)
	case strings.Contains(b.intro, "n `main.go`, before "):
		p.edit(t, "main.go", "\t"+last+"\n", b.text+"\t"+last+"\n")
	case strings.Contains(b.intro, "n `main.go`, in place of "):
		p.edit(t, "main.go", last, strings.TrimSpace(b.text))
	case strings.HasPrefix(b.intro, "In a new file, "), strings.HasPrefix(b.intro, "In `testdata/handoffs.txt`"):
		p.write(t, named[0][1], b.text)
	case strings.HasPrefix(b.intro, "At the end of "):
		p.write(t, last, p.read(t, last)+"\n"+b.text)
	default:
		t.Fatalf("%s:%d: the line before this block does not say where it goes: %s", b.path, b.line, b.intro)
	}
}

func (p *project) read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// checkRow sends the row's request to the app behind the real Pushpin, and checks where it goes.
// It returns what arrives at the origin, if anything does.
func (p *project) checkRow(t *testing.T, origin *server, row row) (got rawMessage) {
	t.Helper()
	own := rand.Text()
	more := "X-Own: " + own + "\r\nConnection: close\r\n"
	if regexp.MustCompile(`(?i)\bwebsocket$`).MatchString(row.header) && row.method == "GET" {
		more = "X-Own: " + own + "\r\n" + openWebSocket
	}
	conn := p.send(t, row.request(more))
	defer conn.Close()
	resp, err := readHead(bufio.NewReader(conn))
	if err != nil {
		t.Fatalf("%q: %v", row, err)
	}
	pushpin, err := grip.ParseURL(p.GripURL(), "") // has the key of Pushpin's signatures
	if err != nil {
		t.Fatal(err)
	}
	to := strings.Split(resp.line, " ")[1]
	// A request arrives before the client has the head of its response. There may also be requests
	// of the WebSockets in earlier rows.
	for len(origin.requests) > 0 && to != "fanout" && to != "origin" {
		if got = <-origin.requests; got.header.Get("X-Own") != own {
			continue
		}
		to = "origin"
		if pushpin.Verify(&http.Request{Header: http.Header(got.header)}) == nil {
			to = "fanout"
		}
	}
	if to != row.to {
		t.Errorf("%q went to %s: %+v", row, to, resp)
	}
	return got
}

const openWebSocket = "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func testPurge(t *testing.T, p *project, origin *server) {
	p.checkRow(t, origin, row{"origin", "PURGE", "/", "Fastly-Key: valid"})
}

// The origin gets the header and the path of the app with what is handed off, and with what is
// not. The client's own header never arrives.
func testChange(t *testing.T, p *project, origin *server) {
	for _, tt := range []struct{ to, method, header, line string }{
		{"fanout", "GET", "", "GET /v2/x?y HTTP/1.1"},
		{"fanout", "HEAD", "", "HEAD /v2/x?y HTTP/1.1"},
		{"fanout", "GET", "\r\nUpgrade: websocket", "POST /v2/x?y HTTP/1.1"},
		{"origin", "GET", "\r\nGrip-Sig: forged", "GET /v2/x?y HTTP/1.1"},
		{"origin", "POST", "", "POST /v2/x?y HTTP/1.1"},
	} {
		got := p.checkRow(t, origin, row{tt.to, tt.method, "/x?y", "Edge: forged" + tt.header})
		if got.line != tt.line || !slices.Equal(got.header["Edge"], []string{"0"}) {
			t.Errorf("%v: %+v arrived", tt, got)
		}
	}
}
