package local

import (
	"context"
	"fmt"
	"io"
)

// Shellcheck returns the path of ShellCheck, for `make lint`. If it is missing, Homebrew or apt-get installs it. Without
// them, the error says what to install by hand.
func Shellcheck(ctx context.Context, out io.Writer) (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	in := &installer{ctx: ctx, out: out, dir: dir}
	if path, _, ok := in.onPath("shellcheck", shellcheckOldest, "--version"); ok {
		return path, nil
	}
	switch {
	case has("brew"):
		in.say("installing ShellCheck with Homebrew: a minute")
		err = in.run("", nil, "brew", "install", "shellcheck")
	case has("apt-get"):
		err = in.aptInstall("shellcheck")
	}
	if err != nil {
		return "", err
	}
	if path, _, ok := in.onPath("shellcheck", shellcheckOldest, "--version"); ok {
		return path, nil
	}
	return "", fmt.Errorf("there is no ShellCheck %s or newer on PATH: install it by hand: https://github.com/koalaman/shellcheck#installing", shellcheckOldest)
}
