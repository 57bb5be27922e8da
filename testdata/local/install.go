package local

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	fastlyByHand  = "install the Fastly CLI by hand: https://www.fastly.com/documentation/reference/tools/cli/#installing"
	viceroyByHand = "install Viceroy by hand, and put it on PATH: https://github.com/fastly/Viceroy#usage"
	pushpinByHand = "install Pushpin by hand, and put it on PATH: https://pushpin.org/docs/install/; on Debian 13,\n" +
		"add bookworm, whose package works there, to the apt sources"
)

// findFastly returns the path of the Fastly CLI, or "". If npm installed the CLI, this is the
// program itself, and not the script that npm puts on PATH: when that script is stopped, the
// CLI's child processes go on.
func (in *installer) findFastly() string {
	path, _ := in.onPath("fastly", fastlyOldest, "version", "--quiet")
	return cmp.Or(behindNPM(path), in.cached("fastly", fastlyOldest))
}

// behindNPM returns the path of the program that npm's script starts, or "" if there is no such
// program. If the path is not such a script, it returns the path.
func behindNPM(path string) string {
	script, err := filepath.EvalSymlinks(path)
	if err != nil || filepath.Base(script) != "fastly.js" {
		return path
	}
	for _, modules := range []string{"..", "node_modules/@fastly"} {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(script), modules, "cli-*", "fastly"))
		if len(found) == 1 {
			return found[0]
		}
	}
	return ""
}

// ensureFastly installs the Fastly CLI if necessary, and returns its path.
func (in *installer) ensureFastly() (string, error) {
	if path := in.findFastly(); path != "" {
		return path, nil
	}
	if runtime.GOOS == "darwin" && has("brew") {
		in.say("installing the Fastly CLI with Homebrew (takes a minute)")
		in.run("brew", "install", "fastly/tap/fastly") // prints its errors
		if path := in.findFastly(); path != "" {
			return path, nil
		}
		return "", fmt.Errorf("brew has installed no Fastly CLI %s or newer (see above): "+
			"run `brew upgrade fastly`, or %s", fastlyOldest, fastlyByHand)
	}
	if !has("npm") {
		return "", fmt.Errorf("there is no Fastly CLI %s or newer on PATH, and no npm to install it: "+
			"install Node.js (https://nodejs.org/), or %s", fastlyOldest, fastlyByHand)
	}
	in.say("installing the Fastly CLI %s with npm into %s (takes seconds)", fastlyInstall, in.dir)
	tmp := filepath.Join(in.dir, ".fastly-"+fastlyInstall)
	defer os.RemoveAll(tmp)
	err := in.run("npm", "install", "--prefix", tmp, "--ignore-scripts", "--no-audit", "--no-fund",
		"--no-package-lock", "@fastly/cli@"+fastlyInstall)
	if err != nil {
		return "", fmt.Errorf("%w\ncheck the network and try again, or %s", err, fastlyByHand)
	}
	program := behindNPM(filepath.Join(tmp, "node_modules", ".bin", "fastly"))
	if program == "" {
		return "", fmt.Errorf("npm has no Fastly CLI %s for %s/%s: %s",
			fastlyInstall, runtime.GOOS, runtime.GOARCH, fastlyByHand)
	}
	return in.keep("fastly", fastlyInstall, program)
}

// findViceroy returns the path of Viceroy, or "".
func (in *installer) findViceroy() string {
	path, _ := in.onPath("viceroy", viceroyOldest, "--version")
	return cmp.Or(path, in.cached("viceroy", viceroyOldest))
}

// downloadViceroy makes the CLI download Viceroy, to the directory that `fastly compute serve`
// uses too. It copies Viceroy to the cache, so that a later download does not change it. If the
// download fails and cargo is there to build Viceroy, it returns "".
//
// The CLI downloads the version that the fastly.toml in its working directory names, or else
// the newest. The project's own fastly.toml names none, because `fastly compute serve` would
// then replace a newer Viceroy.
func (in *installer) downloadViceroy(fastly string) (string, error) {
	config, err := os.UserConfigDir() // the CLI uses this directory
	if err != nil {
		return "", err
	}
	path := filepath.Join(config, "fastly", "viceroy")
	if older(in.version(path, "--version"), viceroyOldest) {
		in.say("downloading Viceroy %s with the Fastly CLI (takes seconds)", viceroyInstall)
		manifest := fmt.Sprintf("manifest_version = 3\n[local_server]\nviceroy_version = %q\n", viceroyInstall)
		err := os.WriteFile(filepath.Join(in.dir, "fastly.toml"), []byte(manifest), 0o644)
		if err == nil {
			err = in.run(fastly, "compute", "install-tools", "--non-interactive")
		}
		if err != nil {
			in.say("the download failed: %v", err)
			if cargo, _ := in.onPath("cargo", cargoOldest, "--version"); cargo != "" {
				return "", nil
			}
			return "", fmt.Errorf("downloading Viceroy failed (see above), and there is no cargo %s "+
				"or newer on PATH to build it: check the network, or install Rust (https://rustup.rs/), "+
				"or %s", cargoOldest, viceroyByHand)
		}
	}
	return in.keep("viceroy", in.version(path, "--version"), path)
}

// buildDir is where cargo builds Viceroy. It stays if the build is interrupted.
func (in *installer) buildDir() string { return filepath.Join(in.dir, ".viceroy-"+viceroyInstall) }

