package grip

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Publish sends these requests. The end-to-end tests show that Pushpin accepts them.
func TestPublish(t *testing.T) {
	var got string
	status, answer := http.StatusOK, "Published"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = r.Method + " " + r.RequestURI + " " + r.Header.Get("Content-Type") + " " + r.Header.Get("Authorization") + " " + string(body)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	c, err := ParseURL(server.URL+"/service/ID/?key=TOKEN", "")
	if err != nil {
		t.Fatal(err)
	}
	item := Item{Channel: "c", ID: "2", PrevID: "1", Formats: Formats{
		HTTPStream:   &HTTPStream{Content: "a\n"},
		HTTPResponse: &HTTPResponse{Body: "b"},
		WSMessage:    &WSMessage{Content: "d"},
	}}
	if err := c.Publish(t.Context(), item); err != nil {
		t.Fatal(err)
	}
	want := `POST /service/ID/publish/ application/json Bearer TOKEN {"items":[{"channel":"c","id":"2","prev-id":"1","formats":` +
		`{"http-stream":{"content":"a\n"},"http-response":{"body":"b"},"ws-message":{"content":"d"}}}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	// An error has one line. It says what to change, and does not show the token.
	var refused *PublishError
	long := strings.Repeat("x", 1000)
	for _, tt := range []struct {
		status             int
		answer, body, says string
	}{
		{403, "no such token\n", "no such token", "the key in GRIP_URL is wrong"},
		{401, "TOKEN\nhas expired", "(withheld)\nhas expired", "has expired or is not for this service: put a valid one there"},
		{404, "Not found", "Not found", "check the host and the path in GRIP_URL"},
		{429, "slow down", "slow down", "the limit of publish requests or messages was reached: publish less often, and try again later"},
		{503, long[:510] + "TOKEN", long[:510] + "(w", "try again later"},
	} {
		status, answer = tt.status, tt.answer
		err := c.Publish(t.Context(), item)
		if !errors.As(err, &refused) || refused.StatusCode != tt.status || refused.Body != tt.body {
			t.Errorf("%d: got %#v", tt.status, err)
		} else if text := err.Error(); !strings.Contains(text, tt.says) || strings.ContainsAny(text, "\r\n") || strings.Contains(text, "TOKEN") {
			t.Errorf("%d: the error is %s", tt.status, text)
		}
	}

	status = http.StatusMovedPermanently
	if err := c.Publish(t.Context(), item); !errors.As(err, &refused) || refused.StatusCode != 301 {
		t.Errorf("redirected: got %v", err)
	}

	server.Close()
	err = c.Publish(t.Context(), item)
	if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "no response from the GRIP proxy at 127.0.0.1:") {
		t.Errorf("down: got %v", err)
	}
	for _, down := range []string{server.URL + "/?key=TOKEN", server.URL + "/?iss=me&key=TOKEN", server.URL + "/?token=TOKEN", "http://u:TOKEN@" + server.Listener.Addr().String()} {
		c, err := ParseURL(down, "")
		if err != nil {
			t.Fatal(err)
		}
		err = c.Publish(t.Context(), item)
		if err == nil || !strings.Contains(err.Error(), "check that it runs") || strings.Contains(err.Error(), "TOKEN") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s down: got %v", down, err)
		}
	}
}

func TestFits(t *testing.T) {
	const around = len(`{"items":[{"channel":"c","formats":{"ws-message":{"content":""}}}]}`)
	for size, fits := range map[int]bool{MaxPublish: true, MaxPublish + 1: false} {
		item := Item{Channel: "c", Formats: Formats{WSMessage: &WSMessage{Content: strings.Repeat("x", size-around)}}}
		if err := Fits(item); (err == nil) != fits || err != nil && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d bytes: got %v", size, err)
		}
	}
}
