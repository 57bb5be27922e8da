package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"compute-starter-kit-go-fanout-forward/testdata/handoffs"
)

// TestRecipes applies each recipe from README.md, beside this file, to a new project. Then it tests the project's table,
// with the unit test of the handler, and with the app in Viceroy.
func TestRecipes(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	recipes := map[string][]block{}
	for _, b := range blocks(t, "README.md") {
		recipes[b.heading] = append(recipes[b.heading], b)
	}
	for _, name := range []string{"A header", "A path prefix", "Server-Sent Events", "Only WebSockets", "All but static assets", "A valid session"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if len(recipes[name]) == 0 {
				t.Fatal("README.md does not have this recipe")
			}
			p := newProject(t)
			for _, b := range recipes[name] {
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
			p.run(t, p.dir, "go", "test", ".")
			rows, err := handoffs.Read(filepath.Join(p.dir, "testdata/handoffs.txt"))
			if err != nil {
				t.Fatal(err)
			}
			app := serveAppAlone(t, p)
			for _, row := range rows {
				app.checkRow(t, row)
			}
			if name == "A valid session" {
				testSessions(t, app)
			}
		})
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
	case strings.Contains(b.intro, "In `main.go`, before "):
		p.edit(t, "main.go", "\t"+last+"\n", b.text+"\t"+last+"\n")
	case strings.HasPrefix(b.intro, "In a new file"), strings.HasPrefix(b.intro, "In `testdata/handoffs.txt`"):
		p.write(t, last, b.text)
	case strings.HasPrefix(b.intro, "At the end of "):
		content, err := os.ReadFile(filepath.Join(p.dir, last))
		if err != nil {
			t.Fatal(err)
		}
		p.write(t, last, string(content)+"\n"+b.text)
	default:
		t.Fatalf("README.md:%d: the line before this block does not say where it goes: %s", b.line, b.intro)
	}
}

// checkRow checks that the row's request goes to the right place.
func (app *appAlone) checkRow(t *testing.T, row handoffs.Row) {
	t.Helper()
	response := app.roundTrip(t, row.Method+" "+row.Target+" HTTP/1.1\r\nHost: example.com\r\n"+headOf(row)+"Connection: close\r\n\r\n")
	_, status, _ := strings.Cut(response, " ")
	to := status[:min(3, len(status))]
	select {
	case got := <-app.origin.requests:
		to = handoffs.Origin
		checkLine(t, row, got.line)
	case got := <-app.fanout.requests:
		to = handoffs.Fanout
		checkLine(t, row, got.line)
	default: // a request that the app sends on arrives before the client gets an answer
	}
	if to != row.To {
		t.Errorf("%q must go to %s, but it went to %s", row, row.To, to)
	}
}

func checkLine(t *testing.T, row handoffs.Row, line string) {
	t.Helper()
	if want := row.Method + " " + row.Target + " HTTP/1.1"; line != want {
		t.Errorf("%q arrived as %q", row, line)
	}
}

// testSessions checks that a request with a valid token is handed off. One with a wrong or expired token, or without a
// token, is not.
func testSessions(t *testing.T, app *appAlone) {
	request := func(channel, signed string, expires int64) string {
		mac := hmac.New(sha256.New, []byte("a-key-for-my-machine-only"))
		fmt.Fprintf(mac, "%s %d", signed, expires)
		return fmt.Sprintf("/?channel=%s&expires=%d&token=%x", channel, expires, mac.Sum(nil))
	}
	soon, past := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Second).Unix()
	valid := request("demo", "demo", soon)
	for _, tt := range []struct{ name, target, to string }{
		{"valid", valid, handoffs.Fanout},
		{"missing", "/?channel=demo", "401"},
		{"expired", request("demo", "demo", past), "401"},
		{"of another channel", request("demo", "other", soon), "401"},
		{"of another time", strings.Replace(valid, fmt.Sprint(soon), fmt.Sprint(soon+1), 1), "401"},
		{"forged", valid[:len(valid)-2] + "00", "401"},
		{"cut short", valid[:len(valid)-2], "401"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "forged" && strings.HasSuffix(valid, "00") {
				tt.target = valid[:len(valid)-2] + "11"
			}
			for _, header := range []string{"", "Upgrade: websocket"} {
				app.checkRow(t, handoffs.Row{Method: "GET", Target: tt.target, Header: header, To: tt.to})
			}
		})
	}
}