func (in *installer) buildViceroy() (string, error) {
	in.say("building Viceroy %s with cargo instead, into %s: this is needed only once, and "+
		"takes 10 to 20 minutes on two cores; if you interrupt it, the next run continues",
		viceroyInstall, in.dir)
	root := filepath.Join(in.buildDir(), "root")
	err := in.run("cargo", "install", "--locked", "--force", "--root", root,
		"--target-dir", filepath.Join(in.buildDir(), "target"), "--version", viceroyInstall, "viceroy")
	if err != nil {
		return "", fmt.Errorf("%w\nfix the errors that cargo reports, and run this again, or %s",
			err, viceroyByHand)
	}
	path, err := in.keep("viceroy", viceroyInstall, filepath.Join(root, "bin", "viceroy"))
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(in.buildDir()); err != nil { // more than a gigabyte
		in.say("%v: remove %s by hand", err, in.buildDir())
	}
	return path, nil
}

//go:embed pushpin-wrapper.sh
var pushpinWrapper string

// findPushpin returns the path of Pushpin, or "". If this Pushpin is too old for the CLI's
// configuration, it is the path of a wrapper.
func (in *installer) findPushpin() string {
	path, version := in.onPath("pushpin", pushpinOldest, "--version")
	if path == "" || !older(version, pushpinRenamed) {
		return path
	}
	script := strings.ReplaceAll(pushpinWrapper, "'@PUSHPIN@'", ShellQuote(path))
	wrapper, err := in.write("pushpin", version, []byte(script))
	if err != nil {
		in.say("%v", err)
		return ""
	}
	return wrapper
}

// ShellQuote returns the text as one word for a shell.
func ShellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// ensurePushpin installs Pushpin if necessary, and returns its path.
func (in *installer) ensurePushpin() (string, error) {
	path := in.findPushpin()
	if path != "" {
		return path, nil
	}
	err := errors.New("there is neither Homebrew nor apt-get to install it")
	if has("brew") {
		in.say("installing Pushpin with Homebrew (takes a minute or two)")
		err = in.run("brew", "install", "pushpin")
	} else if has("apt-get") {
		err = in.aptInstallPushpin()
	}
	if path = in.findPushpin(); path != "" {
		return path, nil
	}
	return "", fmt.Errorf("there is no Pushpin %s or newer on PATH: %w\n%s",
		pushpinOldest, err, pushpinByHand)
}

// aptInstallPushpin installs Debian's package. The package also starts Pushpin as a service, at
// once and at each start of the machine, and this takes the ports that the app's Pushpin needs.
// The user did not ask for this service. So, if the package was not installed before, the
// service is stopped and disabled.
func (in *installer) aptInstallPushpin() error {
	isNew := exec.CommandContext(in.ctx, "dpkg", "-s", "pushpin").Run() != nil
	if err := in.aptInstall("pushpin", pushpinOldest); err != nil || !isNew {
		return err
	}
	in.say("stopping the service that Debian's package starts, because it takes the app's ports")
	for _, args := range [][]string{
		{"service", "pushpin", "stop"},
		{"update-rc.d", "pushpin", "disable"},
	} {
		if err := in.asRoot(args...); err != nil {
			in.say("%v: if port 5561 is taken later, stop that service by hand", err)
		}
	}
	return nil
}

// aptInstall installs a package with apt-get. It returns an error at once if apt-get has no
// package that is new enough.
func (in *installer) aptInstall(pkg, oldest string) error {
	if os.Geteuid() != 0 && !has("sudo") {
		return fmt.Errorf("only root can install it: run `apt-get install %s` as root", pkg)
	}
	in.say("installing %s with apt-get (takes a minute); sudo may ask for your password", pkg)
	// The lists may be old, or missing, as on a new machine.
	if err := in.asRoot("apt-get", "update", "-q"); err != nil {
		in.say("%v: continuing with the old package lists", err)
	}
	policy, _ := exec.CommandContext(in.ctx, "apt-cache", "policy", pkg).Output()
	_, candidate, _ := strings.Cut(string(policy), "Candidate: ")
	candidate, _, _ = strings.Cut(candidate, "\n")
	if version := versionPattern.FindString(candidate); older(version, oldest) {
		return fmt.Errorf("apt-get has no %s %s or newer (it has %s)", pkg, oldest, cmp.Or(version, "none"))
	}
	return in.asRoot("env", "DEBIAN_FRONTEND=noninteractive",
		"apt-get", "install", "-q", "-y", "--no-install-recommends", pkg)
}

func (in *installer) asRoot(args ...string) error {
	if os.Geteuid() != 0 {
		args = append([]string{"sudo"}, args...)
	}
	return in.run(args[0], args[1:]...)
}

// Browser returns the path of a Chromium or Chrome, for the tests of the live page.
func Browser(ctx context.Context) (string, error) {
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
		"/Applications/Chromium.app/Contents/MacOS/Chromium",
	} {
		// The program may be only a script that says how to install Chromium, as on Ubuntu.
		if path, err := exec.LookPath(name); err == nil && exec.CommandContext(ctx, path, "--version").Run() == nil {
			return path, nil
		}
	}
	return "", errors.New("there is neither Chromium nor Chrome: install one of them " +
		"(https://www.chromium.org/getting-involved/download-chromium/)")
}

// EnsureBrowser is Browser, but if there is no browser, apt-get installs Chromium.
func EnsureBrowser(ctx context.Context, out io.Writer) (string, error) {
	path, err := Browser(ctx)
	if err == nil || !has("apt-get") {
		return path, err
	}
	if err := (&installer{ctx: ctx, out: out, dir: os.TempDir()}).aptInstall("chromium", "0.0.0"); err != nil {
		return "", err
	}
	return Browser(ctx)
}
