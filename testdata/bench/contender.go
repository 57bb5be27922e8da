package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v4/process"

	"compute-starter-kit-go-fanout-forward/testdata/chain"
	"compute-starter-kit-go-fanout-forward/testdata/toolchain"
)

// contender is a compiled app, in a directory of its own that `fastly compute serve` can serve.
type contender struct {
	name        string
	dir         string
	packageSize int64 // of the package that would be uploaded, in bytes

	addr    string // where it is served, host:port
	chain   *chain.Process
	all     []*process.Process // of the chain
	viceroy *process.Process   // one of them
	log     *sandboxLog
}

// serve starts the contender's chain, and suspends it until it is measured: contenders that can take
// turns of a second share the moments when a machine is slow, which a restart for each turn would not allow.
func (c *contender) serve(ctx context.Context, tools toolchain.Tools) error {
	port, err := chain.FreePorts(ctx, 6) // Pushpin publishes at four in a row
	if err != nil {
		return err
	}
	c.addr, c.log = net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), new(sandboxLog)
	c.chain, err = chain.Serve(ctx, tools, c.dir, c.addr, c.log, "--skip-build",
		"--pushpin-proxy-port", strconv.Itoa(port+1), "--pushpin-publish-port", strconv.Itoa(port+2))
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.log.tail())
	}
	c.all = c.chain.Tree()
	for _, p := range c.all {
		if name, _ := p.Name(); name == filepath.Base(tools.Viceroy) {
			c.viceroy = p
		}
	}
	if c.viceroy == nil {
		err = fmt.Errorf("found no process %s", filepath.Base(tools.Viceroy))
	} else {
		err = c.suspend()
	}
	return err
}

// suspend keeps all the contender's processes from the CPU until resume. What was to happen in between
// happens then: sandboxes that waited for a request end, which is why a workload warms up.
func (c *contender) suspend() error { return c.each((*process.Process).Suspend) }

func (c *contender) resume() error { return c.each((*process.Process).Resume) }

func (c *contender) each(signal func(*process.Process) error) error {
	var failed []error
	for _, p := range c.all {
		if err := signal(p); err != nil {
			failed = append(failed, fmt.Errorf("signal process %d: %w", p.Pid, err))
		}
	}
	return errors.Join(failed...)
}

// manyRequests is the call in main.go that has a sandbox serve many requests, and sandboxPerRequest what
// replaces it for the contender that has a sandbox for each.
var manyRequests = regexp.MustCompile(`fsthttp\.ServeMany\((\w+), &fsthttp\.ServeManyOptions\{`)

const sandboxPerRequest = "fsthttp.ServeFunc($1)\n\t_ = (&fsthttp.ServeManyOptions{"

// prepare builds the contenders below dir. The first is the app as it stands, the second has a sandbox for
// each request, unless that is how the app stands already.
func prepare(ctx context.Context, tools toolchain.Tools, dir string, peers []string) ([]*contender, error) {
	app := &contender{name: "app", dir: filepath.Join(dir, "app")}
	single := &contender{name: "app, 1 request/sandbox", dir: filepath.Join(dir, "single")}
	contenders := []*contender{app}
	if main, err := os.ReadFile("main.go"); err == nil && manyRequests.Match(main) {
		contenders = append(contenders, single)
	}
	for _, c := range contenders {
		files, err := filepath.Glob("*.go")
		if err != nil {
			return nil, err
		}
		for _, file := range append(files, "go.mod", "go.sum", "fastly.toml") {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if c == single && file == "main.go" {
				content = manyRequests.ReplaceAll(content, []byte(sandboxPerRequest))
			}
			if err := write(filepath.Join(c.dir, file), content); err != nil {
				return nil, err
			}
		}
		if err := fastly(ctx, tools, c.dir, "build", "--metadata-disable", "--non-interactive"); err != nil {
			return nil, err
		}
	}

	files, err := wasmFiles(peers)
	if err != nil {
		return nil, err
	}
	manifest, err := os.ReadFile("fastly.toml")
	if err != nil {
		return nil, err
	}
	for i, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".wasm")
		c := &contender{name: name, dir: filepath.Join(dir, fmt.Sprint("peer", i))}
		wasm, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(write(filepath.Join(c.dir, "fastly.toml"), manifest), write(filepath.Join(c.dir, "bin/main.wasm"), wasm)); err != nil {
			return nil, err
		}
		contenders = append(contenders, c)
	}
	for _, c := range contenders {
		if err := fastly(ctx, tools, c.dir, "pack", "--wasm-binary", filepath.Join(c.dir, "bin/main.wasm")); err != nil {
			return nil, err
		}
		packages, _ := filepath.Glob(filepath.Join(c.dir, "pkg/*.tar.gz"))
		if len(packages) == 0 {
			return nil, fmt.Errorf("fastly compute pack left no package in %s/pkg", c.dir)
		}
		info, err := os.Stat(packages[0])
		if err != nil {
			return nil, err
		}
		c.packageSize = info.Size()
	}
	return contenders, nil
}

// wasmFiles returns the files, and those in the directories, that end in .wasm.
func wasmFiles(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("PEERS: %w", err)
		}
		found := []string{path}
		if info.IsDir() {
			found, _ = filepath.Glob(filepath.Join(path, "*.wasm"))
		}
		if len(found) == 0 || !strings.HasSuffix(found[0], ".wasm") {
			return nil, fmt.Errorf("PEERS: %s is not, and has not, a compiled kit, *.wasm (packed ones: xz -dk)", path)
		}
		files = append(files, found...)
	}
	return files, nil
}

func fastly(ctx context.Context, tools toolchain.Tools, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, tools.Fastly, append([]string{"compute"}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fastly compute %s: %w\n%s", args[0], err, out)
	}
	return nil
}

func write(path string, content []byte) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644))
}
