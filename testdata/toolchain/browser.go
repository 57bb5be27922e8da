package toolchain

import (
	"context"
	"fmt"
	"io"
	"os/exec"
)

// Browser returns the path of a Chromium or Chrome, for the test of the live page. Where there is none
// it installs Debian's, and elsewhere the error says what to install by hand.
func Browser(ctx context.Context, out io.Writer) (string, error) {
	in := &installer{ctx: ctx, out: out}
	if path, ok := in.browser(); ok {
		return path, nil
	}
	if has("apt-get") {
		if err := in.aptInstall("chromium"); err != nil {
			return "", err
		}
		if path, ok := in.browser(); ok {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no Chromium and no Chrome: install one by hand (https://www.chromium.org/getting-involved/download-chromium/)")
}

func (in *installer) browser() (path string, ok bool) {
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
		"/Applications/Chromium.app/Contents/MacOS/Chromium",
	} {
		// One that is there may yet be only the hint that it must be installed first (Ubuntu's).
		if path, err := exec.LookPath(name); err == nil && exec.CommandContext(in.ctx, path, "--version").Run() == nil {
			return path, true
		}
	}
	return "", false
}
