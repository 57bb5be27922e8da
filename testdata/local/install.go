package local

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	fastlyByHand  = "install the Fastly CLI by hand: https://www.fastly.com/documentation/reference/tools/cli/#installing"
	viceroyByHand = "install Viceroy by hand, and put it on PATH: https://github.com/fastly/Viceroy#usage"
	pushpinByHand = "install Pushpin by hand, and put it on PATH: https://pushpin.org/docs/install/"
)

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// findFastly returns the path of the Fastly CLI, or "". If npm installed the CLI, this is the program itself, and not
// the script that npm puts on PATH: when that script is stopped, the CLI's child processes go on.
func (in *installer) findFastly() string {
	if path, _, ok := in.onPath("fastly", fastlyOldest, "version", "--quiet"); ok {
		if program := behindNPM(path); program != "" {
			return program
		}
	}
	path, _ := in.cached("fastly", fastlyOldest)
	return path
}

// installFastly takes only seconds, so nothing checks first whether it can succeed.
func (in *installer) installFastly() (string, error) {
	if runtime.GOOS == "darwin" && has("brew") {
		in.say("installing the Fastly CLI with Homebrew: a minute")
		if err := in.run("", nil, "brew", "install", "fastly/tap/fastly"); err != nil {
			return "", fmt.Errorf("%w\n%s", err, fastlyByHand)
		}
		if path, _, ok := in.onPath("fastly", fastlyOldest, "version", "--quiet"); ok {
			return path, nil
		}
		return "", fmt.Errorf("after brew install, there is still no Fastly CLI %s or newer on PATH: run `brew upgrade fastly`, or %s", fastlyOldest, fastlyByHand)
	}
	if !has("npm") {
		return "", fmt.Errorf("there is no Fastly CLI %s or newer on PATH, and no npm to install it: "+
			"install Node.js (https://nodejs.org/), or %s", fastlyOldest, fastlyByHand)
	}
	in.say("installing the Fastly CLI %s with npm into %s: some seconds", fastlyInstall, in.dir)
	tmp, err := os.MkdirTemp(in.dir, ".fastly-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	err = in.run(tmp, nil, "npm", "install", "--prefix", tmp, "--ignore-scripts", "--no-audit", "--no-fund",
		"--no-package-lock", "@fastly/cli@"+fastlyInstall)
	if err != nil {
		return "", fmt.Errorf("%w\ncheck the network and try again, or %s", err, fastlyByHand)
	}
	found, _ := filepath.Glob(filepath.Join(tmp, "node_modules", "@fastly", "cli-*", "fastly"))
	if len(found) != 1 {
		return "", fmt.Errorf("npm has no Fastly CLI %s for %s/%s: %s", fastlyInstall, runtime.GOOS, runtime.GOARCH, fastlyByHand)
	}
	return in.keep("fastly", fastlyInstall, found[0])
}

// behindNPM returns the path of the program that npm's script starts, or "" if there is no such program. If the path is
// not such a script, it returns the path.
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

// findViceroy returns the path of Viceroy, or "".
func (in *installer) findViceroy() string {
	if path, _, ok := in.onPath("viceroy", viceroyOldest, "--version"); ok {
		return path
	}
	path, _ := in.cached("viceroy", viceroyOldest)
	return path
}

// canBuildViceroy returns an error if there is no cargo that can build Viceroy.
func (in *installer) canBuildViceroy() error {
	if _, _, ok := in.onPath("cargo", cargoOldest, "--version"); ok {
		return nil
	}
	return fmt.Errorf("downloading Viceroy failed (see above), and there is no cargo %s or newer on PATH to build it: "+
		"check the network, or install Rust (https://rustup.rs/), or %s", cargoOldest, viceroyByHand)
}

func (in *installer) buildViceroy() (string, error) {
	in.say("building Viceroy %s with cargo instead, into %s: only this time, 10 to 20 minutes on two cores", viceroyInstall, in.dir)
	in.say("you may interrupt this: the next run continues")
	build := filepath.Join(in.dir, ".viceroy-"+viceroyInstall)
	root := filepath.Join(build, "root")
	err := in.run("", []string{"CARGO_TARGET_DIR=" + filepath.Join(build, "target")},
		"cargo", "install", "--locked", "--force", "--root", root, "--version", viceroyInstall, "viceroy")
	if err != nil {
		return "", fmt.Errorf("%w\nfix the errors that cargo reports, and run this again, or %s", err, viceroyByHand)
	}
	path, err := in.keep("viceroy", viceroyInstall, filepath.Join(root, "bin", "viceroy"))
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(build); err != nil { // more than a gigabyte
		in.say("%v: remove %s by hand", err, build)
	}
	return path, nil
}

// downloadViceroy makes the CLI download Viceroy, to the directory that `fastly compute serve` uses too. It copies
// Viceroy to the cache, so that a later download does not change it.
func (in *installer) downloadViceroy(fastly string) (string, error) {
	in.say("downloading Viceroy with the Fastly CLI: some seconds")
	if err := in.run(in.dir, nil, fastly, "compute", "install-tools", "--non-interactive"); err != nil {
		return "", err
	}
	config, err := os.UserConfigDir() // the CLI uses this directory
	if err != nil {
		return "", err
	}
	path := filepath.Join(config, "fastly", "viceroy")
	version := in.version(path, "--version")
	if older(version, viceroyOldest) {
		return "", fmt.Errorf("%s is version %s; this needs %s or newer", path, version, viceroyOldest)
	}
	return in.keep("viceroy", version, path)
}

