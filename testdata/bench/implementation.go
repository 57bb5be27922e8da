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

// implementation is a compiled app, in its own directory, which `fastly compute serve` can serve.
type implementation struct {
	name        string
	dir         string
	packageSize int64 // of the package for the upload, in bytes

	addr    string // where it is served, host:port
	app     *chain.Process
	all     []*process.Process // app and the processes that it started
	viceroy *process.Process   // the one of them that runs the app
	log     *sandboxLog
}

// serve starts the implementation, and suspends it until it is measured. So the implementations can take turns of a
// second, and each gets its part of the moments when the machine is slow. A restart takes too long for that.
func (impl *implementation) serve(ctx context.Context, tools toolchain.Tools) error {
	port, err := chain.FreePorts(ctx, 6) // Pushpin publishes at four in a row
	if err != nil {
		return err
	}
	impl.addr, impl.log = net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), new(sandboxLog)
	impl.app, err = chain.Serve(ctx, tools, impl.dir, impl.addr, impl.log, "--skip-build",
		"--pushpin-proxy-port", strconv.Itoa(port+1), "--pushpin-publish-port", strconv.Itoa(port+2))
	if err != nil {
		return fmt.Errorf("%w\n%s", err, impl.log.tail())
	}
	impl.all = impl.app.Tree()
	for _, p := range impl.all {
		if name, _ := p.Name(); name == filepath.Base(tools.Viceroy) {
			impl.viceroy = p
		}
	}
	if impl.viceroy == nil {
		err = fmt.Errorf("there is no process %s", filepath.Base(tools.Viceroy))
	} else {
		err = impl.suspend()
	}
	return err
}

// suspend stops all the implementation's processes until resume. Timers that expired meanwhile fire after resume:
// sandboxes that waited for a request end. That is one reason why a workload warms up.
func (impl *implementation) suspend() error { return impl.each((*process.Process).Suspend) }

func (impl *implementation) resume() error { return impl.each((*process.Process).Resume) }

func (impl *implementation) each(signal func(*process.Process) error) error {
	var failed []error
	for _, p := range impl.all {
		if err := signal(p); err != nil {
			failed = append(failed, fmt.Errorf("signal process %d: %w", p.Pid, err))
		}
	}
	return errors.Join(failed...)
}

// manyRequests matches the call in main.go that lets one sandbox serve many requests. sandboxPerRequest replaces it
// in the implementation that uses a sandbox for each request.
var manyRequests = regexp.MustCompile(`fsthttp\.ServeMany\((\w+), &fsthttp\.ServeManyOptions\{`)

const sandboxPerRequest = "fsthttp.ServeFunc($1)\n\t_ = (&fsthttp.ServeManyOptions{"

// prepare builds the implementations below dir. The first is the app. The second is the app with a sandbox for
// each request; it is left out if main.go does not call ServeMany. The peers follow.
func prepare(ctx context.Context, tools toolchain.Tools, dir string, peers []string) ([]*implementation, error) {
	app := &implementation{name: "app", dir: filepath.Join(dir, "app")}
	single := &implementation{name: "app, 1 request/sandbox", dir: filepath.Join(dir, "single")}
	implementations := []*implementation{app}
	if main, err := os.ReadFile("main.go"); err == nil && manyRequests.Match(main) {
		implementations = append(implementations, single)
	}
	for _, impl := range implementations {
		files, err := filepath.Glob("*.go")
		if err != nil {
			return nil, err
		}
		for _, file := range append(files, "go.mod", "go.sum", "fastly.toml") {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if impl == single && file == "main.go" {
				content = manyRequests.ReplaceAll(content, []byte(sandboxPerRequest))
			}
			if err := write(filepath.Join(impl.dir, file), content); err != nil {
				return nil, err
			}
		}
		if err := fastly(ctx, tools, impl.dir, "build", "--metadata-disable", "--non-interactive"); err != nil {
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
		impl := &implementation{name: name, dir: filepath.Join(dir, fmt.Sprint("peer", i))}
		wasm, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(write(filepath.Join(impl.dir, "fastly.toml"), manifest), write(filepath.Join(impl.dir, "bin/main.wasm"), wasm)); err != nil {
			return nil, err
		}
		implementations = append(implementations, impl)
	}
	for _, impl := range implementations {
		if err := fastly(ctx, tools, impl.dir, "pack", "--wasm-binary", filepath.Join(impl.dir, "bin/main.wasm")); err != nil {
			return nil, err
		}
		packages, _ := filepath.Glob(filepath.Join(impl.dir, "pkg/*.tar.gz"))
		if len(packages) == 0 {
			return nil, fmt.Errorf("fastly compute pack left no package in %s/pkg", impl.dir)
		}
		info, err := os.Stat(packages[0])
		if err != nil {
			return nil, err
		}
		impl.packageSize = info.Size()
	}
	return implementations, nil
}

// wasmFiles returns the .wasm files among the paths, and in the directories among them.
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
			return nil, fmt.Errorf("PEERS: %s is neither a compiled kit, *.wasm, nor a directory with one (unpack .xz files with xz -dk)", path)
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
