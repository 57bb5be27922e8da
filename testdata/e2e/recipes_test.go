package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRecipes applies each recipe to a new project, and then sends the requests of its table to
// the handler. Where a table cannot say everything, it also sends them to the app in Viceroy.
func TestRecipes(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	recipes, tested := map[string]bool{}, map[string]bool{}
	for _, b := range blocks(t, "../recipes.md") {
		recipes[b.section], tested[b.text] = true, true
	}
	for _, b := range blocks(t, readmePath) {
		if ownReadme() && b.lang == "go" && !tested[b.text] {
			t.Errorf("%s:%d: no recipe has this code, so it is not tested", b.path, b.line)
		}
	}
	more := map[string]func(*testing.T, *app){ // what a table cannot say
		validSession: testSession,
		identity:     testIdentity,
		"PURGE with a token": func(t *testing.T, a *app) {
			a.checkRow(t, row{"origin", "PURGE", "/", "Fastly-Key: valid"})
		},
	}
	for name := range more {
		recipes[name] = true // fails if recipes.md does not have it
	}
	for name := range recipes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t)
			if name == identity {
				p.apply(t, validSession)
			}
			p.apply(t, name)
			p.set(t, []string{"valid"}, "local_server", "fake_valid_fastly_keys")
			p.run(t, p.dir, "go", "test", ".") // sends the requests of the table to the handler
			test := more[name]
			if test == nil {
				return
			}
			a := startApp(t, p)
			rows, err := readTable(filepath.Join(p.dir, "testdata/handoffs.txt"))
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				a.checkRow(t, row)
			}
			test(t, a)
		})
	}
}

const (
	validSession = "A valid session"
	identity     = "Tell the origin who the client is"
)

// apply applies a recipe to the project. What it makes must be formatted with gofmt.
func (p *project) apply(t *testing.T, recipe string) {
	t.Helper()
	all := blocks(t, "../recipes.md")
	all = slices.DeleteFunc(all, func(b block) bool { return b.section != recipe })
	if len(all) == 0 {
		t.Fatalf("recipes.md does not have the recipe %q", recipe)
	}
	for _, b := range all {
		p.applyBlock(t, b)
	}
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
	case strings.Contains(b.intro, "at the TODO"):
		withCondition(t, p, b.text)
	case strings.Contains(b.intro, "`main.go`, before "):
		p.edit(t, "main.go", "\t"+last+"\n", b.text+"\t"+last+"\n")
	case strings.HasPrefix(b.intro, "In `main.go`, in place of "):
		p.edit(t, "main.go", last, strings.TrimSpace(b.text))
	case strings.HasPrefix(b.intro, "In a new file, "), strings.HasPrefix(b.intro, "In `testdata/handoffs.txt`"):
		p.write(t, named[0][1], b.text)
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

// checkRow checks that the row's request goes to the right place. It returns what arrived, if any.
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

// A request with a valid token is handed off. One with a wrong or expired token, or with two of
// them, is not.
func testSession(t *testing.T, a *app) {
	valid := sessionTarget("ann", "demo", time.Now().Add(time.Hour))
	a.checkRow(t, row{"fanout", "GET", valid, ""})
	a.checkRow(t, row{"fanout", "GET", valid + "&after=7", "Upgrade: websocket"})
	for _, target := range []string{
		sessionTarget("ann", "demo", time.Now().Add(-time.Second)),
		strings.Replace(valid, "user=ann", "user=bob", 1),
		strings.Replace(valid, "channel=demo", "channel=other", 1),
		strings.Replace(valid, "expires=", "expires=9", 1),
		strings.Replace(sessionTarget("ann demo", "x", time.Now().Add(time.Hour)), " ", "%20", 1),
		valid[:len(valid)-2],
		valid + "&user=bob",
		valid + "&ch%61nnel=other",
		valid + "&expires=1",
		valid + "&token=",
		valid + "&x;channel=other",
	} {
		a.checkRow(t, row{"401", "GET", target, ""})
	}
}
