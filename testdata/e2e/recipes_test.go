package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRecipes applies each recipe to a new project, and then sends the requests of its table: to the handler, and to
// the app in Viceroy.
func TestRecipes(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	recipes, tested := map[string][]block{}, map[string]bool{}
	for _, b := range blocks(t, "../recipes.md") {
		recipes[b.section] = append(recipes[b.section], b)
		tested[b.text] = true
	}
	for _, b := range blocks(t, readmePath) {
		if ownReadme() && b.lang == "go" && !tested[b.text] {
			t.Errorf("%s:%d: no recipe has this code, so it is not tested", b.path, b.line)
		}
	}
	more := map[string]func(*testing.T, *app){ // what a table cannot say
		"A header":              nil,
		"A path prefix":         nil,
		"Server-Sent Events":    nil,
		"Only WebSockets":       nil,
		"All but static assets": nil,
		"A valid session":       testSession,
		identity:                testIdentity,
		"PURGE with a token":    testPurge,
	}
	if len(recipes) != len(more) {
		t.Errorf("recipes.md has %d recipes, of which %d are tested", len(recipes), len(more))
	}
	for name, test := range more {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if len(recipes[name]) == 0 {
				t.Fatal("recipes.md does not have this recipe")
			}
			p := newProject(t)
			if name == identity {
				p.applyAll(t, recipes["A valid session"])
			}
			p.applyAll(t, recipes[name])
			p.set(t, []string{"valid"}, "local_server", "fake_valid_fastly_keys")
			p.run(t, p.dir, "go", "test", ".")
			a := startApp(t, p)
			rows, err := readTable(filepath.Join(p.dir, "testdata/handoffs.txt"))
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				a.checkRow(t, row)
			}
			if test != nil {
				test(t, a)
			}
		})
	}
}

const identity = "Tell the origin who the client is"

// applyAll puts the blocks of a recipe into the project. What it makes must be formatted with gofmt.
func (p *project) applyAll(t *testing.T, recipe []block) {
	t.Helper()
	for _, b := range recipe {
		p.apply(t, b)
	}
	sources, err := filepath.Glob(filepath.Join(p.dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if formatted, err := format.Source(content); err != nil || string(formatted) != string(content) {
			t.Errorf("%s is not formatted with gofmt: %v", source, err)
		}
	}
}

// apply puts a block into the project. The line before the block says where.
func (p *project) apply(t *testing.T, b block) {
	t.Helper()
	named := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(b.intro, -1)
	last := named[len(named)-1][1]
	switch {
	case strings.Contains(b.intro, "at the TODO"):
		withCondition(t, p, b.text)
	case strings.Contains(b.intro, "in `main.go`, before "), strings.Contains(b.intro, "In `main.go`, before "):
		p.edit(t, "main.go", "\t"+last+"\n", b.text+"\t"+last+"\n")
	case strings.HasPrefix(b.intro, "In `main.go`, in place of "):
		p.edit(t, "main.go", last, strings.TrimSpace(b.text))
	case strings.HasPrefix(b.intro, "In a new file, "):
		p.write(t, named[0][1], b.text)
	case strings.HasPrefix(b.intro, "In `testdata/handoffs.txt`"):
		p.write(t, last, b.text)
	case strings.HasPrefix(b.intro, "At the end of "):
		content, err := os.ReadFile(filepath.Join(p.dir, last))
		if err != nil {
			t.Fatal(err)
		}
		p.write(t, last, string(content)+"\n"+b.text)
	default:
		t.Fatalf("%s:%d: the line before this block does not say where it goes: %s", b.path, b.line, b.intro)
	}
}

// checkRow checks that the row's request goes to the right place. It returns the request, if one arrived.
func (a *app) checkRow(t *testing.T, row row) rawMessage {
	t.Helper()
	resp := a.exchange(t, row.request("Connection: close\r\n"))
	to := strings.Split(resp.line, " ")[1]
	var got rawMessage
	select { // a request arrives before the client has its response
	case got = <-a.origin.requests:
		to = "origin"
	case got = <-a.fanout.requests:
		to = "fanout"
	default:
	}
	if to != row.to {
		t.Errorf("%q went to %s", row, to)
	}
	if line := row.method + " " + row.target + " HTTP/1.1"; got.line != "" && got.line != line {
		t.Errorf("%q arrived as %q", row, got.line)
	}
	return got
}

// sessionTarget returns a target with a token for the user and the channel.
func sessionTarget(user, channel string, expires time.Time) string {
	mac := hmac.New(sha256.New, []byte("a-key-for-local-use-only"))
	fmt.Fprintf(mac, "%s %s %d", user, channel, expires.Unix())
	return fmt.Sprintf("/?user=%s&channel=%s&expires=%d&token=%x", user, channel, expires.Unix(), mac.Sum(nil))
}

// A request with a valid token is handed off. One with a wrong or expired token, or with two of them, is not.
func testSession(t *testing.T, a *app) {
	soon := time.Now().Add(time.Hour)
	valid := sessionTarget("ann", "demo", soon)
	last := map[bool]string{true: "1", false: "0"}[strings.HasSuffix(valid, "0")]
	for _, tt := range []struct{ name, target, to string }{
		{"valid", valid, "fanout"},
		{"with another parameter", valid + "&after=7", "fanout"},
		{"expired", sessionTarget("ann", "demo", time.Now().Add(-time.Second)), "401"},
		{"of another channel", strings.Replace(valid, "channel=demo", "channel=other", 1), "401"},
		{"of another user", strings.Replace(valid, "user=ann", "user=bob", 1), "401"},
		{"of another time", strings.Replace(valid, strconv.FormatInt(soon.Unix(), 10), strconv.FormatInt(soon.Unix()+1, 10), 1), "401"},
		{"of a user and a channel that run together", strings.Replace(valid, "user=ann&channel=demo", "user=ann%20demo&channel=", 1), "401"},
		{"forged", valid[:len(valid)-1] + last, "401"},
		{"cut short", valid[:len(valid)-2], "401"},
		{"two users", valid + "&user=bob", "401"},
		{"two channels", valid + "&ch%61nnel=other", "401"},
		{"two times", valid + "&expires=1", "401"},
		{"two tokens", valid + "&token=", "401"},
		{"a semicolon", valid + "&x;channel=other", "401"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, header := range []string{"", "Upgrade: websocket"} {
				a.checkRow(t, row{tt.to, "GET", tt.target, header})
			}
		})
	}
}

// A PURGE with a valid token is forwarded.
func testPurge(t *testing.T, a *app) {
	a.checkRow(t, row{"origin", "PURGE", "/", "Fastly-Key: valid"})
}