//go:embed pushpin-wrapper.sh
var pushpinWrapper []byte

// findPushpin returns the path of Pushpin, or "".
func (in *installer) findPushpin() string {
	path, version, ok := in.onPath("pushpin", pushpinOldest, "--version")
	if !ok {
		return ""
	}
	wrapped, err := in.wrapPushpin(path, version)
	if err != nil {
		in.say("%v", err)
		return ""
	}
	return wrapped
}

// wrapPushpin returns the path of a wrapper if this Pushpin is too old for the CLI's configuration. Otherwise it returns
// the path itself.
func (in *installer) wrapPushpin(path, version string) (string, error) {
	if !older(version, pushpinRenamed) {
		return path, nil
	}
	script := bytes.ReplaceAll(pushpinWrapper, []byte("@PUSHPIN@"), []byte(path))
	wrapper := in.place("pushpin", version)
	if have, err := os.ReadFile(wrapper); err == nil && bytes.Equal(have, script) {
		return wrapper, nil
	}
	tmp := filepath.Join(in.dir, ".pushpin-wrapper")
	if err := os.WriteFile(tmp, script, 0o755); err != nil {
		return "", err
	}
	defer os.Remove(tmp)
	return in.keep("pushpin", version, tmp)
}

// canInstallPushpin returns an error if no package manager here has a Pushpin that is new enough.
func (in *installer) canInstallPushpin() error {
	if has("brew") {
		return nil
	}
	if !has("apt-get") {
		return fmt.Errorf("there is no Pushpin %s or newer on PATH, and neither Homebrew nor apt-get to install it: %s", pushpinOldest, pushpinByHand)
	}
	version, err := in.aptCandidate("pushpin")
	if err != nil {
		return err
	}
	if version != "" && !older(version, pushpinOldest) {
		return nil
	}
	if release, _ := os.ReadFile("/etc/os-release"); version == "" && bytes.Contains(release, []byte("VERSION_CODENAME=trixie")) {
		return errors.New("there is no Pushpin on PATH, and Debian 13 has no package for it. The package of Debian 12 works there: add bookworm to the apt sources, and run this again")
	}
	return fmt.Errorf("there is no Pushpin %s or newer on PATH, and apt-get has %s: %s", pushpinOldest, cmp.Or(version, "none"), pushpinByHand)
}

func (in *installer) installPushpin() (string, error) {
	var err error
	if has("brew") {
		in.say("installing Pushpin with Homebrew: a minute or two")
		err = in.run("", nil, "brew", "install", "pushpin")
	} else {
		err = in.aptInstallPushpin()
	}
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, pushpinByHand)
	}
	path := in.findPushpin()
	if path == "" {
		return "", fmt.Errorf("after the installation, there is still no Pushpin %s or newer on PATH: %s", pushpinOldest, pushpinByHand)
	}
	return path, nil
}

// aptInstallPushpin installs Debian's package. The package also starts Pushpin as a service, at once and at each start
// of the machine, and this takes the ports that the app's Pushpin needs. The user did not ask for this service. So, if
// the package was not installed before, the service is stopped and disabled.
func (in *installer) aptInstallPushpin() error {
	isNew := exec.CommandContext(in.ctx, "dpkg", "-s", "pushpin").Run() != nil
	if err := in.aptInstall("pushpin"); err != nil {
		return err
	}
	if !isNew {
		return nil
	}
	in.say("stopping the service that Debian's package starts, because it takes the app's ports")
	for _, args := range [][]string{{"service", "pushpin", "stop"}, {"update-rc.d", "pushpin", "disable"}} {
		if err := in.asRoot(args...); err != nil {
			in.say("%v: if port 5561 is taken later, stop that service by hand", err)
		}
	}
	return nil
}

// aptCandidate returns the version of a package that apt-get can install, or "" if there is none.
func (in *installer) aptCandidate(pkg string) (string, error) {
	if os.Geteuid() != 0 && !has("sudo") {
		return "", fmt.Errorf("there is no %[1]s on PATH, and only root can install it: run `apt-get install %[1]s` as root", pkg)
	}
	candidate := func() string {
		policy, _ := exec.CommandContext(in.ctx, "apt-cache", "policy", pkg).Output()
		_, candidate, _ := strings.Cut(string(policy), "Candidate: ")
		candidate, _, _ = strings.Cut(candidate, "\n")
		return versionPattern.FindString(candidate)
	}
	if version := candidate(); version != "" {
		return version, nil
	}
	in.aptUpdate() // the lists may be old, or missing, as on a new machine
	return candidate(), nil
}

func (in *installer) aptUpdate() {
	if in.updated {
		return
	}
	in.updated = true
	in.say("updating apt-get's package lists: some seconds; sudo may ask for your password")
	if err := in.asRoot("apt-get", "update", "-q"); err != nil {
		in.say("%v: continuing with the old package lists", err)
	}
}

func (in *installer) aptInstall(pkg string) error {
	if version, err := in.aptCandidate(pkg); err != nil {
		return err
	} else if version == "" {
		return fmt.Errorf("there is no %[1]s on PATH, and apt-get has no package for it: install %[1]s by hand", pkg)
	}
	in.aptUpdate()
	in.say("installing %s with apt-get: a minute; sudo may ask for your password", pkg)
	return in.asRoot("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y", "--no-install-recommends", pkg)
}

func (in *installer) asRoot(args ...string) error {
	if os.Geteuid() != 0 {
		args = append([]string{"sudo"}, args...)
	}
	return in.run("", nil, args[0], args[1:]...)
}
