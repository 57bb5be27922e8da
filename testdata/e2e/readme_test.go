package e2e

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents returns the paths of the kit's documents, first README.md. In a project that has a README of
// its own instead, it skips the test.
func documents(t testing.TB) (paths []string) {
	t.Helper()
	readme, _ := os.ReadFile("../../README.md")
	if !strings.HasPrefix(string(readme), "# Fanout forward: ") {
		t.Skip("README.md is not the kit's")
	}
	for _, pattern := range []string{
		"../../README.md", "../../SECURITY.md", "../*.md", "../*/README.md", "../origins/*/README.md",
	} {
		found, _ := filepath.Glob(pattern)
		paths = append(paths, found...)
	}
	return paths
}

// block is a fenced block of a document.
type block struct {
	path, lang string
	section    string // the heading of level two that it is under
	intro      string // the line before it that is not empty
	text       string
}

// fenced matches a heading of level two, or the line before a fenced block and the block.
var fenced = regexp.MustCompile("(?m)^## (.*)$|(?:^(.*)\n+)?^ *```(.*)\n((?:.*\n)*?) *```$")

// blocks returns the blocks of these documents.
func blocks(t testing.TB, paths ...string) (blocks []block) {
	t.Helper()
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		section := ""
		for _, m := range fenced.FindAllStringSubmatch(string(content), -1) {
			if m[1] != "" {
				section = m[1]
			} else {
				blocks = append(blocks, block{path, m[3], section, m[2], m[4]})
			}
		}
	}
	return blocks
}

// TestLinks checks that what the documents link to in the project is there, the headings too.
func TestLinks(t *testing.T) {
	// Links to other sites have a colon.
	link := regexp.MustCompile(`\]\(([^)\s#:]*)(#[^)\s]*)?\)`)
	punctuation := regexp.MustCompile(`[^\p{L}\p{N}\n# _-]`)
	for _, path := range documents(t) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			target := filepath.Join(filepath.Dir(path), cmp.Or(m[1], filepath.Base(path)))
			_, err := os.Stat(target)
			linked, _ := os.ReadFile(target) // fails for a directory
			text := punctuation.ReplaceAllString(strings.ToLower(string(linked)), "")
			headings := strings.ReplaceAll(text, " ", "-")
			anchor := strings.Replace(m[2], "#", "#-", 1)
			if err != nil || anchor != "" && !strings.Contains(headings, anchor+"\n") {
				t.Errorf("%s links to %s: there is no such file or heading", path, m[0])
			}
		}
	}
}

// TestReadme does what the README says, in its order, as a newcomer would, and on the ports that it
// names. It takes each command and program of the documents, and says which of them it does not run.
func TestReadme(t *testing.T) {
	needsDefault(t)
	t.Parallel()
	all := append(blocks(t, documents(t)...), block{lang: "sh", text: "the end"})
	all = slices.DeleteFunc(all, func(b block) bool {
		return b.lang != "sh" && (b.lang != "go" || b.path == "../recipes.md")
	})
	next := func(start string) string { // returns the next block, which must begin with start
		t.Helper()
		b := all[0]
		if !strings.HasPrefix(b.text, start) {
			t.Fatalf("want the block %q, but %s has\n%s", start, b.path, b.text)
		}
		all = all[1:]
		return b.text
	}
	home := t.TempDir()
	kit, _ := template(t)
	clone := filepath.Join(home, "compute-starter-kit-go-fanout-forward")
	app, own := filepath.Join(home, "my-app"), filepath.Join(home, "my-origin")
	run := func(dir, script string) *program { // until the test ends
		return start(t, dir, nil, "sh", "-ec", script)
	}
	// say runs each line of a block as a client, and publishes until it has printed "hello".
	say := func(publish, block string) {
		t.Helper()
		eventually(t, "the origin listens", func() bool { return listens("localhost:3000") })
		// The README has another command for those without websocat.
		const websocat = `type websocat || websocat() { npx --yes wscat@6.1.0 -c "$@"; }`
		for command := range strings.Lines(block) {
			client := run(home, websocat+"\n"+command)
			eventually(t, command+" prints hello", func() bool {
				sh(t, home, publish)
				return strings.Contains(client.output(), "hello")
			})
		}
	}

	sh(t, home, `cp -R "$1" "$2"; cd "$2"; git init -q; git add --all`, kit, clone)
	demo := run(clone, next("make demo"))
	demo.wait(t, invitation)
	publish := next("curl -d hello")
	say(publish, next("curl -N "))
	demo.stop()
	// .gitignore has all that is left.
	sh(t, clone, "! git ls-files --others --exclude-standard | grep .")

	// With Enter as each answer, the project has the clone's files, and no others.
	sh(t, clone, "yes '' | {\n"+next(`eval "$(testdata/tools.sh)"`)+"}")
	sh(t, app, `diff -r --exclude=.git --exclude=fastly.toml --exclude=go.mod "$1" .
		printf %s "$2" | cmp - testdata/origins/go/main.go`, kit, next("// Command origin"))
	origin := run(app, next("mkdir"))
	const listening = "Listening on http://"
	serve := run(app, next("make serve"))
	serve.wait(t, listening)
	clients := next("curl -N ")
	publish = next("curl http://localhost:5561")
	say(publish, clients)
	// checkMessages also closes the WebSocket.
	again := func() { sh(t, home, publish) }
	want := map[string]string{"/socket": "^hello$"}
	site{"http://localhost:7676"}.checkMessages(t, again, want)
	serve.stop()
	origin.stop()

	next(blocks(t, "../recipes.md")[0].text) // TestRecipes
	next("export FASTLY")                    // TestDeploy
	next(serviceCommands)                    // TestDeploy
	keys := next("export GRIP_URL='https")
	next(`curl -H "Fastly-Key`) // needs an account at Fastly
	sh(t, app, next("rm -r testdata")+"go test ./...; go vet ./...")

	next("make test")           // runs this test
	next("eval")                // runs this test
	next("make bench")          // takes minutes
	next("go -C testdata tool") // compares two runs
	next("make load")           // TestLoad

	next("go -C testdata run ./origin\n") // TestLive
	next(keys)
	publish = next(`curl -H "Authorization`)
	const asAbove = "export GRIP_URL='…' GRIP_VERIFY_KEY='…'"
	public := strings.Replace(next(asAbove), asAbove, keys, 1)
	values := strings.NewReplacer("{service-id}", "ID", "{api-token}", "TOKEN",
		"https://www.example.com/", "http://localhost:8080/")
	origin = run(clone, values.Replace(public))
	origin.wait(t, "^origin: listening on :8080, publishing to https://api")
	sh(t, home, "{ PUBLISH_TOKEN='…'\n"+values.Replace(publish)+"} | grep 'proxy did not accept'")

	// The origin that copies the package grip runs behind the app alone, without testdata.
	sh(t, own, next("cp -r "))
	os.WriteFile(filepath.Join(own, "main.go"), []byte(next("package main\n")), 0o644)
	run(own, "go vet ./...; go run .")
	run(app, "fastly compute serve").wait(t, listening)
	say("curl -sfX POST http://localhost:7676/publish", "curl -sN http://localhost:7676/events")
	sh(t, home, "curl -s http://localhost:3000/events | grep '^Only through the app.$'")

	next("cd testdata/origins/node")   // TestOrigins
	next("cd testdata/origins/python") // TestOrigins
	next("the end")
}
