package e2e

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
)

// publishSteps returns the steps of deploy.yml that publish, in order.
func publishSteps(t *testing.T) (steps []*actionlint.Step) {
	t.Helper()
	content, err := os.ReadFile("../../.github/workflows/deploy.yml")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this project has no deploy.yml, so it publishes in another way")
	}
	if err != nil {
		t.Fatal(err)
	}
	workflow, errs := actionlint.Parse(content)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, step := range workflow.Jobs["publish"].Steps {
		if _, ok := step.Exec.(*actionlint.ExecRun); ok {
			steps = append(steps, step)
		}
	}
	return steps
}

// runWorkflow runs the shell steps of deploy.yml in the project, as GitHub does, and returns their output. settings has
// the repository's settings. env has more variables, for the local servers that replace Fastly's API and service.
func runWorkflow(t *testing.T, p *project, settings map[string]string, env []string) (out string, err error) {
	t.Helper()
	temp := t.TempDir()
	githubEnv := filepath.Join(temp, "env")
	if err := os.WriteFile(githubEnv, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, step := range publishSteps(t) {
		between, err := os.ReadFile(githubEnv)
		if err != nil {
			t.Fatal(err)
		}
		set := strings.Fields(string(between))
		if step.If != nil {
			if step.If.Value != "env.FASTLY_SERVICE_ID" {
				t.Fatalf("this test does not know the condition %q", step.If.Value)
			}
			if !slices.ContainsFunc(set, func(v string) bool { return strings.HasPrefix(v, "FASTLY_SERVICE_ID=") }) {
				continue
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-e", "-c", step.Exec.(*actionlint.ExecRun).Run.Value)
		cmd.Dir = p.dir
		cmd.Env = slices.Concat(env, set, []string{"GITHUB_ENV=" + githubEnv, "RUNNER_TEMP=" + temp})
		if step.Env != nil {
			for _, v := range step.Env.Vars {
				value := ""
				for setting, s := range settings {
					if strings.Contains(v.Value.Value, setting) {
						value = s
					}
				}
				cmd.Env = append(cmd.Env, strings.ToUpper(v.Name.Value)+"="+value)
			}
		}
		output, err := cmd.CombinedOutput()
		out += string(output)
		if err != nil {
			return out, fmt.Errorf("%s: %w", step.Name.Value, err)
		}
	}
	return out, nil
}

// TestWorkflow runs the shell steps of deploy.yml. Local servers replace Fastly's API and the published service.
func TestWorkflow(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	api := startFastlyAPI(t)

	const token, service = "secrets.FASTLY_API_TOKEN", "vars.FASTLY_SERVICE_ID"
	for name, settings := range map[string]map[string]string{
		"no settings": {}, "no token": {service: "SERVICE"}, "no service": {token: "TOKEN"},
	} {
		out, err := runWorkflow(t, p, settings, api.env())
		if err != nil || !strings.HasPrefix(out, "::notice::Not published.") || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %v, %s", name, err, out)
		}
		checkChanges(t, api.changed())
	}

	// After the publish, version 1 still answers two times. Then version 2 answers, and its first two responses are
	// errors. Its log comes a second later.
	requests := make(chan int, 200)
	n := 0
	edge := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		requests <- n
		if n == 3 || n == 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	edge.Config.SetKeepAlivesEnabled(false)
	edge.StartTLS()
	defer edge.Close()
	api.logs = func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case n := <-requests:
				writeLog(w, n, "FASTLY_SERVICE_VERSION: "+map[bool]string{true: "1", false: "2"}[n < 3])
				writeLog(w, 1000+n, "FASTLY_SERVICE_VERSION: 21, says somebody")
			case <-r.Context().Done():
				return
			}
		}
	}
	api.onChange = func(call string) {
		if call == "PUT /service/SERVICE/version/2/activate" {
			api.answers["GET /service/SERVICE/version"] = `[{"number": 1}, {"number": 2, "active": true}]`
			api.answers["GET /service/SERVICE/version/2/domain"] = `[{"name": "*.example.com", "version": 2, "service_id": "SERVICE"}, {"name": "my-app.example.com", "version": 2, "service_id": "SERVICE"}]`
		}
	}
	certificate := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: edge.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	env := append(api.env(), "HTTPS_PROXY="+startProxy(t, "my-app.example.com:443", edge.Listener.Addr().String()), "NO_PROXY=", "no_proxy=", "CURL_CA_BUNDLE="+certificate)

	out, err := runWorkflow(t, p, map[string]string{token: "TOKEN", service: "SERVICE"}, env)
	if err != nil || !strings.Contains(out, "\nVersion 2 answers at https://my-app.example.com/ with status 200\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if n < 5 {
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

// startProxy starts a proxy that connects only to this address, and only for this host.
func startProxy(t *testing.T, host, addr string) (url string) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != host {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		there, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		go io.Copy(there, buffered)
		io.Copy(here, there)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}
