package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The origin believes X-User only in a request that the proxy of its own service signed, and only one value of it.
func TestUser(t *testing.T) {
	signed := sign(t, "changeme", "fastly:OURS", time.Minute)
	tests := []struct {
		name, method, path, body string
		sig                      string
		user                     []string
		status                   int
		answer                   string
	}{
		{"signed", "GET", "/me", "", signed, []string{"ada"}, 200, `"user": "ada"`},
		{"HEAD", "HEAD", "/me", "", signed, []string{"ada"}, 200, ""},
		{"WebSocket", "POST", "/socket", "TEXT f\r\n{\"whoami\":true}\r\n", signed, []string{"ada"}, 200, `"user":"ada"`},
		{"no user", "GET", "/me", "", signed, nil, 401, "vouches for no user"},
		{"empty user", "GET", "/me", "", signed, []string{""}, 401, "vouches for no user"},
		{"two users", "GET", "/me", "", signed, []string{"ada", "eve"}, 400, "only one X-User"},
		{"two users in one line", "GET", "/me", "", signed, []string{"ada, eve"}, 400, "only one X-User"},
		{"two users on a WebSocket", "POST", "/socket", "TEXT f\r\n{\"whoami\":true}\r\n", signed, []string{"ada", "eve"}, 400, "only one X-User"},
		{"straight to the origin", "GET", "/me", "", "", []string{"ada"}, 403, "GRIP proxy only"},
		{"forged", "GET", "/me", "", sign(t, "another", "fastly:OURS", time.Minute), []string{"ada"}, 403, "GRIP proxy only"},
		{"another service's", "GET", "/me", "", sign(t, "changeme", "fastly:OTHER", time.Minute), []string{"ada"}, 403, "GRIP proxy only"},
		{"expired", "GET", "/me", "", sign(t, "changeme", "fastly:OURS", -time.Minute), []string{"ada"}, 403, "GRIP proxy only"},
	}
	url := startOrigin(t, "verify-iss=fastly:OURS&verify-key=changeme", nil)
	for _, tt := range tests {
		status, answer := sendUser(t, tt.method, url+tt.path, tt.body, tt.sig, tt.user)
		if status != tt.status || !strings.Contains(answer, tt.answer) {
			t.Errorf("%s: got %d, %s; want %d, %s", tt.name, status, answer, tt.status, tt.answer)
		}
	}
	// Without a key, anybody can pretend to be the proxy.
	url = startOrigin(t, "", nil)
	if status, answer := sendUser(t, "GET", url+"/me", "", "any", []string{"ada"}); status != 401 {
		t.Errorf("without a verify-key: got %d, %s", status, answer)
	}
}

// /echo shows the headers of one client, so no cache may keep it for the next.
func TestEchoIsNotCached(t *testing.T) {
	resp, err := http.Get(startOrigin(t, "", nil) + "/echo")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q, want no-store", got)
	}
}

func sendUser(t *testing.T, method, url, body, sig string, user []string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Grip-Sig": {sig}, "X-User": user, "Content-Type": {"application/websocket-events"}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(content)
}

func sign(t *testing.T, key, issuer string, life time.Duration) string {
	t.Helper()
	claims := jwt.RegisteredClaims{Issuer: issuer, ExpiresAt: jwt.NewNumericDate(time.Now().Add(life))}
	sig, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}
