package local

import (
	"context"
	"fmt"
	"io"
	"os/exec"
)

// Browser returns the path of a Chromium or Chrome, for the test of the live page. If there is none, apt-get installs
// Chromium. Without apt-get, the error says what to install by hand.
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
	return "", fmt.Errorf("there is neither Chromium nor Chrome: install one of them by hand (https://www.chromium.org/getting-involved/download-chromium/)")
}

func (in *installer) browser() (path string, ok bool) {
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
		"/Applications/Chromium.app/Contents/MacOS/Chromium",
	} {
		// The program may be only a script that says how to install Chromium, as on Ubuntu.
		if path, err := exec.LookPath(name); err == nil && exec.CommandContext(in.ctx, path, "--version").Run() == nil {
			return path, true
		}
	}
	return "", false
}
