package e2e

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.yaml.in/yaml/v3"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// TestWorkflow runs the shell steps of deploy.yml. Local servers replace Fastly's API and the
// published service.
func TestWorkflow(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	api := startFastlyAPI(t)
	cache := t.TempDir() // for the steps install only the CLI
	link(t, tools.Fastly, cache+"/fastly-99.0.0/fastly")
	env := append(api.env(), local.CacheVariable+"="+cache)

	for _, settings := range []map[string]string{{"vars.FASTLY_SERVICE_ID": "SERVICE"}, {"secrets.FASTLY_API_TOKEN": "TOKEN"}} {
		out := runWorkflow(t, p, settings, env)
		if !strings.HasPrefix(out, "::notice::Not published.") || strings.Count(out, "\n") != 1 {
			t.Errorf("with %v, the steps print\n%s", settings, out)
		}
		api.check(t)
	}

	// After the publish, version 1 still answers two times. Then version 2 answers, and its
	// first two responses are errors. The log has the version of each sandbox, and what else
	// the app prints.
	var requests atomic.Int64
	edge := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		api.logs <- "FASTLY_SERVICE_VERSION: " + map[bool]string{true: "1", false: "2"}[n < 3]
		api.logs <- "FASTLY_SERVICE_VERSION: 21, says somebody"
		if n == 3 || n == 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer edge.Close()
	domain := edge.Listener.Addr().String()
	api.updated = map[string]string{
		"GET /service/SERVICE/version":          `[{"number": 1}, {"number": 2, "active": true}]`,
		"GET /service/SERVICE/version/2/domain": `[{"name": "*.example.com", "version": 2, "service_id": "SERVICE"}, {"name": "` + domain + `", "version": 2, "service_id": "SERVICE"}]`,
	}
	p.write(t, ".curlrc", "insecure\n") // the edge's certificate is its own

	out := runWorkflow(t, p, map[string]string{"secrets.FASTLY_API_TOKEN": "TOKEN", "vars.FASTLY_SERVICE_ID": "SERVICE"},
		append(env, "CURL_HOME="+p.dir))
	if !strings.Contains(out, "\nVersion 2 answers at https://"+domain+"/ with status 200\n") {
		t.Errorf("the steps print\n%s", out)
	}
	if n := requests.Load(); n < 5 {
		t.Errorf("the step sent %d requests before it accepted version 2", n)
	}
	if strings.Contains(out, "TOKEN") {
		t.Errorf("the steps print the token:\n%s", out)
	}
	api.check(t,
		"PUT /service/SERVICE/version/1/clone",
		"PUT /service/SERVICE/version/2/package bin/main.wasm fastly.toml",
		"PUT /service/SERVICE/version/2/activate",
		"POST /service/SERVICE/log_stream/managed/instance_output")
}

// runWorkflow runs the shell steps of deploy.yml in the project, as GitHub does, and returns
// what they print. settings has the repository's settings, and env more variables.
func runWorkflow(t *testing.T, p *project, settings map[string]string, env []string) (out string) {
	t.Helper()
	content, err := os.ReadFile("../../.github/workflows/deploy.yml")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this project has no deploy.yml, so it publishes in another way")
	}
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct {
				If, Run string
				Env     map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(content, &workflow); err != nil {
		t.Fatal(err)
	}
	temp, before := t.TempDir(), len(p.log.String())
	added := temp + "/env"
	for _, step := range workflow.Jobs["publish"].Steps {
		set, _ := os.ReadFile(added)
		if step.Run == "" || step.If == "env.FASTLY_SERVICE_ID" && !strings.HasPrefix(string(set), "FASTLY_SERVICE_ID=") {
			continue
		}
		args := slices.Concat(env, strings.Fields(string(set)), []string{"GITHUB_ENV=" + added, "RUNNER_TEMP=" + temp})
		for name, expression := range step.Env {
			args = append(args, name+"=")
			for setting, value := range settings {
				if strings.Contains(expression, setting) {
					args = append(args, name+"="+value)
				}
			}
		}
		p.run(t, p.dir, "env", append(args, "bash", "-e", "-c", step.Run)...)
	}
	return p.log.String()[before:]
}
