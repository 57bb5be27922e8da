package e2e

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestWorkflow runs the shell steps of deploy.yml. Local servers replace Fastly's API and the published service.
func TestWorkflow(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	api := startFastlyAPI(t)
	cache := t.TempDir() // for the steps install only the CLI
	link(t, tools.Fastly, filepath.Join(cache, "fastly-99.0.0/fastly"))
	env := append(api.env(), local.CacheVariable+"="+cache)

	for name, settings := range map[string]map[string]string{
		"no settings": {}, "no token": {"vars.FASTLY_SERVICE_ID": "SERVICE"}, "no service": {"secrets.FASTLY_API_TOKEN": "TOKEN"},
	} {
		out, err := runWorkflow(t, p, settings, env)
		if err != nil || !strings.HasPrefix(out, "::notice::Not published.") || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %v, %s", name, err, out)
		}
		checkChanges(t, api.changed())
	}

	// After the publish, version 1 still answers two times. Then version 2 answers, and its first two responses are
	// errors. The log has the version of each sandbox, and what else the app prints.
	var requests atomic.Int64
	logs := make(chan string, 500)
	edge := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		logs <- "FASTLY_SERVICE_VERSION: " + map[bool]string{true: "1", false: "2"}[n < 3]
		logs <- "FASTLY_SERVICE_VERSION: 21, says somebody"
		if n == 3 || n == 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer edge.Close()
	domain := edge.Listener.Addr().String()
	api.logs = logs
	api.onChange = func(call string) {
		if call == "PUT /service/SERVICE/version/2/activate" {
			api.answers["GET /service/SERVICE/version"] = `[{"number": 1}, {"number": 2, "active": true}]`
			api.answers["GET /service/SERVICE/version/2/domain"] = `[{"name": "*.example.com", "version": 2, "service_id": "SERVICE"}, {"name": "` + domain + `", "version": 2, "service_id": "SERVICE"}]`
		}
	}
	certificate := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: edge.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}

	out, err := runWorkflow(t, p, map[string]string{"secrets.FASTLY_API_TOKEN": "TOKEN", "vars.FASTLY_SERVICE_ID": "SERVICE"}, append(env, "CURL_CA_BUNDLE="+certificate))
	if err != nil || !strings.Contains(out, "\nVersion 2 answers at https://"+domain+"/ with status 200\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if n := requests.Load(); n < 5 {
		t.Errorf("the step sent %d requests before it accepted version 2", n)
	}
	if strings.Contains(out, "TOKEN") {
		t.Errorf("the steps print the token:\n%s", out)
	}
	checkChanges(t, api.changed(),
		"PUT /service/SERVICE/version/1/clone",
		"PUT /service/SERVICE/version/2/package bin/main.wasm fastly.toml",
		"PUT /service/SERVICE/version/2/activate",
		"POST /service/SERVICE/log_stream/managed/instance_output")
}

// runWorkflow runs the shell steps of deploy.yml in the project, as GitHub does, and returns their output. settings has
// the repository's settings, and env more variables.
func runWorkflow(t *testing.T, p *project, settings map[string]string, env []string) (out string, err error) {
	t.Helper()
	content, err := os.ReadFile("../../.github/workflows/deploy.yml")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this project has no deploy.yml, so it publishes in another way")
	}
	var workflow struct {
		Jobs struct {
			Publish struct {
				Steps []struct {
					Name, If, Run string
					Env           map[string]string
				}
			}
		}
	}
	if err == nil {
		err = yaml.Unmarshal(content, &workflow)
	}
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	for _, step := range workflow.Jobs.Publish.Steps {
		set, _ := os.ReadFile(filepath.Join(temp, "env"))
		if step.Run == "" || step.If == "env.FASTLY_SERVICE_ID" && !strings.HasPrefix(string(set), "FASTLY_SERVICE_ID=") {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-e", "-c", step.Run)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with what the step started
		cmd.Dir = p.dir
		cmd.Env = slices.Concat(env, strings.Fields(string(set)), []string{"GITHUB_ENV=" + filepath.Join(temp, "env"), "RUNNER_TEMP=" + temp})
		for name, expression := range step.Env {
			value := ""
			for setting, s := range settings {
				if strings.Contains(expression, setting) {
					value = s
				}
			}
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		output, err := cmd.CombinedOutput()
		out += string(output)
		if err != nil {
			return out, fmt.Errorf("%s: %w", step.Name, err)
		}
	}
	return out, nil
}
